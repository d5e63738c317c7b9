"""The protocol of the published tables: window counts, borders, scaling on training rows, and what is refused early."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from datasets.errors import ForetideError, ForetideWarning
from datasets.options import build
from forecasting import models
from forecasting.config import RunConfig
from forecasting.engine import predict
from forecasting.experiment import build_model
from forecasting.forecaster import Supports
from forecasting.protocol import Prepared, check_model, prepare


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch, home: Path) -> Prepared:
    """ETTh1 as it comes along, at 96 rows for 96."""
    monkeypatch.delenv("FORETIDE_DATA", raising=False)
    return prepare(build(RunConfig, {"data": "ETTh1"}, "test"))


def test_window_counts_of_etth1_are_the_published_ones(sample: Prepared) -> None:
    counts = tuple(len(sample.windows(part)) for part in ("train", "validation", "test"))
    assert counts == (8449, 2785, 2785)
    assert len(sample.windows("everything")) == 17420 - 96 - 96 + 1
    border = sample.borders[0]
    assert (border.train, border.validation, border.test) == ((0, 8640), (8640, 11520), (11520, 14400))
    assert sample.season == 24 and sample.panel.value.shape == (17420, 7)
    assert sample.panel.calendar_names == ("hour", "weekday", "day", "yearday")


def test_scaled_training_rows_of_etth1_have_mean_zero_and_deviation_one(sample: Prepared) -> None:
    train = sample.scaled.value[:8640].double()
    torch.testing.assert_close(train.mean(0), torch.zeros(7, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(train.std(0, correction=0), torch.ones(7, dtype=torch.float64), atol=1e-6, rtol=0)
    back = sample.scaler.inverse(sample.scaled.value[None].double(), torch.tensor([0]))[0]
    torch.testing.assert_close(back, sample.panel.value, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("row", "moves"), [(0, True), (502, True), (503, False), (575, False), (576, False), (719, False)]
)
def test_scaler_statistics_move_with_training_rows_only(
    config: Callable[..., Any],
    daily: Callable[..., np.ndarray],
    write_csv: Callable[..., Path],
    tmp_path: Path,
    row: int,
    moves: bool,
) -> None:
    values = daily()
    changed = values.copy()
    changed[row] += 100.0
    one, other = (
        prepare(config(data=str(write_csv(tmp_path / f"{name}.csv", table)))).scaler
        for name, table in (("one", values), ("other", changed))
    )
    assert torch.equal(one.location, other.location) is not moves
    assert torch.equal(one.scale, other.scale) is not moves


def test_no_window_of_any_part_is_dropped(config: Callable[..., Any]) -> None:
    prepared = prepare(config())
    seen = {}
    for part in ("train", "validation", "test"):
        windows = prepared.windows(part)
        batch = windows.batch(torch.arange(len(windows)))
        first, end = getattr(prepared.borders[0], part)
        seen[part] = batch.origin.tolist()
        assert seen[part] == list(range(max(first, 36), end - 12 + 1))
        predicted = [p.batch.origin for p in predict(build_model(config(), prepared), windows, batch_size=50)]
        assert torch.cat(predicted).tolist() == seen[part]
    assert seen["train"][-1] + 12 <= seen["validation"][0] and seen["validation"][-1] + 12 <= seen["test"][0]


def test_a_forecast_does_not_depend_on_its_batch_mates(config: Callable[..., Any]) -> None:
    prepared = prepare(config())
    model, windows = build_model(config(), prepared).eval(), prepared.windows("test")
    together = torch.cat([p.point for p in predict(model, windows, batch_size=40)])
    alone = torch.cat([p.point for p in predict(model, windows, batch_size=1)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    order = torch.randperm(len(windows))
    shuffled = model.outputs(windows.batch(order)).detach()[..., 0]
    torch.testing.assert_close(shuffled, together[order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("split", "test"),
    [
        ({"kind": "auto"}, (576, 720)),
        ({"kind": "ratio", "train": 0.5, "validation": 0.25, "test": 0.25}, (540, 720)),
        ({"kind": "dates", "validation_from": "2024-01-16", "test_from": "2024-01-21"}, (480, 720)),
        ({"kind": "last", "windows": 3}, (684, 720)),
    ],
)
def test_kinds_of_splits(config: Callable[..., Any], split: dict[str, Any], test: tuple[int, int]) -> None:
    assert prepare(config(split=split)).borders[0].test == test


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": {"kind": "published"}}, "has no published borders; use ratio, dates or last"),
        (
            {"split": {"kind": "dates", "validation_from": "2030-01-01", "test_from": "2031-01-01"}},
            "leave a part empty",
        ),
        ({"lookback": 700}, r"train part holds no window: lookback 700 \+ horizon 12 = 712 rows are needed"),
        ({"horizon": 80}, "the validation part holds no window"),
        ({"model": "transformer9"}, "--model: found 'transformer9'"),
        ({"model": "seasonal_naive", "lookback": 12, "architecture": {}}, "expected at least the season of 24 rows"),
        ({"architecture": {"depth": 3}}, "unknown option 'depth'"),
        (
            {"model": "drift", "architecture": {}, "head": {"kind": "quantile"}},
            "found head.kind quantile, expected point",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_training(
    config: Callable[..., Any], changes: dict[str, Any], words: str
) -> None:
    chosen = config(**changes)

    def attempt() -> None:
        check_model(chosen, prepare(chosen))

    with pytest.raises(ForetideError, match=words) as caught:
        attempt()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"lookback": 0},
        {"horizon": 0},
        {"season": 0},
        {"training": {"batch_size": 0}},
        {"training": {"learning_rate": 2.0}},
        {"training": {"variate_fraction": 0.0}},
        {"training": {"gradient_clip": -1}},
        {"training": {"max_epochs": 0}},
        {"split": {"kind": "dates"}},
        {"intervals": {"method": "head"}},
        {"intervals": {"trajectories": 0}},
        {"colour": 1},
        {"training": {"precision": "8-bit"}},
        {"head": {"loss": "hinge"}},
        {"model": {"class_path": "os.system"}},
    ],
)
def test_values_out_of_range_are_refused_at_once(config: Callable[..., Any], changes: dict[str, Any]) -> None:
    with pytest.raises(ForetideError) as caught:
        config(**changes)
    assert "\n" not in str(caught.value)


@pytest.fixture
def with_covariates(daily: Callable[..., np.ndarray], write_csv: Callable[..., Path], tmp_path: Path) -> Path:
    hours = np.arange(720.0)
    columns = {"wind": np.sin(hours), "price": np.cos(hours), "area": np.full(720, 3.0)}
    return write_csv(tmp_path / "covariates.csv", daily(), **columns)


def test_covariates_that_a_model_does_not_use_are_named(config: Callable[..., Any], with_covariates: Path) -> None:
    reader = {"past": ["wind"], "future": ["price"], "static": ["area"]}
    with pytest.warns(ForetideWarning) as caught:
        made = prepare(config(model="dlinear", architecture={}, data=str(with_covariates), reader=reader))
    assert [str(w.message) for w in caught] == [
        f"dlinear does not use {kind} covariates: {name} are ignored"
        for kind, name in (("past", "wind"), ("future", "price"), ("static", "area"))
    ]
    task = made.task(models.find("dlinear").supports)
    assert (task.variates, task.past, task.future, task.static, task.calendar) == (3, 0, 0, 0, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = prepare(config(data=str(with_covariates), reader=reader))
    task = made.task(models.find("itransformer").supports)
    assert (task.variates, task.past, task.future, task.static, task.calendar) == (3, 1, 1, 1, 4)
    assert prepare(config(calendar=False)).task(models.find("itransformer").supports).calendar == 0


def test_missing_values_are_refused_where_a_model_cannot_take_them(
    config: Callable[..., Any],
    tmp_path: Path,
    daily: Callable[..., np.ndarray],
    write_csv: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = daily()
    values[40, 1] = np.nan
    chosen = config(data=str(write_csv(tmp_path / "hole.csv", values)), quality={"policy": "mask"})
    assert not prepare(chosen).panel.complete
    monkeypatch.setattr(models.find("itransformer"), "supports", replace(Supports(), missing=False))
    with pytest.raises(ForetideError, match="has missing values, which itransformer cannot take"):
        prepare(chosen)


def test_a_panel_of_short_series_keeps_those_that_have_a_season(config: Callable[..., Any], tmp_path: Path) -> None:
    frames = [
        pl.DataFrame(
            {
                "unique_id": f"s{n}",
                "ds": pl.datetime_range(
                    pl.datetime(2020, 1, 1), pl.datetime(2020, 1, 1) + pl.duration(days=n - 1), "1d", eager=True
                ),
                "y": np.arange(n) % 7 + 10.0 * n,
            }
        )
        for n in (20, 25, 60)
    ]
    pl.concat(frames).write_csv(tmp_path / "long.csv")
    reader = {"id": "unique_id", "time": "ds"}
    made = prepare(config(data=str(tmp_path / "long.csv"), reader=reader, lookback=30, horizon=7))
    assert made.season == 7 and made.min_history == 7 and made.panel.ids == ("s20", "s25", "s60")
    windows = made.windows("test")
    batch = windows.batch(torch.arange(len(windows)))
    assert batch.series.tolist() == [0, 1, 2] and batch.origin.tolist() == [13, 18, 53]
    assert batch.past_mask.sum((1, 2)).tolist() == [13, 18, 30]
    # training rows end two horizons before the end; the shortest series has none that a season precedes
    assert made.windows("train").batch(torch.arange(len(made.windows("train")))).series.unique().tolist() == [2]


def test_each_series_of_a_panel_is_scaled_by_its_own_training_rows(config: Callable[..., Any], tmp_path: Path) -> None:
    frames = [
        pl.DataFrame(
            {
                "unique_id": f"s{n}",
                "ds": pl.datetime_range(
                    pl.datetime(2020, 1, 1), pl.datetime(2020, 1, 1) + pl.duration(days=59), "1d", eager=True
                ),
                "y": 10.0**n * (1 + np.random.default_rng(n).random(60)),
            }
        )
        for n in range(3)
    ]
    pl.concat(frames).write_csv(tmp_path / "long.csv")
    reader = {"id": "unique_id", "time": "ds"}
    made = prepare(config(data=str(tmp_path / "long.csv"), reader=reader, lookback=14, horizon=7))
    for series in range(3):
        y = frames[series]["y"].to_numpy()[:46]
        assert float(made.scaler.location[series, 0]) == pytest.approx(y.mean())
        assert float(made.scaler.scale[series, 0]) == pytest.approx(y.std())
