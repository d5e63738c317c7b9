"""Bad input of every kind: one line on stderr, exit code 2, nothing written."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.app.conftest import TRAIN, make_table, tree, write_table

Foretide = Callable[..., Any]
FORECAST = ("forecast", "--data")


@pytest.fixture
def refused(foretide: Foretide, site: Path) -> Callable[..., str]:
    """A function that runs a command, checks that it fails in one line and leaves no trace, and returns the line."""

    def run(*words: str | Path) -> str:
        before = tree(site)
        done = foretide(*words)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("error: ") and done.err.count("\n") == 1 and done.err.endswith("\n")
        assert tree(site) == before
        return str(done.err.removeprefix("error: ").strip())

    return run


def changed(lines: list[str], row: int, line: str) -> list[str]:
    """The lines of a table with another line at a row of the file, counted from 1."""
    return [*lines[: row - 1], line, *lines[row:]]


TABLE = make_table(200)
BAD_TABLES = {
    "empty": ([], (), ("bad.csv", "empty")),
    "header only": (TABLE[:1], (), ("bad.csv", "header")),
    "wrong time column": (TABLE, ("--reader.time", "when"), ("bad.csv", "'when'", "'time', 'load', 'temperature'")),
    "unparseable date": (changed(TABLE, 57, "2024-13-45 00:00,1.0,2.0"), (), ("bad.csv", "row 57", "2024-13-45 00:00")),
    "text in a value column": (
        changed(TABLE, 57, "2024-01-03 07:00,broken,2.0"),
        (),
        ("bad.csv", "row 57", "load", "broken"),
    ),
    "duplicate stamps": (changed(TABLE, 57, TABLE[55]), (), ("bad.csv", "row 57", "--quality.policy")),
    "gap": ([*TABLE[:56], *TABLE[60:]], (), ("bad.csv", "row", "--quality.policy")),
    "all-NaN variate": (
        [f"{line},nothing" if line == TABLE[0] else f"{line}," for line in TABLE],
        (),
        ("bad.csv", "nothing", "--reader.variates"),
    ),
    "too short": (TABLE[:21], (), ("lookback 24 + horizon 6 = 30", "20 rows")),
    "no numbers": (["time,name", *(f"{line.split(',')[0]},pump" for line in TABLE[1:])], (), ("bad.csv",)),
    "no time": (["a,b", "1,2", "3,4"], (), ("bad.csv",)),
}


class TestData:
    """Files that cannot be used."""

    @pytest.mark.parametrize("kind", BAD_TABLES)
    def test_train_refuses(self, kind: str, refused: Callable[..., str], site: Path) -> None:
        lines, words, parts = BAD_TABLES[kind]
        write_table(site / "bad.csv", lines)
        message = refused(*TRAIN, "--data", "bad.csv", *words)
        assert all(part in message for part in parts), message

    @pytest.mark.parametrize("kind", [kind for kind in BAD_TABLES if kind != "too short"])
    def test_forecast_refuses(self, kind: str, refused: Callable[..., str], site: Path) -> None:
        lines, words, parts = BAD_TABLES[kind]
        write_table(site / "bad.csv", lines)
        message = refused(*FORECAST, "bad.csv", "--output", "f.csv", *words)
        assert all(part in message for part in parts), message

    def test_forecast_needs_a_lookback(self, refused: Callable[..., str], site: Path) -> None:
        write_table(site / "bad.csv", TABLE[:21])
        assert "24" in refused(*FORECAST, "bad.csv", "--output", "f.csv")

    def test_a_missing_file(self, refused: Callable[..., str]) -> None:
        for words in (
            (*TRAIN, "--data"),
            FORECAST,
            ("evaluate", "--data"),
            ("backtest", "--data"),
            ("data", "check"),
            ("data", "describe"),
        ):
            assert refused(*words, "nowhere.csv").startswith("nowhere.csv: there is no such file or folder")

    def test_an_unknown_dataset_names_those_that_are_close(self, refused: Callable[..., str]) -> None:
        assert "ETTh1" in refused(*TRAIN, "--data", "ETTh9")

    def test_a_dataset_that_is_not_here_says_where_to_get_it(
        self, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("FORETIDE_DATA", str(tmp_path))
        message = refused(*TRAIN, "--data", "weather")
        assert "publisher" in message and "FORETIDE_DATA" in message

    def test_a_folder_without_data(self, refused: Callable[..., str], site: Path) -> None:
        (site / "empty").mkdir()
        refused(*TRAIN, "--data", "empty")

    def test_fields_are_not_series(
        self, refused: Callable[..., str], data_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FORETIDE_DATA", str(data_folder))
        for command in (TRAIN, ("forecast",), ("evaluate",), ("backtest",)):
            message = refused(*command, "--data", "air_temperature")
            assert "holds fields over time, lat, lon, expected series" in message

    def test_unused_covariates_are_a_warning(self, foretide: Foretide, site: Path) -> None:
        write_table(site / "more.csv", make_table(300, ("load", "temperature", "price")))
        done = foretide(*TRAIN, "--data", "more.csv", "--reader.future", "temperature", "price")
        assert done.code == 0
        assert done.err == "warning: dlinear does not use future covariates: temperature, price are ignored\n"


class TestModel:
    """Data that does not fit the model, and names of models that are not there."""

    @pytest.mark.parametrize(
        ("words", "parts"),
        [
            (("--horizon", "7"), ("--horizon: found 7, expected 1 to 6",)),
            (("--horizon", "0"), ("--horizon: found 0",)),
            (
                ("--model", "nobody"),
                ("--model: project 'plant': has no version or alias 'nobody'; found 1 = champion",),
            ),
            (("--model", "9"), ("has no version or alias '9'",)),
            (("--project", "plnt"), ("project 'plnt': has no registered model; did you mean 'plant'?",)),
            (("--model", "abcdef"), ("run 'abcdef': no such run",)),
            (("--model", "./nowhere"), ("nowhere: found nothing, expected the folder of an artifact",)),
            (("--device", "tpu"), ("--device: found 'tpu', expected cpu",)),
            (("--samples", "3"), ("--output: found 'f.csv'", ".nc")),
            (("--samples", "-1"), ("--samples: found -1",)),
        ],
    )
    def test_wrong_options(self, words: tuple[str, ...], parts: tuple[str, ...], refused: Callable[..., str]) -> None:
        message = refused(*FORECAST, "plant.csv", "--output", "f.csv", *words)
        assert all(part in message for part in parts), message

    @pytest.mark.skipif(torch.cuda.is_available(), reason="not here: a GPU is there")
    def test_a_gpu_that_is_not_there(self, refused: Callable[..., str]) -> None:
        for command in ("forecast", "evaluate", "backtest"):
            assert "no GPU is visible" in refused(command, "--data", "plant.csv", "--device", "cuda")
        assert "no GPU is visible" in refused(*TRAIN, "--data", "plant.csv", "--training.accelerator", "gpu")

    def test_missing_variates(self, refused: Callable[..., str], site: Path) -> None:
        write_table(site / "one.csv", make_table(100, ("load",)))
        message = refused(*FORECAST, "one.csv", "--output", "f.csv")
        assert "'temperature' is missing" in message and "load" in message

    def test_another_frequency(self, refused: Callable[..., str], site: Path) -> None:
        write_table(site / "slow.csv", make_table(100, hours=3))
        message = refused(*FORECAST, "slow.csv", "--output", "f.csv")
        assert "found frequency 3h, expected h" in message

    def test_another_unit(self, foretide: Foretide, refused: Callable[..., str], site: Path) -> None:
        (site / "plant.csv.units.yaml").write_text("load: MW\ntemperature: °C\n")
        assert foretide(*TRAIN, "--data", "plant.csv", "--promote").code == 0
        message = refused(*FORECAST, "plant.csv", "--output", "f.csv", "--reader.units", "load=kW")
        assert "'load' is in 'kW', the model was trained on 'MW'" in message

    def test_nothing_was_trained_yet(
        self, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, site: Path
    ) -> None:
        monkeypatch.setenv("FORETIDE_HOME", str(site / "other"))
        message = refused(*FORECAST, "plant.csv")
        assert "no model is registered" in message and "foretide train" in message

    def test_a_model_that_does_not_fit_into_memory(self, refused: Callable[..., str]) -> None:
        size = ("--architecture.d_model", "80000000", "--architecture.heads", "1")
        message = refused("train", "--data", "plant.csv", "--lookback", "24", "--horizon", "6", *size)
        assert message.startswith("there is not enough memory; take a smaller model or batch")

    def test_training_options_that_could_not_end_well(self, refused: Callable[..., str]) -> None:
        assert "'nobody'" in refused(*TRAIN, "--data", "plant.csv", "--baselines", "nobody")
        assert "' x'" in refused(*TRAIN, "--data", "plant.csv", "--project", " x")
        assert "log" in refused(*TRAIN, "--data", "plant.csv", "--scaling.transform", "logit")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def _pickle(path: Path) -> None:
    torch.save({"model.weight": torch.zeros(3)}, path)


class TestArtifact:
    """Artifacts that were damaged, or that want to run code."""

    @pytest.mark.parametrize(
        ("part", "damage", "said"),
        [
            ("weights.safetensors", _cut, "is truncated"),
            ("weights.safetensors", _alter, "was altered"),
            ("weights.safetensors", _pickle, "a pickle is never loaded"),
            ("weights.safetensors", Path.unlink, "is missing"),
            ("schema.json", _cut, "is truncated"),
            ("scaling.json", _alter, "was altered"),
            ("config.yaml", Path.unlink, "is missing"),
            ("SHA256SUMS", Path.unlink, "is missing"),
        ],
    )
    def test_a_damaged_one_is_refused(
        self, part: str, damage: Callable[[Path], None], said: str, refused: Callable[..., str], site: Path
    ) -> None:
        (path,) = (site / ".foretide" / "artifacts").glob(f"*/{part}")
        damage(path)
        message = refused(*FORECAST, "plant.csv", "--output", "f.csv")
        assert said in message and part in message

    def test_one_that_names_a_class_is_refused(self, refused: Callable[..., str], site: Path) -> None:
        from forecasting.artifact import PARTS, write_sums

        (folder,) = (site / ".foretide" / "artifacts").iterdir()
        config = folder / "config.yaml"
        config.write_text(config.read_text() + "reader: !!python/object/apply:os.system ['touch hacked']\n")
        write_sums(folder, PARTS)
        assert "config.yaml" in refused(*FORECAST, "plant.csv")
        assert not (site / "hacked").exists()


class TestOutput:
    """Places that cannot be written."""

    @pytest.mark.parametrize(
        ("target", "said"),
        [
            ("f.xlsx", "expected a name that ends in .parquet, .csv, .nc"),
            ("plant.csv/f.csv", "a part of the path is a file"),
            ("folder.csv", "a folder stands at this path"),
            ("/proc/f.csv", "cannot be written"),
            (f"{'x' * 300}.csv", "the name is too long"),
        ],
    )
    def test_of_a_forecast(self, target: str, said: str, refused: Callable[..., str], site: Path) -> None:
        (site / "folder.csv").mkdir()
        message = refused(*FORECAST, "plant.csv", "--output", target)
        assert said in message and Path(target).name in message

    @pytest.mark.parametrize(
        "words",
        [
            ("evaluate", "--data", "plant.csv"),
            ("backtest", "--data", "plant.csv"),
            ("data", "check", "plant.csv"),
            ("models", "export", "plant"),
        ],
    )
    def test_of_other_commands(self, words: tuple[str, ...], refused: Callable[..., str]) -> None:
        end = "out.tar.gz" if words[0] == "models" else "out.csv"
        assert "a part of the path is a file" in refused(*words, "--output", f"plant.csv/{end}")

    def test_backtests_have_no_netcdf_form(self, refused: Callable[..., str]) -> None:
        assert "found 'b.nc'" in refused("backtest", "--data", "plant.csv", "--output", "b.nc")

    @pytest.mark.skipif(os.geteuid() == 0, reason="not here: root may write everywhere")
    def test_a_folder_without_permission(self, refused: Callable[..., str], site: Path) -> None:
        (site / "shut").mkdir(mode=0o500)
        assert "permission denied" in refused(*FORECAST, "plant.csv", "--output", "shut/f.csv")

    def test_a_home_that_cannot_be_written(self, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FORETIDE_HOME", "plant.csv/home")
        assert "a part of the path is a file" in refused(*TRAIN, "--data", "plant.csv")


@contextmanager
def _tiny_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("not here: mounting a file system needs root")
    try:
        yield folder
    finally:
        # lazily: a failed store may still have its scratch file open
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class TestFullDisk:
    """A disk without space, and a limit on the size of files."""

    @pytest.mark.parametrize("suffix", ["parquet", "csv", "nc"])
    def test_forecast(self, suffix: str, foretide: Foretide, site: Path) -> None:
        with _tiny_disk(site / "tiny", "4k") as disk:
            (disk / "filler").write_bytes(b"x" * 4096)
            done = foretide(*FORECAST, "plant.csv", "--output", disk / f"f.{suffix}")
            assert [path.name for path in disk.iterdir()] == ["filler"]
        assert done.code == 2 and done.err.count("\n") == 1
        assert f"f.{suffix}: cannot be written: the disk is full" in done.err

    @pytest.mark.parametrize(
        ("size", "said"), [("48k", "cannot be written: the disk is full"), ("300k", "foretide runs import")]
    )
    def test_train(self, size: str, said: str, foretide: Foretide, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with _tiny_disk(site / "tiny", size) as disk:
            monkeypatch.setenv("FORETIDE_HOME", str(disk / "home"))
            done = foretide(*TRAIN, "--data", "plant.csv", "--promote")
            assert not list(disk.rglob(".part-*")) and not list(disk.rglob("runs.db"))
        assert done.code == 2 and done.err.count("\n") == 1
        assert "the disk is full" in done.err and said in done.err

    def test_a_run_that_could_not_be_recorded_is_recorded_later(
        self, foretide: Foretide, site: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with _tiny_disk(site / "tiny", "300k") as disk:
            monkeypatch.setenv("FORETIDE_HOME", str(disk / "home"))
            assert foretide(*TRAIN, "--data", "plant.csv").code == 2
            shutil.copytree(disk / "home", site / "roomy")
        monkeypatch.setenv("FORETIDE_HOME", str(site / "roomy"))
        (folder,) = (site / "roomy" / "artifacts").iterdir()
        assert foretide("runs", "import", folder).code == 0
        assert folder.name in foretide("runs", "list").out

    def test_a_limit_on_the_size_of_files(self, fresh: Foretide, site: Path) -> None:
        import resource

        before = tree(site)
        (folder,) = (site / ".foretide" / "artifacts").iterdir()
        done = fresh(
            "forecast",
            "--data",
            "plant.csv",
            "--model",
            folder,
            "--output",
            "f.nc",
            cwd=site,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512)),
        )
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert "f.nc: cannot be written: the file outgrew the size that is allowed here" in done.err
        assert tree(site) == before


class TestLockedStore:
    """A run store that another program holds."""

    @pytest.fixture(autouse=True)
    def hasty(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Shortens the wait for a foreign lock."""
        monkeypatch.setattr("app.store._WAIT", 0.1)

    @pytest.mark.parametrize(
        "words",
        [
            ("runs", "list"),
            ("runs", "delete", "ab"),
            ("models", "list"),
            ("models", "promote", "plant", "1"),
            ("forecast", "--data", "plant.csv", "--output", "f.csv"),
            ("compare",),
            (*TRAIN, "--data", "plant.csv"),
        ],
    )
    def test_is_named(self, words: tuple[str, ...], refused: Callable[..., str], site: Path) -> None:
        with closing(sqlite3.connect(site / ".foretide" / "runs.db", isolation_level=None)) as other:
            other.execute("PRAGMA locking_mode = EXCLUSIVE")
            other.execute("BEGIN EXCLUSIVE")
            message = refused(*words)
            other.execute("ROLLBACK")
        assert message.startswith(str(site / ".foretide" / "runs.db")) and "locked by another program" in message

    def test_a_reader_does_not_mind_a_writer(self, foretide: Foretide, site: Path) -> None:
        with closing(sqlite3.connect(site / ".foretide" / "runs.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert foretide("forecast", "--data", "plant.csv").code == 0
            other.execute("ROLLBACK")

    def test_something_else_in_its_place(self, refused: Callable[..., str], site: Path) -> None:
        (site / ".foretide" / "runs.db").write_text("hello\n" * 100)
        assert "not an SQLite database" in refused("runs", "list")
