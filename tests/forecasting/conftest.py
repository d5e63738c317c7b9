"""One tiny series and one tiny trained run, made once for all tests of the core."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = 720
TINY: dict[str, Any] = {
    "model": "itransformer",
    "lookback": 36,
    "horizon": 12,
    "architecture": {"layers": 1, "d_model": 16, "d_ff": 16, "heads": 2, "dropout": 0.1},
    "training": {"max_epochs": 3, "learning_rate": 3e-3, "batch_size": 32, "accelerator": "cpu"},
}


@pytest.fixture(scope="session")
def daily() -> Callable[..., np.ndarray]:
    """A function that makes ``(rows, variates)`` with a daily season of hours, a weekly one, and noise."""

    def make(rows: int = ROWS, variates: int = 3, seed: int = 0, noise: float = 0.6) -> np.ndarray:
        hours = np.arange(rows)[:, None]
        shift = 5 * np.arange(variates)
        season = 3 * np.sin(2 * np.pi * (hours + shift) / 24) + np.sin(2 * np.pi * (hours + shift) / 168)
        return 10 + season + noise * np.random.default_rng(seed).standard_normal((rows, variates))

    return make


@pytest.fixture(scope="session")
def write_csv() -> Callable[..., Path]:
    """A function that writes hourly values and further columns as a plain CSV."""

    def write(path: Path, values: np.ndarray, start: str = "2024-01-01T00", **columns: np.ndarray) -> Path:
        stamps = np.datetime64(start, "s") + np.arange(len(values)) * np.timedelta64(1, "h")
        names = [*"abcdefgh"[: values.shape[1]], *columns]
        table = np.column_stack([values, *columns.values()])
        lines = [
            f"{stamp},{','.join('' if np.isnan(x) else f'{x:.6f}' for x in row)}"
            for stamp, row in zip(np.char.replace(stamps.astype(str), "T", " "), table, strict=True)
        ]
        path.write_text("\n".join([f"date,{','.join(names)}", *lines]) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run of the tests."""
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="session")
def csv(shared: Path, daily: Callable[..., np.ndarray], write_csv: Callable[..., Path]) -> Path:
    """720 hours of three variates a, b, c."""
    return write_csv(shared / "tiny.csv", daily())


@pytest.fixture(scope="session")
def config(csv: Path) -> Callable[..., Any]:
    """A function that makes the tiny configuration; nested groups are merged into its own."""
    from datasets.options import build
    from forecasting.config import RunConfig

    def make(**changes: Any) -> RunConfig:
        values = {"data": str(csv), **TINY}
        merged = {k: {**values.get(k, {}), **v} if k == "training" else v for k, v in changes.items()}
        return build(RunConfig, {**values, **merged}, "tiny")

    return make


@pytest.fixture(scope="session")
def outcome(config: Callable[..., Any], shared: Path) -> Any:
    """The tiny run: trained, scored beside seasonal naive and DLinear, and written."""
    from forecasting.experiment import run

    return run(config(), shared / "run", visible=False)


@pytest.fixture(scope="session")
def python() -> Callable[..., subprocess.Popen[str]]:
    """A function that starts Python in a process of its own, with one thread and this checkout."""

    def start(*arguments: object) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    return start
