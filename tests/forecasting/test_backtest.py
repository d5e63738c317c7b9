"""Rolling origins: how many, what the frame holds, strides, refits, and the honest warnings."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import xarray as xr

from datasets.errors import ForetideError, ForetideWarning
from forecasting import backtest, experiment
from forecasting.artifact import Artifact
from forecasting.backtest import difference_rows, evaluate_stored, rolling_backtest
from forecasting.experiment import Outcome, run
from forecasting.predictor import Predictor

Make = Callable[..., Any]
HOUR = np.timedelta64(1, "h")


@pytest.fixture(scope="module")
def series(outcome: Outcome) -> xr.Dataset:
    found = outcome.prepared.series
    assert isinstance(found, xr.Dataset)
    return found


@pytest.fixture
def predictor(outcome: Outcome) -> Predictor:
    return Predictor.load(outcome.folder)


def cutoffs(frame: pl.DataFrame) -> np.ndarray:
    return frame["cutoff"].unique().sort().to_numpy().astype("datetime64[ns]")


def test_every_test_window_gives_the_scores_of_the_run(
    predictor: Predictor, series: xr.Dataset, outcome: Outcome
) -> None:
    metrics, frame = rolling_backtest(predictor, series, "tiny")
    assert metrics["windows"] == {"test": 133} and len(frame) == 133 * 12 * 3
    stored = outcome.artifact.metrics["scores"]
    assert set(metrics["scores"]) == {"itransformer", "seasonal_naive"}
    for name, scores in metrics["scores"].items():
        assert scores == pytest.approx(stored[name], rel=1e-5)
    assert evaluate_stored(predictor, series, "tiny")["scores"]["itransformer"] == pytest.approx(stored["itransformer"])


def test_the_frame_holds_the_series_at_its_time(predictor: Predictor, series: xr.Dataset) -> None:
    _, frame = rolling_backtest(predictor, series, "tiny", stride=5)
    assert frame.columns == [
        "unique_id",
        "variate",
        "cutoff",
        "ds",
        "step",
        "y",
        "forecast",
        "lower_95",
        "upper_95",
        "lower_80",
        "upper_80",
        "lower_50",
        "upper_50",
    ]
    stamps, ahead = frame["ds"].to_numpy().astype("datetime64[ns]"), frame["step"].to_numpy()
    np.testing.assert_array_equal(stamps - frame["cutoff"].to_numpy().astype("datetime64[ns]"), ahead * HOUR)
    rows = ((stamps - series["time"].values[0]) / HOUR).astype(int)
    columns = frame["variate"].replace_strict({"a": 0, "b": 1, "c": 2}, return_dtype=pl.Int64).to_numpy()
    np.testing.assert_allclose(frame["y"], series["value"].values[rows, columns], rtol=1e-5)
    assert set(frame["step"].unique()) == set(range(1, 13)) and frame["unique_id"].unique().to_list() == ["tiny"]
    ordered = ["lower_95", "lower_80", "lower_50", "upper_50", "upper_80", "upper_95"]
    assert (np.diff(frame.select(ordered).to_numpy(), axis=1) >= 0).all()
    assert not frame.select("cutoff", "step", "variate").is_duplicated().any()


@pytest.mark.parametrize(("stride", "origins"), [(1, None), (1, 7), (12, None), (24, 3), (100, None), (500, None)])
def test_origins_are_counted_back_from_the_last_possible_one(
    predictor: Predictor, series: xr.Dataset, stride: int, origins: int | None
) -> None:
    metrics, frame = rolling_backtest(predictor, series, "tiny", stride=stride, origins=origins, baseline=False)
    possible = np.arange(720 - 12, 576 - 1, -stride)[:origins][::-1]
    found = ((cutoffs(frame) - series["time"].values[0]) / HOUR).astype(int) + 1
    assert found.tolist() == possible.tolist()
    assert metrics["windows"] == {"test": len(possible)} and len(frame) == len(possible) * 36
    assert set(metrics["scores"]) == {"itransformer"}


def test_scores_are_those_of_the_frame(predictor: Predictor, series: xr.Dataset) -> None:
    metrics, frame = rolling_backtest(predictor, series, "tiny", stride=3)
    error = (frame["y"] - frame["forecast"]).abs()
    scores = metrics["scores"]["itransformer"]
    assert scores["mae_original"] == pytest.approx(error.mean(), rel=1e-4)
    inside = (frame["lower_80"] <= frame["y"]) & (frame["y"] <= frame["upper_80"])
    assert scores["coverage_80"] == pytest.approx(inside.mean(), abs=1e-3)
    steps = frame.with_columns(error=error).group_by("step").agg(pl.col("error").mean()).sort("step")["error"]
    np.testing.assert_allclose(metrics["by_step"]["itransformer"]["mae_original"], steps, rtol=1e-4)


def test_without_intervals_the_forecasts_are_the_same(predictor: Predictor, series: xr.Dataset) -> None:
    _, full = rolling_backtest(predictor, series, "tiny", stride=24)
    metrics, bare = rolling_backtest(predictor, series, "tiny", stride=24, intervals=False)
    assert bare.equals(full.select(bare.columns)) and bare.columns == full.columns[:7]
    assert "crps" not in metrics["scores"]["itransformer"]


def test_a_backtest_can_be_repeated(predictor: Predictor, series: xr.Dataset) -> None:
    first, second = (rolling_backtest(predictor, series, "tiny", stride=7)[1] for _ in range(2))
    assert first.equals(second)


def test_rows_before_the_origin_alone_make_a_forecast(predictor: Predictor, series: xr.Dataset) -> None:
    changed = series.copy(deep=True)
    changed["value"][650:] += 30.0
    # still under the split of the training: rows are the same, only later values differ
    before, after = (rolling_backtest(predictor, s, "tiny", baseline=False)[1] for s in (series, changed))
    early = pl.col("cutoff") < series["time"].values[650]
    names = ["forecast", "lower_95", "upper_95", "lower_50", "upper_50"]
    assert before.filter(early).select(names).equals(after.filter(early).select(names))
    assert not before.filter(~early).select(names).equals(after.filter(~early).select(names))


def test_refits_train_on_all_rows_before_each_share(
    config: Make, predictor: Predictor, series: xr.Dataset, monkeypatch: pytest.MonkeyPatch, outcome: Outcome
) -> None:
    seen: list[tuple[Any, Any]] = []

    def noted(chosen: Any, fold: Any, work: Path, visible: bool) -> Any:
        made = experiment.train_model(chosen, fold, work, visible=False)
        if chosen.model == "itransformer":
            seen.append((fold.borders[0], fold.scaler))
        return made

    monkeypatch.setattr(backtest, "train_model", noted)
    metrics, frame = rolling_backtest(predictor, series, "tiny", stride=6, refits=3)
    origins = np.arange(708, 575, -6)[::-1]
    shares = np.array_split(origins, np.linspace(0, len(origins), 4).astype(int)[1:-1])
    assert [border.validation[1] for border, _ in seen] == [share[0] for share in shares]
    for border, scaler in seen:
        assert border.train == (0, border.validation[0])
        assert border.validation[1] - border.validation[0] == 576 - 503
        # one scale for all, that of the training rows
        np.testing.assert_allclose(scaler.location, outcome.artifact.scaling["location"])
    assert metrics["windows"] == {"test": len(origins)} and len(frame) == len(origins) * 36
    assert ((cutoffs(frame) - series["time"].values[0]) / HOUR).astype(int).tolist() == (origins - 1).tolist()
    scores = metrics["scores"]
    error = frame.with_columns(e=(pl.col("y") - pl.col("forecast")).abs())["e"].mean()
    assert scores["itransformer"]["mae_original"] == pytest.approx(error, rel=1e-4)
    assert scores["itransformer"]["skill_mae"] > 0
    plain, _ = rolling_backtest(predictor, series, "tiny", stride=6)
    assert scores["seasonal_naive"]["mse"] == pytest.approx(plain["scores"]["seasonal_naive"]["mse"], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stride": 0}, "found stride 0"),
        ({"origins": 0}, "origins 0"),
        ({"refits": -1}, "refits -1"),
        ({"stride": 100, "refits": 3}, "found 3, expected at most the 2 origins"),
    ],
)
def test_options_that_make_no_backtest(
    predictor: Predictor, series: xr.Dataset, options: dict[str, int], words: str
) -> None:
    with pytest.raises(ForetideError, match=words):
        rolling_backtest(predictor, series, "tiny", **options)  # type: ignore[arg-type]


def test_scores_of_a_model_that_has_seen_the_test_rows_come_with_a_warning(
    config: Make, tmp_path: Path, series: xr.Dataset
) -> None:
    made = run(config(training={"refit": True, "max_epochs": 1}, baselines=[]), tmp_path / "run", visible=False)
    assert made is not None
    predictor = Predictor(made.artifact)
    with pytest.warns(ForetideWarning, match="trained anew on all rows, the test part included"):
        evaluate_stored(predictor, series, "tiny")
    metrics, _ = rolling_backtest(predictor, series, "tiny", stride=60, refits=1)
    assert metrics["windows"] == {"test": 3}


def test_many_series(config: Make, tmp_path: Path) -> None:
    frames = []
    for number, length in enumerate((120, 60, 90)):
        days = np.datetime64("2023-01-01") + np.arange(length) * np.timedelta64(1, "D")
        y = 10.0 * (number + 1) + np.random.default_rng(number).standard_normal(length)
        frames.append(pl.DataFrame({"unique_id": f"s{number}", "ds": days.astype("datetime64[us]"), "y": y}))
    pl.concat(frames).write_csv(tmp_path / "long.csv")
    chosen = config(
        data=str(tmp_path / "long.csv"),
        reader={"id": "unique_id", "time": "ds"},
        horizon=7,
        baselines=[],
        split={"kind": "last", "windows": 3},
        training={"max_epochs": 1},
    )
    made = run(chosen, tmp_path / "run", visible=False)
    assert made is not None
    predictor = Predictor(made.artifact)
    metrics, frame = rolling_backtest(predictor, made.prepared.series, "long", stride=7)
    assert metrics["windows"] == {"test": 9} and len(frame) == 9 * 7
    assert frame["unique_id"].unique(maintain_order=True).to_list() == ["s0", "s1", "s2"]
    for number, frame_in in enumerate(frames):
        mine = frame.filter(pl.col("unique_id") == f"s{number}").sort("ds")
        np.testing.assert_allclose(mine["y"], frame_in["y"][-21:], rtol=1e-5)
        assert mine["ds"][-1] == frame_in["ds"][-1]
    with pytest.raises(ForetideError, match="a panel of many series is scored without training anew"):
        rolling_backtest(predictor, made.prepared.series, "long", refits=2)


def test_differences_between_runs(outcome: Outcome, config: Make, tmp_path: Path) -> None:
    one: Artifact = outcome.artifact
    worse = {
        **one.weights,
        **{f"evaluation.itransformer.{m}": one.weights[f"evaluation.itransformer.{m}"] + 0.1 for m in ("mse", "mae")},
    }
    rows = difference_rows({"first": one, "same": one, "worse": replace(one, weights=worse)})
    assert [(row["model"], row["metric"], row["verdict"]) for row in rows] == [
        ("same", "mse", "no clear difference"),
        ("same", "mae", "no clear difference"),
        ("worse", "mse", "worse"),
        ("worse", "mae", "worse"),
    ]
    assert rows[2]["difference"] == pytest.approx(0.1, rel=1e-4)
    short = {**one.weights, "evaluation.itransformer.mse": one.weights["evaluation.itransformer.mse"][:50]}
    with pytest.raises(ForetideError, match="other: found 50 test windows, first has 133"):
        difference_rows({"first": one, "other": replace(one, weights=short)})
