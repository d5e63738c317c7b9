"""Scores against a plain loop over windows, and what must never move them."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from forecasting.conformal import LEVELS
from forecasting.engine import Prediction, predict
from forecasting.evaluate import Scores, evaluate, seasonal_scales, summary
from forecasting.experiment import Trained, build_model, train_model
from forecasting.intervals import LEVEL_TENSOR, AdaptiveIntervals, Calibration, FixedIntervals, HeadIntervals, calibrate
from forecasting.protocol import Prepared, prepare


@pytest.fixture(scope="module")
def prepared(
    config: Callable[..., Any], daily: Callable[..., np.ndarray], write_csv: Callable[..., Path], shared: Path
) -> Prepared:
    """Data with holes, in training as in test."""
    values = daily()
    values[np.random.default_rng(1).random(values.shape) < 0.05] = np.nan
    return prepare(config(data=str(write_csv(shared / "gaps.csv", values)), quality={"policy": "mask"}))


@pytest.fixture(scope="module")
def trained(config: Callable[..., Any], prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_model(config(), prepared, tmp_path_factory.mktemp("work"), visible=False)


def scored(
    trained: Trained, prepared: Prepared, method: str = "adaptive", predictions: Any = None, **options: Any
) -> Scores:
    found = predictions or predict(trained.model, prepared.windows("test"), **options)
    scales = seasonal_scales(prepared.panel, prepared.training_rows, prepared.season)
    return evaluate(found, prepared.scaler, trained.calibration.intervals(method), scales, prepared.panel.variates)


def close(one: Scores, other: Scores, tolerance: float = 1e-5) -> None:
    assert one.sums.keys() == other.sums.keys() and torch.equal(one.counts, other.counts)
    for name in one.sums:
        mean, theirs = (s.sums[name] / s.counts.clamp(min=1) for s in (one, other))
        torch.testing.assert_close(mean, theirs, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("method", ["adaptive", "conformal"])
@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_scores_do_not_depend_on_the_batch_size(trained: Trained, prepared: Prepared, size: int, method: str) -> None:
    close(scored(trained, prepared, method), scored(trained, prepared, method, batch_size=size))


def chosen_predictions(trained: Trained, prepared: Prepared, order: Tensor, size: int) -> Iterator[Prediction]:
    windows = prepared.windows("test")
    for indices in order.split(size):
        batch = windows.batch(indices)
        yield Prediction(batch, trained.model.eval().outputs(batch).detach()[..., 0], None)


def test_scores_do_not_depend_on_the_order(trained: Trained, prepared: Prepared) -> None:
    order = torch.randperm(len(prepared.windows("test")))
    found = scored(trained, prepared, "conformal", chosen_predictions(trained, prepared, order, 13))
    expected = scored(trained, prepared, "conformal")
    close(found, expected)
    np.testing.assert_allclose(found.origin_mse, expected.origin_mse[order], atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("world", [2, 3])
def test_scores_do_not_depend_on_the_number_of_devices(trained: Trained, prepared: Prepared, world: int) -> None:
    """Each of several processes scores its share; the sums together are those of one."""
    everything = torch.arange(len(prepared.windows("test")))
    shares = [
        scored(trained, prepared, "conformal", chosen_predictions(trained, prepared, everything[rank::world], 16))
        for rank in range(world)
    ]
    whole = scored(trained, prepared, "conformal")
    torch.testing.assert_close(torch.stack([s.counts for s in shares]).sum(0), whole.counts)
    for name, table in whole.sums.items():
        torch.testing.assert_close(torch.stack([s.sums[name] for s in shares]).sum(0), table, rtol=1e-5, atol=1e-5)


def by_hand(trained: Trained, prepared: Prepared) -> dict[str, np.ndarray]:
    """Every metric of every scored element ``(W, H, C)`` by a loop over windows; NaN where there is no target."""
    panel, border = prepared.panel, prepared.borders[0]
    values = np.where(panel.observed, panel.value, np.nan)
    train = values[: border.train[1]]
    mean, deviation = np.nanmean(train, 0), np.nanstd(train, 0)
    scale = np.nanmean(np.abs(train[24:] - train[:-24]), 0)
    fixed = trained.calibration.residuals.numpy()
    made: dict[str, list[np.ndarray]] = {}
    for origin in range(border.test[0], border.test[1] - prepared.horizon + 1):
        window = prepared.windows("test").batch(torch.tensor([origin - border.test[0]]))
        forecast = trained.model.outputs(window).detach().double().numpy()[0, :, :, 0]
        actual = values[origin : origin + prepared.horizon]
        point = forecast * deviation + mean
        quantiles = (forecast[..., None] + fixed) * deviation[:, None] + mean[:, None]
        error = actual - point
        row = {
            "mse": (error / deviation) ** 2,
            "mae": np.abs(error / deviation),
            "mae_original": np.abs(error),
            "mase": np.abs(error) / scale,
            "smape": 200 * np.abs(error) / (np.abs(actual) + np.abs(point)),
        }
        for percent, low, high in ((50, 0.25, 0.75), (80, 0.1, 0.9), (95, 0.025, 0.975)):
            lower, upper = quantiles[..., LEVELS.index(low)], quantiles[..., LEVELS.index(high)]
            row[f"coverage_{percent}"] = np.where(np.isnan(actual), np.nan, (lower <= actual) & (actual <= upper))
            row[f"width_{percent}"] = np.where(np.isnan(actual), np.nan, upper - lower)
        gap = actual[..., None] - quantiles
        pinball = np.maximum(np.array(LEVELS) * gap, (np.array(LEVELS) - 1) * gap)
        edges = np.concatenate([[0], (np.array(LEVELS)[1:] + np.array(LEVELS)[:-1]) / 2, [1]])
        row["crps"] = 2 * (pinball * np.diff(edges)).sum(-1)
        row["scaled_crps"] = row["crps"] / scale
        for name, value in row.items():
            made.setdefault(name, []).append(value)
    return {name: np.stack(rows) for name, rows in made.items()}


def test_scores_are_those_of_a_plain_loop(trained: Trained, prepared: Prepared) -> None:
    trained.model.eval()
    expected, found = by_hand(trained, prepared), scored(trained, prepared, "conformal")
    overall, steps, variates = found.overall(), found.by_step(), found.by_variate()
    assert set(overall) == set(expected) and np.isnan(expected["mse"]).any()
    for name, table in expected.items():
        assert overall[name] == pytest.approx(np.nanmean(table), rel=1e-4, abs=1e-4), name
        np.testing.assert_allclose(steps[name], np.nanmean(table, (0, 2)), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose([variates[name][v] for v in "abc"], np.nanmean(table, (0, 1)), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.origin_mse, np.nanmean(expected["mse"], (1, 2)), rtol=1e-4)
    np.testing.assert_allclose(found.origin_mae, np.nanmean(expected["mae"], (1, 2)), rtol=1e-4)
    assert found.counts.sum() == np.isfinite(expected["mse"]).sum()


def test_without_intervals_there_are_no_scores_of_them(trained: Trained, prepared: Prepared) -> None:
    scales = seasonal_scales(prepared.panel, prepared.training_rows, prepared.season)
    bare = evaluate(predict(trained.model, prepared.windows("test")), prepared.scaler, None, scales, ("a", "b", "c"))
    full = scored(trained, prepared)
    assert set(bare.sums) == {"mse", "mae", "mae_original", "mase", "smape"}
    assert all(torch.equal(bare.sums[name], full.sums[name]) for name in bare.sums)


def test_a_sink_gets_every_window_in_original_units(trained: Trained, prepared: Prepared) -> None:
    seen: list[tuple[Tensor, ...]] = []
    scales = seasonal_scales(prepared.panel, prepared.training_rows, prepared.season)
    evaluate(
        predict(trained.model, prepared.windows("test"), batch_size=20),
        prepared.scaler,
        trained.calibration.intervals("conformal"),
        scales,
        ("a", "b", "c"),
        lambda prediction, *tables: seen.append((prediction.batch.origin, *tables)),
    )
    origin, actual, point, quantiles = (torch.cat(parts) for parts in zip(*seen, strict=True))
    mask = prepared.windows("test").batch(torch.arange(len(origin))).future_mask
    assert mask is not None and point.shape == actual.shape == quantiles.shape[:-1]
    rows = origin[:, None] + torch.arange(prepared.horizon)
    torch.testing.assert_close(actual[mask].double(), prepared.panel.value[rows][mask], atol=1e-4, rtol=1e-4)
    assert (quantiles.diff(dim=-1) >= 0).all()


def stream(trained: Trained, prepared: Prepared, size: int, change_from: int | None = None) -> Tensor:
    """Widths ``(W, H, C, Q)`` of the adaptive intervals issued at each test origin, with later rows spoilt."""
    scaled = prepared.scaled
    if change_from is not None:
        scaled.value[change_from:] += 50.0
    try:
        intervals = trained.calibration.intervals("adaptive")
        found = list(predict(trained.model, prepared.windows("test"), batch_size=size))
        return torch.cat([intervals.quantiles(p) - p.point[..., None] for p in found])
    finally:
        if change_from is not None:
            scaled.value[change_from:] -= 50.0


@pytest.mark.parametrize("size", [1, 10, 500])
def test_no_error_is_used_before_its_target_is_known(trained: Trained, prepared: Prepared, size: int) -> None:
    first = prepared.borders[0].test[0]
    for row in (first + 1, first + 40, first + 90):
        before, after = stream(trained, prepared, size), stream(trained, prepared, size, row)
        # at the origin in row r, all rows before r are known
        known = row - first + 1
        torch.testing.assert_close(after[:known], before[:known], atol=1e-5, rtol=0)
        assert (after[known] - before[known]).abs().max() > 1e-4


def test_adaptive_intervals_widen_when_errors_grow(trained: Trained, prepared: Prepared) -> None:
    calm, windows = trained.calibration.intervals("adaptive"), prepared.windows("test")
    wild = trained.calibration.intervals("adaptive")
    widths = {}
    for name, intervals, factor in (("calm", calm, 0.0), ("wild", wild, 20.0)):
        for prediction in predict(trained.model, windows, batch_size=50):
            noise = factor * torch.randn(prediction.point.shape)
            quantiles = intervals.quantiles(Prediction(prediction.batch, prediction.point + noise, None))
        widths[name] = float((quantiles[-1, 0, :, -1] - quantiles[-1, 0, :, 0]).mean())
    assert isinstance(calm, AdaptiveIntervals) and widths["wild"] > 1.2 * widths["calm"]


def test_calibration_gives_each_method_its_intervals(trained: Trained, prepared: Prepared) -> None:
    made = trained.calibration
    assert isinstance(made.intervals("conformal"), FixedIntervals) and isinstance(made.intervals("head"), HeadIntervals)
    assert isinstance(made.intervals("adaptive", series=2), FixedIntervals)
    again = Calibration.from_tensors(made.tensors())
    assert all(torch.equal(a, b) for a, b in zip(made.tensors().values(), again.tensors().values(), strict=True))
    # an interval moved by one evaluation does not move the next
    first, second = scored(trained, prepared), scored(trained, prepared)
    assert all(torch.equal(first.sums[name], second.sums[name]) for name in first.sums)


def test_calibration_covers_validation(trained: Trained, prepared: Prepared) -> None:
    found = list(predict(trained.model, prepared.windows("validation")))
    made = calibrate(found, 50, seed=1, one_series=True)
    assert made.residuals.shape == made.tracked.shape == (12, 3, 21) and made.scale.shape == (12, 3)
    assert made.trajectories.shape == (50, 12, 3)
    for prediction in found:
        assert prediction.batch.future is not None and prediction.batch.future_mask is not None
        ends = (prediction.point[..., None] + made.residuals)[..., [0, -1]]
        inside = (ends - prediction.batch.future[..., None]).sign()
        share = (inside.prod(-1) <= 0)[prediction.batch.future_mask].float().mean()
        assert share >= 0.95


def test_quantiles_of_a_head_are_taken_as_they_are(config: Callable[..., Any], prepared: Prepared) -> None:
    model = build_model(config(head={"kind": "quantile"}, intervals={"method": "head"}), prepared)
    prediction = next(predict(model, prepared.windows("test"), levels=LEVEL_TENSOR))
    assert prediction.quantiles is not None
    assert HeadIntervals().quantiles(prediction) is prediction.quantiles
    torch.testing.assert_close(prediction.quantiles[..., LEVELS.index(0.5)], prediction.point)


def test_skill_is_measured_against_the_reference() -> None:
    def table(error: float) -> Scores:
        sums = {"mase": torch.full((2, 1), error), "scaled_crps": torch.full((2, 1), error / 2)}
        return Scores(("a",), sums, torch.ones(2, 1), {}, torch.ones(1))

    made = summary({"model": table(0.6), "seasonal_naive": table(0.8)})["scores"]
    assert made["model"]["skill_mae"] == pytest.approx(0.25) and made["model"]["skill_crps"] == pytest.approx(0.25)
    assert made["seasonal_naive"]["skill_mae"] == 0
    perfect = summary({"model": table(0.6), "seasonal_naive": table(0.0)})["scores"]
    assert set(perfect["model"]) == {"mase", "scaled_crps"}
    assert "skill_mae" not in summary({"model": table(0.6)})["scores"]["model"]


def test_scores_of_each_series_of_a_panel(config: Callable[..., Any], tmp_path: Path) -> None:
    rng, frames = np.random.default_rng(0), []
    for number, length in enumerate((120, 90, 200)):
        first = datetime(2023, 1, 1)
        days = pl.datetime_range(first, first + timedelta(days=length - 1), "1d", eager=True)
        y = 5 * (number + 1) + np.arange(length) % 7 + rng.standard_normal(length)
        frames.append(pl.DataFrame({"unique_id": f"s{number}", "ds": days, "y": y}))
    pl.concat(frames).write_csv(tmp_path / "long.csv")
    made = prepare(
        config(
            data=str(tmp_path / "long.csv"),
            model="seasonal_naive",
            architecture={},
            horizon=7,
            reader={"id": "unique_id", "time": "ds"},
            split={"kind": "last", "windows": 2},
        )
    )
    trained = train_model(config(model="seasonal_naive", architecture={}, horizon=7), made, tmp_path, visible=False)
    found = scored(trained, made, "conformal")
    series = found.by_series(made.panel.ids)["mase"]
    assert len(found.origin_mse) == 3 * 8
    for number, name in enumerate(made.panel.ids):
        y = frames[number]["y"].to_numpy()
        scale = np.abs(y[7:-28] - y[:-35]).mean()
        origins = range(len(y) - 14, len(y) - 6)
        errors = [np.abs(y[o : o + 7] - y[o - 7 : o]).mean() for o in origins]
        assert series[name] == pytest.approx(np.mean(errors) / scale, rel=1e-4)
