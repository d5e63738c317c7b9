"""Forecasts from a stored model: equal in a fresh process, in original units, and only for what fits."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import xarray as xr

from datasets import schema, sources
from datasets.errors import ForetideError, ForetideWarning
from datasets.schema import LongSeries
from forecasting import artifact
from forecasting.conformal import LEVELS
from forecasting.experiment import Outcome, run
from forecasting.predictor import Predictor, naive_forecast

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def series(csv: Path) -> xr.Dataset:
    found = sources.load(csv).series
    assert isinstance(found, xr.Dataset)
    return found


@pytest.fixture
def predictor(outcome: Outcome) -> Predictor:
    return Predictor.load(outcome.folder)


def test_a_fresh_process_forecasts_the_same(
    outcome: Outcome, predictor: Predictor, series: xr.Dataset, csv: Path, python: Make, tmp_path: Path
) -> None:
    code = (
        "import sys\nfrom datasets import sources\nfrom forecasting.predictor import Predictor\n"
        "folder, data, target = sys.argv[1:]\n"
        "Predictor.load(folder).forecast(sources.load(data).series, samples=5, seed=3).to_netcdf(target)\n"
    )
    process = python("-c", code, outcome.folder, csv, tmp_path / "there.nc")
    text = process.communicate()[0]
    assert process.returncode == 0, text
    here = predictor.forecast(series, samples=5, seed=3)
    with xr.open_dataset(tmp_path / "there.nc") as there:
        for name in ("forecast", "quantile", "sample"):
            np.testing.assert_array_equal(there[name].values, here[name].values)
        assert there["time"].values.tolist() == here["time"].values.tolist() and there.attrs == here.attrs
    # the model in memory right after the run is the stored one
    other = Predictor(outcome.artifact).forecast(outcome.prepared.series, samples=5, seed=3)
    np.testing.assert_array_equal(other["quantile"], here["quantile"])


def test_a_forecast_follows_the_last_row_in_original_units(
    predictor: Predictor, series: xr.Dataset, daily: Make
) -> None:
    found = predictor.forecast(series)
    assert found["forecast"].dims == ("time", "variate") and found["quantile"].dims == ("time", "variate", "level")
    assert found["variate"].values.tolist() == ["a", "b", "c"] and found["level"].values.tolist() == list(LEVELS)
    expected = np.datetime64("2024-01-31T00", "ns") + np.arange(12) * np.timedelta64(1, "h")
    assert found["time"].values.tolist() == expected.tolist()
    assert np.abs(found["forecast"].values - daily(732)[720:]).mean() < 1.2
    assert (found["quantile"].diff("level") >= 0).all()
    assert (found["quantile"].isel(level=0) < found["forecast"]).all()
    assert (found["forecast"] < found["quantile"].isel(level=-1)).all()
    assert found.attrs["origin"] == "2024-01-30T23:00:00" and found.attrs["frequency"] == "h"
    assert found.attrs["model"] == "itransformer" and found.attrs["run_id"] == predictor.run_id


def test_a_shorter_horizon_is_the_start_of_the_longer_one(predictor: Predictor, series: xr.Dataset) -> None:
    whole = predictor.forecast(series, samples=4)
    for steps in (1, 5, 12):
        xr.testing.assert_equal(predictor.forecast(series, steps, samples=4), whole.isel(time=slice(0, steps)))
    for steps in (0, 13, -1):
        with pytest.raises(ForetideError, match=f"--horizon: found {steps}, expected 1 to 12"):
            predictor.forecast(series, steps)


def test_sample_paths_hang_together(predictor: Predictor, series: xr.Dataset) -> None:
    found = predictor.forecast(series, samples=400, seed=1)
    assert found["sample"].dims == ("path", "time", "variate") and found.sizes["path"] == 400
    again = predictor.forecast(series, samples=400, seed=1)
    xr.testing.assert_equal(found["sample"], again["sample"])
    assert not found["sample"].equals(predictor.forecast(series, samples=400, seed=2)["sample"])
    # each path is the forecast plus one whole error path of validation
    errors = (found["sample"] - found["forecast"]).values[:20]
    known = predictor.calibration.trajectories * predictor.scaler.scale[0]
    distances = np.abs(errors[:, None] - known.numpy()[None]).max((2, 3)).min(1)
    assert (distances < 1e-3).all()


def test_only_the_rows_that_matter_matter(predictor: Predictor, series: xr.Dataset, outcome: Outcome) -> None:
    whole = predictor.forecast(series)
    tail = series.isel(time=slice(-36, None))
    xr.testing.assert_equal(predictor.forecast(tail)["forecast"], whole["forecast"])
    changed = series.copy(deep=True)
    changed["value"][-37] += 100.0
    xr.testing.assert_equal(predictor.forecast(changed)["forecast"], whole["forecast"])
    changed["value"][-36] += 100.0
    assert not predictor.forecast(changed)["forecast"].equals(whole["forecast"])
    with pytest.raises(ForetideError, match="fewer than 36 rows before the forecast"):
        predictor.forecast(series.isel(time=slice(-35, None)))


def test_rows_without_any_value_at_the_end_are_the_future(predictor: Predictor, series: xr.Dataset) -> None:
    known = series.isel(time=slice(0, 700))
    padded = series.isel(time=slice(0, 705)).copy(deep=True)
    padded["value"][700:] = np.nan
    one, other = predictor.forecast(known), predictor.forecast(padded)
    xr.testing.assert_allclose(one["forecast"], other["forecast"])
    assert one["time"].values[0] == series["time"].values[700]


def test_missing_values_are_not_read(predictor: Predictor, series: xr.Dataset) -> None:
    holes = series.copy(deep=True)
    holes["value"][700:710, 1] = np.nan
    found = predictor.forecast(holes)
    assert np.isfinite(found["forecast"]).all() and not found["forecast"].equals(predictor.forecast(series)["forecast"])


def test_errors_since_validation_move_adaptive_intervals(outcome: Outcome, series: xr.Dataset) -> None:
    wild = series.copy(deep=True)
    wild["value"][600:680] += 6 * np.random.default_rng(3).standard_normal((80, 3))
    # one predictor, as a service holds it
    predictor = Predictor(outcome.artifact)
    calm_width, wild_width = (
        float((f["quantile"].isel(level=-1) - f["quantile"].isel(level=0)).mean())
        for f in (predictor.forecast(series), predictor.forecast(wild))
    )
    assert wild_width > 1.02 * calm_width


def test_adaptive_intervals_are_those_of_the_evaluation(outcome: Outcome, series: xr.Dataset) -> None:
    """The interval for the origin in row r of the test part is the same, whether replayed or met in a backtest."""
    from forecasting.backtest import rolling_backtest

    _, frame = rolling_backtest(Predictor(outcome.artifact), series, "tiny", baseline=False)
    for row in (576, 577, 640, 708):
        found = Predictor(outcome.artifact).forecast(series.isel(time=slice(0, row)))
        part = frame.filter(pl.col("cutoff") == series["time"].values[row - 1]).sort("step", "variate")
        low, high = (found["quantile"].sel(level=level).values.flatten() for level in (0.1, 0.9))
        np.testing.assert_allclose(part["forecast"], found["forecast"].values.flatten(), rtol=1e-4)
        np.testing.assert_allclose(part["lower_80"], low, rtol=1e-4)
        np.testing.assert_allclose(part["upper_80"], high, rtol=1e-4)


def test_columns_in_any_order_and_more_than_needed(predictor: Predictor, series: xr.Dataset) -> None:
    expected = predictor.forecast(series)
    shuffled = predictor.forecast(series.isel(variate=[2, 0, 1]))
    xr.testing.assert_equal(shuffled["forecast"], expected["forecast"])
    more = xr.concat([series, series.isel(variate=[0]).assign_coords(variate=["extra"])], "variate", data_vars="all")
    with pytest.warns(ForetideWarning, match="extra was not part of the training and is left out"):
        found = predictor.forecast(more.assign_attrs(series.attrs))
    xr.testing.assert_equal(found["forecast"], expected["forecast"])


def test_what_does_not_fit_the_model_is_one_clear_line(predictor: Predictor, series: xr.Dataset) -> None:
    hours, values = series["time"].values, series["value"].values
    daily_rows = schema.series(
        values, hours[0] + np.arange(720) * np.timedelta64(1, "D"), ["a", "b", "c"], source="x.csv"
    )
    half_hours = schema.series(values, hours[0] + np.arange(720) * np.timedelta64(30, "m"), ["a", "b", "c"])
    frame = pl.DataFrame({"unique_id": ["a"] * 720, "ds": hours.astype("datetime64[us]"), "y": values[:, 0]})
    for bad, words in (
        (series.drop_sel(variate="b"), "the variate 'b' is missing; expected a, b, c, found a, c"),
        (daily_rows, "x.csv: found frequency D, expected h"),
        (half_hours, "found frequency 30min"),
        (LongSeries(frame, "h"), "found many series, the model was trained on one table"),
    ):
        with pytest.raises(ForetideError, match=words) as caught:
            predictor.forecast(bad)
        assert "\n" not in str(caught.value)


def test_units_survive_and_must_agree(config: Make, csv: Path, tmp_path: Path, series: xr.Dataset) -> None:
    made = run(
        config(reader={"units": {"a": "kW", "b": "°C"}}, baselines=[], training={"max_epochs": 1}),
        tmp_path / "run",
        visible=False,
    )
    assert made is not None
    predictor = Predictor(made.artifact)
    assert predictor.forecast(series)["unit"].values.tolist() == ["kW", "°C", ""]
    other = series.assign_coords(unit=("variate", np.array(["kW", "K", ""], dtype=object)))
    with pytest.raises(ForetideError, match="'b' is in 'K', the model was trained on '°C'"):
        predictor.forecast(other)


def test_covariates_must_be_there_and_known_ahead(config: Make, tmp_path: Path, daily: Make, write_csv: Make) -> None:
    hours = np.arange(732.0)
    values = np.concatenate([daily(), np.full((12, 3), np.nan)])
    data = write_csv(tmp_path / "ahead.csv", values, wind=np.sin(hours), price=np.cos(hours / 5))
    reader = {"past": ["wind"], "future": ["price"]}
    chosen = config(data=str(data), reader=reader, quality={"policy": "mask"}, baselines=[], training={"max_epochs": 1})
    made = run(chosen, tmp_path / "run", visible=False)
    assert made is not None
    predictor, series = Predictor(made.artifact), made.prepared.series
    assert isinstance(series, xr.Dataset)
    found = predictor.forecast(series)
    assert found["time"].values[0] == np.datetime64("2024-01-31T00")
    dearer = series.copy(deep=True)
    dearer["future"][725:] += 5.0
    assert not predictor.forecast(dearer)["forecast"].equals(found["forecast"])
    with pytest.raises(ForetideError, match="the future covariate 'price' has no value 1 steps after the last"):
        predictor.forecast(series.isel(time=slice(0, 720)))
    with pytest.raises(ForetideError, match="the past covariate 'wind' is missing"):
        predictor.forecast(series.drop_vars("past"))


def test_two_tables_without_a_checksum_are_two_tables(outcome: Outcome, series: xr.Dataset) -> None:
    bare = series.assign_attrs(checksum="")
    wild = bare.copy(deep=True)
    wild["value"][600:680] += 6 * np.random.default_rng(3).standard_normal((80, 3))
    used, fresh = Predictor(outcome.artifact), Predictor(outcome.artifact)
    used.forecast(bare)
    xr.testing.assert_equal(used.forecast(wild), fresh.forecast(wild))


def test_a_table_with_one_column_named_y_is_still_a_table(config: Make, tmp_path: Path, daily: Make) -> None:
    stamps = np.datetime64("2024-01-01") + np.arange(720) * np.timedelta64(1, "h")
    frame = pl.DataFrame({"date": stamps.astype("datetime64[us]"), "y": daily()[:, 0]})
    frame.write_csv(tmp_path / "one.csv")
    made = run(
        config(data=str(tmp_path / "one.csv"), baselines=[], training={"max_epochs": 1}),
        tmp_path / "run",
        visible=False,
    )
    assert made is not None
    found = Predictor(made.artifact).forecast(made.prepared.series)
    assert found["forecast"].dims == ("time", "variate") and found["variate"].values.tolist() == ["y"]


def test_many_series_known_and_new(config: Make, tmp_path: Path) -> None:
    frames = []
    for number, length in enumerate((120, 60, 90)):
        days = np.datetime64("2023-01-01") + np.arange(length) * np.timedelta64(1, "D")
        y = 10.0**number * (5 + np.sin(2 * np.pi * np.arange(length) / 7))
        frames.append(pl.DataFrame({"unique_id": f"s{number}", "ds": days.astype("datetime64[us]"), "y": y}))
    pl.concat(frames[:2]).write_csv(tmp_path / "long.csv")
    made = run(
        config(
            data=str(tmp_path / "long.csv"),
            reader={"id": "unique_id", "time": "ds"},
            horizon=7,
            baselines=[],
            training={"max_epochs": 20, "schedule": "constant"},
        ),
        tmp_path / "run",
        visible=False,
    )
    assert made is not None
    new = LongSeries(pl.concat(frames[::-1]).select("unique_id", pl.col("ds").cast(pl.Datetime("us")), "y"), "D")
    found = Predictor(made.artifact).forecast(new, samples=3)
    assert found["forecast"].dims == ("unique_id", "step", "variate")
    assert found["unique_id"].values.tolist() == ["s2", "s1", "s0"] and found["step"].values.tolist() == list(
        range(1, 8)
    )
    assert found["sample"].dims == ("unique_id", "path", "step", "variate")
    for number, name in ((0, "s0"), (1, "s1"), (2, "s2")):
        mine, length = found.sel(unique_id=name), len(frames[number])
        assert mine["ds"].values[0] == np.datetime64("2023-01-01") + np.timedelta64(length, "D")
        exact = 10.0**number * (5 + np.sin(2 * np.pi * np.arange(length, length + 7) / 7))
        assert np.abs(mine["forecast"].values[:, 0] / exact - 1).max() < 0.15


def test_seasonal_naive_beside_a_forecast(series: xr.Dataset) -> None:
    found = naive_forecast(series, 36, 30, 24)
    values = series["value"].values
    np.testing.assert_allclose(found["forecast"].values, np.concatenate([values[-24:], values[-24:-18]]))
    assert found["time"].values[0] == np.datetime64("2024-01-31T00") and found.attrs["model"] == "seasonal_naive"
    short = naive_forecast(series.isel(time=slice(-30, None)), 12, 4, 24)
    np.testing.assert_allclose(short["forecast"].values, values[-24:-20])


def test_weights_of_another_model_are_refused(outcome: Outcome) -> None:
    stored = artifact.load(outcome.folder)
    stored.weights["model.project.weight"] = torch.zeros(3, 3)
    with pytest.raises(ForetideError, match=r"project.weight: found \(3, 3\), expected \(12, 16\) for itransformer"):
        Predictor(stored)
    del stored.weights["model.project.weight"]
    with pytest.raises(ForetideError, match=r"project.weight: found nothing"):
        Predictor(stored)


def test_no_warning_without_a_reason(predictor: Predictor, series: xr.Dataset) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor.forecast(series)
