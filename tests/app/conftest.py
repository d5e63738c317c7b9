"""Small real artifacts and a small real project for the tests of the application."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forecasting.artifact import Artifact, write

ROOT = Path(__file__).parents[2]
TRAIN = ("train", "--model", "dlinear", "--lookback", "24", "--horizon", "6", "--training.max_epochs", "2")


@pytest.fixture
def make_artifact() -> Callable[..., Path]:
    """A function that writes an artifact at ``<folder>/<run_id>``; further arguments go into its parts."""

    def make(folder: Path, run_id: str, *, mse: float | None = 0.4, title: str = "ETTh1", **config: Any) -> Path:
        import torch

        scores = {"itransformer": {"mse": mse, "coverage_80": 0.8}, "seasonal_naive": {"mse": 0.5}}
        curve = [{"epoch": epoch, "train_loss": 1.0 / (1 + epoch), "validation_loss": 0.5} for epoch in range(3)]
        return write(
            folder / run_id,
            Artifact(
                config={"data": "ETTh1", "model": "itransformer", "training": {"seed": 7, "devices": 1}, **config},
                weights={"model.weight": torch.arange(6.0).reshape(2, 3)},
                scaling={"mean": [0.0, 1.0]},
                schema={
                    "variates": ["HUFL", "OT"],
                    "frequency": "h",
                    "lookback": 96,
                    "horizon": 24,
                    "title": title,
                    "data_checksum": "ab" * 32,
                    "code_version": "0.1",
                },
                metrics={"scores": scores, "training": {"epochs": curve}},
                run={
                    "run_id": run_id,
                    "seed": 7,
                    "command": "foretide train --data ETTh1",
                    "seconds": 12.5,
                    "device": "cpu",
                    "started": "2026-03-01T12:00:00+00:00",
                    "versions": {"torch": "2.13"},
                },
            ),
        )

    return make


@dataclass(frozen=True)
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str


Foretide = Callable[..., Ran]


def make_table(rows: int, variates: Sequence[str] = ("load", "temperature"), hours: int = 1) -> list[str]:
    """Lines of a CSV with a daily rhythm: a header, then one line per time stamp."""
    generator = np.random.default_rng(42)
    times = np.datetime64("2024-01-01T00", "h") + hours * np.arange(rows)
    rhythm = np.sin(2 * np.pi * np.arange(rows) * hours / 24)
    columns = [10 * (1 + at) + rhythm * (1 + at) + generator.normal(0, 0.2, rows) for at in range(len(variates))]
    stamps = [str(time).replace("T", " ") + ":00" for time in times.astype("datetime64[m]")]
    body = [
        ",".join([stamp, *(f"{value:.3f}" for value in values)])
        for stamp, *values in zip(stamps, *columns, strict=True)
    ]
    return [",".join(["time", *variates]), *body]


def write_table(path: Path, lines: Sequence[str]) -> Path:
    """Writes the lines of a CSV."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def tree(*folders: Path) -> dict[Path, bytes]:
    """Every file below some folders with its content, without those that SQLite keeps beside an open database."""
    paths = [path for folder in folders for path in folder.rglob("*")]
    return {
        path: path.read_bytes() if path.is_file() else b"" for path in paths if not path.name.endswith(("-wal", "-shm"))
    }


@pytest.fixture(scope="session")
def fresh() -> Foretide:
    """A function that runs the command line in a process of its own."""

    def run(*words: str | Path, cwd: Path, home: Path | None = None, **options: Any) -> Ran:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "FORETIDE_HOME": str(home or cwd / ".foretide")}
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", *map(str, words)],
            cwd=cwd,
            env=environment,
            text=True,
            capture_output=True,
            check=False,
            timeout=120,
            **options,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def foretide(capsys: pytest.CaptureFixture[str]) -> Foretide:
    """A function that runs the command line in this process."""
    from app.cli import main

    def run(*words: str | Path) -> Ran:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, fresh: Foretide) -> Path:
    """A folder with ``plant.csv`` and a home whose project ``plant`` has a champion, all by the real command line."""
    folder = tmp_path_factory.mktemp("trained")
    write_table(folder / "plant.csv", make_table(480))
    done = fresh(*TRAIN, "--data", "plant.csv", "--promote", cwd=folder)
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def site(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the trained folder that a test may change, as working directory."""
    folder = tmp_path / "site"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FORETIDE_HOME", str(folder / ".foretide"))
    return folder
