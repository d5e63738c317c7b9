"""`foretide reproduce` and the way home of runs that were made elsewhere."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Foretide = Callable[..., Any]
NAMES = ["% WEIGHTED ILI", "%UNWEIGHTED ILI", "AGE 0-4", "AGE 5-24", "ILITOTAL", "NUM. OF PROVIDERS", "OT"]
REPRODUCE = ("reproduce", "dlinear", "national_illness", "--horizons", "24", "--accelerator", "cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose national_illness has 300 weeks."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    rows = np.arange(300)
    values = 5 + np.sin(2 * np.pi * rows / 52)[:, None] + rng.normal(0, 0.3, (300, 7))
    days = np.datetime64("2002-01-01") + 7 * rows
    lines = [f"{day},{','.join(f'{value:.4f}' for value in row)}" for day, row in zip(days, values, strict=True)]
    path = folder / "illness" / "national_illness.csv"
    path.parent.mkdir()
    path.write_text("\n".join([",".join(["date", *NAMES]), *lines]) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def here(tmp_path: Path, home: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORETIDE_DATA", str(data))
    return home


def test_published_beside_measured_and_the_runs_in_the_store(here: Path, foretide: Foretide) -> None:
    done = foretide(*REPRODUCE, "--seeds", "1")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    warning = lines.pop(1)
    assert warning.startswith("warning: national_illness: national_illness.csv differs from the file of the published")
    assert (
        lines[0].startswith("[1/1] dlinear_national_illness_24_2021: MSE") and "DLinear on national_illness" in lines[1]
    )
    row = next(line.split() for line in lines if line.startswith("24 "))
    assert row[1:3] == ["1", "2.215"] and row[-2] == "37"
    assert "published: Zeng et al. (LTSF-Linear), AAAI 2023, table 2" in done.out
    listed = foretide("runs", "list").out
    assert "national_illness" in listed and listed.count("dlinear") == 1
    # the second time nothing is trained, and the run is not recorded twice
    again = foretide(*REPRODUCE, "--seeds", "1")
    assert again.out.splitlines()[0] == "1 of 1 runs are there already"
    assert again.out.splitlines()[2:] == lines[2:]
    assert foretide("runs", "list").out == listed


def test_where_nothing_can_be_finished_the_reason_is_the_error(here: Path, foretide: Foretide) -> None:
    done = foretide("reproduce", "dlinear", "national_illness", "--horizons", "60", "--seeds", "1")
    assert done.code == 2
    assert done.err.startswith("error: reproduce: no run was finished; the validation part holds no window")
    assert foretide("runs", "list").out.startswith("no runs yet")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("dlinar", "ETTh1"), "did you mean 'dlinear'"),
        (("dlinear", "ETTh1", "--horizons", "95"), "horizons: found 95, expected one of the published ones"),
        (("dlinear", "ETTh1", "--horizons", "short"), "--horizons: found 'short', expected numbers"),
        (("dlinear", "ETTh1", "--seeds", "0"), "seeds: found 0, expected at least 1"),
        (("dlinear", "ETTh1", "--parallel", "0"), "parallel: found 0, expected at least 1"),
        (("dlinear", "ETTh1", "--features", "S"), "features: found 'S'"),
        (("seasonal_naive", "ETTh1"), "found nothing published about seasonal_naive"),
        (("dlinear",), "DATASET is missing"),
    ],
)
def test_mistakes_are_one_line(here: Path, foretide: Foretide, words: tuple[str, ...], message: str) -> None:
    done = foretide("reproduce", *words)
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1
    assert not here.exists()


class TestImport:
    """`foretide runs import` of a folder of artifacts."""

    def test_takes_every_artifact_of_a_folder(
        self, here: Path, foretide: Foretide, make_artifact: Callable[..., Path], tmp_path: Path
    ) -> None:
        results = tmp_path / "results"
        for run_id in ("aaaa1111", "bbbb2222", "cccc3333"):
            make_artifact(results, run_id)
        shutil.copytree(results / "cccc3333", results / ".part-cccc3333")
        (results / "logs").mkdir()
        (results / "itransformer_ETTh1.json").write_text("{}")
        done = foretide("runs", "import", "results")
        assert (done.code, done.out) == (0, "3 runs are in the store: aaaa1111, bbbb2222, cccc3333\n")
        assert foretide("runs", "import", "results").out == done.out
        assert foretide("runs", "import", "results/aaaa1111").out == "run aaaa1111 is in the store\n"
        assert all((here / "artifacts" / run_id).is_dir() for run_id in ("aaaa1111", "bbbb2222", "cccc3333"))

    def test_takes_none_where_one_is_damaged(
        self, here: Path, foretide: Foretide, make_artifact: Callable[..., Path], tmp_path: Path
    ) -> None:
        for run_id in ("aaaa1111", "bbbb2222"):
            make_artifact(tmp_path / "results", run_id)
        (tmp_path / "results/bbbb2222/metrics.json").write_text("{}")
        done = foretide("runs", "import", "results")
        assert done.code == 2 and "results/bbbb2222/metrics.json: is truncated" in done.err
        assert not here.exists()

    def test_of_a_folder_without_any_says_what_is_missing(self, here: Path, foretide: Foretide, tmp_path: Path) -> None:
        (tmp_path / "results" / "empty").mkdir(parents=True)
        done = foretide("runs", "import", "results")
        assert done.code == 2 and "SHA256SUMS: is missing" in done.err
