"""Reproduction: which runs belong to a published table, that each is made once, and what is summed up."""

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets import canonical, schema
from datasets.errors import ForetideError
from forecasting import artifact, experiment, measured, published
from forecasting.artifact import Artifact
from forecasting.reproduce import LOGS, Cell, Reproduction, cells, main

CELL = "dlinear_national_illness_24_1"
VARIATES = ["% WEIGHTED ILI", "%UNWEIGHTED ILI", "AGE 0-4", "AGE 5-24", "ILITOTAL", "NUM. OF PROVIDERS", "OT"]


@pytest.fixture(scope="module")
def weeks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A third of national_illness in length, under its name, as a compute node gets it."""
    rows, rng = np.arange(300), np.random.default_rng(0)
    values = np.sin(2 * np.pi * rows / 52)[:, None] * np.arange(1, 8) + rng.normal(0, 0.3, (300, 7))
    times = np.datetime64("2002-01-01", "ns") + rows * np.timedelta64(7, "D")
    data = schema.series(
        values, times, VARIATES, frequency="W-TUE", title="national_illness", source="toy", checksum="ab" * 32
    )
    return canonical.write(data, tmp_path_factory.mktemp("weeks") / "weeks.nc")


@dataclass(frozen=True)
class Ran:
    """What a call of the plain entry left."""

    code: int
    out: str
    folder: Path

    @property
    def summary(self) -> dict[str, Any]:
        return measured.read(self.folder / "dlinear_national_illness.json")


def reproduce(weeks: Path, folder: Path, *words: str) -> int:
    fixed = ("--data", str(weeks), "--output", str(folder), "--accelerator", "cpu")
    return main(["dlinear", "national_illness", *fixed, *words])


@pytest.fixture(scope="module")
def first(weeks: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Two horizons, the longer of which has no validation window in so short a series."""
    folder = tmp_path_factory.mktemp("reproduced") / "runs"
    capture = pytest.MonkeyPatch()
    lines: list[str] = []
    capture.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
    code = reproduce(weeks, folder, "--horizons", "24", "36", "--seeds", "1", "--parallel", "2", "--slim")
    capture.undo()
    return Ran(code, "\n".join(lines), folder)


@pytest.fixture(scope="module")
def second(first: Ran, weeks: Path) -> Ran:
    """One horizon again, with another seed."""
    capture = pytest.MonkeyPatch()
    lines: list[str] = []
    capture.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
    code = reproduce(weeks, first.folder, "--horizons", "24", "--seeds", "1", "2")
    capture.undo()
    return Ran(code, "\n".join(lines), first.folder)


def test_a_cell_that_fails_is_noted_and_the_others_go_on(first: Ran) -> None:
    assert first.code == 1
    lines = sorted(line for line in first.out.splitlines() if line.startswith("["))
    assert (
        lines[0].startswith("[1/2] ") and "left" in lines[0] and lines[1].startswith("[2/2] ") and "all in" in lines[1]
    )
    good, bad = (next(line for line in lines if name in line) for name in (CELL, "_36_1"))
    assert "(published 2.215), MAE" in good and "failed: the validation part holds no window" in bad
    assert (first.folder / CELL).is_dir() and not (first.folder / "dlinear_national_illness_36_1").exists()


def test_a_slim_artifact_holds_scores_and_window_errors_only(first: Ran) -> None:
    stored = artifact.load(first.folder / CELL)
    names = [f"evaluation.{model}.{metric}" for model in ("dlinear", "seasonal_naive") for metric in ("mae", "mse")]
    assert sorted(stored.weights) == names and len(stored.weights[names[0]]) == stored.metrics["windows"]["test"] == 37
    assert set(stored.metrics["scores"]) == {"dlinear", "seasonal_naive"}
    assert stored.config["training"]["seed"] == 1 and stored.config["baselines"] == ["seasonal_naive"]


def test_a_finished_run_is_not_repeated_and_the_summary_covers_all(second: Ran, weeks: Path) -> None:
    assert second.code == 0 and "1 of 2 runs are there already" in second.out and "[1/1]" in second.out
    scores = [
        json.loads((second.folder / f"dlinear_national_illness_24_{seed}/metrics.json").read_text())["scores"][
            "dlinear"
        ]
        for seed in (1, 2)
    ]
    (cell,) = second.summary["cells"]
    mse = [row["mse"] for row in scores]
    assert cell["measured"]["mse"] == {"mean": statistics.fmean(mse), "std": statistics.stdev(mse), "count": 2}
    assert (cell["horizon"], cell["windows"], cell["features"], cell["lookback"]) == (24, 37, "M", 104)
    assert cell["published"]["mse"] == 2.215 and "AAAI 2023" in cell["published"]["source"]
    assert cell["ratio"]["mse"] == pytest.approx(statistics.fmean(mse) / 2.215)
    assert [run["seed"] for run in cell["runs"]] == [1, 2]
    # what an earlier call failed at is still said
    assert list(second.summary["failures"]) == ["dlinear_national_illness_36_1"]
    assert second.summary["devices"] and second.summary["versions"]["torch"] == torch.__version__
    assert second.summary["averages"] == []


def cell_of(weeks: Path, **training: Any) -> Cell:
    (cell,) = cells("dlinear", "national_illness", [24], [1], accelerator="cpu", data=weeks)
    return replace(cell, config=cell.config.of(training=replace(cell.config.training, **training)))


def test_a_run_with_other_settings_is_never_taken_for_the_same(first: Ran, weeks: Path) -> None:
    other = cell_of(weeks, learning_rate=0.5)
    with pytest.raises(
        ForetideError, match=r"24_1: was made with training\.learning_rate 0\.01, expected 0\.5; remove it"
    ):
        Reproduction(first.folder, [other]).run(1)
    # where the data lies and what it ran on do not matter
    elsewhere = replace(cell_of(weeks, accelerator="auto"), config=cell_of(weeks).config.of(data="elsewhere.nc"))
    Reproduction(first.folder, [elsewhere]).run(1)


def test_a_broken_run_continues(weeks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = cell_of(weeks)

    def fail(*arguments: Any) -> None:
        raise RuntimeError("lost")

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "score", fail)
        with pytest.raises(RuntimeError, match="lost"):
            experiment.run(cell.config, tmp_path / cell.name, visible=False)
    assert [path.name for path in tmp_path.iterdir()] == [f".{cell.name}.work"]
    made = Reproduction(tmp_path, [cell])
    made.run(1)
    assert not made.failures and not (tmp_path / f".{cell.name}.work").exists()
    # trained already, so that no epoch was left to report
    assert "epoch" not in (tmp_path / LOGS / f"{cell.name}.log").read_text()
    assert "model.project_trend.weight" in artifact.load(tmp_path / cell.name).weights


def test_the_runs_of_a_table() -> None:
    made = cells("iTransformer", "etth1")
    assert [cell.name for cell in made] == [
        f"itransformer_ETTh1_{horizon}_{seed}" for horizon in (96, 192, 336, 720) for seed in (2023, 2024, 2025)
    ]
    assert all(cell.config.baselines == ["seasonal_naive"] and cell.config.data == "ETTh1" for cell in made)
    assert made[0].config.architecture["d_model"] == 256 and made[-1].config.architecture["d_model"] == 512
    chosen = cells("itransformer", "ETTh1", [720], [7], accelerator="cpu", data=Path("x.nc"))
    assert [(cell.seed, cell.config.training.seed, cell.config.horizon) for cell in chosen] == [(7, 7, 720)]
    assert chosen[0].config.training.accelerator == "cpu" and chosen[0].config.data == str(Path("x.nc").absolute())


@pytest.mark.parametrize("model", sorted({cell.model for cell in published.scores()}))
def test_every_model_with_published_scores_has_its_runs(model: str) -> None:
    for dataset in {cell.dataset for cell in published.scores(model)}:
        made = cells(model.replace("_", "-"), dataset, seeds=1)
        reported = {(cell.features, cell.horizon) for cell in published.scores(model, dataset)}
        assert {(cell.features, cell.config.horizon) for cell in made} == reported and len(made) == len(reported)
        assert all(cell.seed == cell.config.training.seed and cell.config.model == model for cell in made)


def test_the_target_alone_is_forecast_where_that_was_published() -> None:
    (cell,) = cells("informer", "ETTh1", [24], 1, "S")
    assert cell.name == "informer_ETTh1_S_24_2023" and cell.config.reader.variates == ["OT"]
    assert {c.features for c in cells("informer", "ETTh1", [24], 1)} == {"M", "S"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("itransfomer", "ETTh1"), "did you mean 'itransformer'"),
        (("itransformer", "ETTh3"), "did you mean"),
        (("itransformer", "ETTh1", [96, 100]), "horizons: found 100, expected one of the published ones: 96, 192, 336"),
        (("itransformer", "vic_elec"), "nothing published about itransformer on vic_elec; expected one of ETTm1"),
        (("drift", "ETTh1"), "no published scores of this model are known"),
        (("itransformer", "ETTh1", None, 1, "S"), "features: found 'S'"),
    ],
)
def test_what_cannot_be_reproduced_is_said_in_one_line(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ForetideError, match=words):
        cells(*arguments)


@pytest.mark.parametrize(
    "words", [["dlinear", "ETTh9"], ["dlinear", "ETTh1", "--parallel", "0"], ["dlinear", "ETTh1", "--horizons", "1"]]
)
def test_a_mistake_ends_with_2_and_leaves_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--output", str(tmp_path / "runs")]) == 2
    assert capsys.readouterr().err.startswith("error: ") and not list(tmp_path.iterdir())


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., None]:
    """A function that leaves a finished run with given window errors under the name of its cell."""

    def make(model: str, horizon: int, seed: int, errors: list[float], coverage: list[float]) -> None:
        mean = statistics.fmean(errors)
        scores = {"mse": mean, "mae": 2 * mean, "crps": 1.0, "scaled_crps": 0.5}
        shares = {f"coverage_{percent}": statistics.fmean(coverage) for percent in (80, 95)}
        by_step = {f"coverage_{percent}": coverage for percent in (80, 95)}
        window = torch.tensor(errors)
        artifact.write(
            tmp_path / measured.cell_name(model, "ETTh1", "M", horizon, seed),
            Artifact(
                config={"model": model, "data": "ETTh1"},
                weights={f"evaluation.{model}.mse": window, f"evaluation.{model}.mae": 2 * window},
                scaling={},
                schema={"variates": ["OT"], "frequency": "h", "lookback": 96, "horizon": horizon},
                metrics={
                    "windows": {"test": len(errors)},
                    "scores": {model: {**scores, **shares}, "seasonal_naive": {"crps": 2.0, "scaled_crps": 1.0}},
                    "by_step": {model: by_step},
                    "training": {"epochs": [{}, {}], "best_epoch": 1},
                },
                run={
                    "run_id": f"run-{horizon}-{seed}",
                    "seed": seed,
                    "seconds": 10.0,
                    "device": "a device",
                    "versions": {"torch": "2"},
                },
            ),
        )

    return make


def test_averages_over_horizons_are_those_of_seeds_that_have_all(made: Callable[..., None], tmp_path: Path) -> None:
    for at, horizon in enumerate((96, 192, 336, 720)):
        made("itransformer", horizon, 1, [0.1 + at], [0.8, 0.8])
        made("itransformer", horizon, 2, [0.3 + at], [0.8, 0.8])
    made("itransformer", 96, 3, [9.0], [0.8, 0.8])
    summary = measured.read(measured.write(tmp_path, "itransformer", "ETTh1"))
    (average,) = summary["averages"]
    assert average["seeds"] == [1, 2] and average["horizons"] == [96, 192, 336, 720]
    assert average["published"] == {"mse": 0.454, "mae": 0.447}
    assert average["measured"]["mse"]["mean"] == pytest.approx(1.7)
    assert average["measured"]["mse"]["std"] == pytest.approx(statistics.stdev([1.6, 1.8]))
    assert average["ratio"]["mae"] == pytest.approx(3.4 / 0.447)
    assert [cell["measured"]["mse"]["count"] for cell in summary["cells"]] == [3, 2, 2, 2]


def test_coverage_is_judged_step_by_step(made: Callable[..., None], tmp_path: Path) -> None:
    made("itransformer", 96, 1, [0.4], [0.75, 0.85, 0.80, 0.80])
    (cell,) = measured.read(measured.write(tmp_path, "itransformer", "ETTh1"))["cells"]
    scores = cell["measured"]
    assert scores["coverage_80"]["mean"] == pytest.approx(80) and scores["coverage_error_80"]["mean"] == pytest.approx(
        2.5
    )
    assert scores["coverage_error_95"]["mean"] == pytest.approx(15) and scores["mse"]["std"] is None
    assert (scores["crps"]["mean"], scores["naive_crps"]["mean"]) == (1.0, 2.0)
    assert "mse_dropped" not in scores


def test_where_code_dropped_windows_the_score_is_also_given_its_way(made: Callable[..., None], tmp_path: Path) -> None:
    made("autoformer", 96, 2021, [1.0] * 64 + [5.0] * 6, [0.8])
    (cell,) = measured.read(measured.write(tmp_path, "autoformer", "ETTh1"))["cells"]
    assert cell["measured"]["mse"]["mean"] == pytest.approx((64 + 30) / 70)
    assert cell["measured"]["mse_dropped"]["mean"] == 1.0 and cell["measured"]["mae_dropped"]["mean"] == 2.0
    assert cell["published"]["origin"] == "re-run" and cell["windows"] == 70


def test_the_last_incomplete_batch() -> None:
    assert measured.without_incomplete_batch([1.0, 2.0, 3.0, 10.0], 3) == 2.0
    assert measured.without_incomplete_batch([1.0, 3.0], 2) == 2.0
    # a loader that drops its only batch scores nothing at all; then there is only our way
    assert measured.without_incomplete_batch([1.0, 3.0], 32) == 2.0
