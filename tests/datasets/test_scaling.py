"""Scaling: training rows only, invertible, with bounds kept, and plain data for an artifact."""

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import torch

from datasets import panel as panels
from datasets import schema
from datasets.errors import ForetideError
from datasets.panel import Panel
from datasets.scaling import Scaler, ScalingOptions
from datasets.schema import LongSeries

ROWS, TRAIN = 60, 40


def values(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, [1.0, 50.0], (ROWS, 2))


def wide(numbers: np.ndarray, title: str = "", **covariates: object) -> Panel:
    stamps = np.datetime64("2024-01-01") + np.arange(len(numbers)) * np.timedelta64(1, "h")
    return panels.from_series(schema.series(numbers, stamps, ["a", "b"], title=title, **covariates))  # type: ignore[arg-type]


def fit(panel: Panel, **options: object) -> Scaler:
    return Scaler.fit(panel, [(0, TRAIN)], ScalingOptions(**options))  # type: ignore[arg-type]


def test_mean_and_population_deviation_of_the_training_rows() -> None:
    numbers = values()
    made = fit(wide(numbers))
    np.testing.assert_allclose(made.location[0], numbers[:TRAIN].mean(0), rtol=1e-12)
    np.testing.assert_allclose(made.scale[0], numbers[:TRAIN].std(0), rtol=1e-12)
    scaled = made.apply(wide(numbers))
    np.testing.assert_allclose(scaled.value, (numbers - numbers[:TRAIN].mean(0)) / numbers[:TRAIN].std(0), atol=1e-5)
    assert scaled.value.dtype == torch.float32


@pytest.mark.parametrize("transform", ["none", "log"])
def test_statistics_move_with_training_rows_and_with_no_others(transform: str) -> None:
    numbers, before = values(), fit(wide(values()), transform=transform)
    for row in (TRAIN, TRAIN + 5, ROWS - 1):
        changed = numbers.copy()
        changed[row] = 1e6
        after = fit(wide(changed), transform=transform)
        assert torch.equal(after.location, before.location) and torch.equal(after.scale, before.scale)
    for row in (0, TRAIN - 1):
        changed = numbers.copy()
        changed[row] += 1.0
        after = fit(wide(changed), transform=transform)
        assert (after.location != before.location).all() and (after.scale != before.scale).all()


def test_missing_values_do_not_count() -> None:
    numbers = values()
    numbers[3, 0] = numbers[7:20, 1] = np.nan
    made = fit(wide(numbers))
    np.testing.assert_allclose(made.location[0], np.nanmean(numbers[:TRAIN], 0))
    np.testing.assert_allclose(made.scale[0], np.nanstd(numbers[:TRAIN], 0))
    assert (made.apply(wide(numbers)).value[~torch.from_numpy(np.isfinite(numbers))] == 0).all()


def test_a_constant_variate_gets_the_scale_one() -> None:
    numbers = values()
    numbers[:, 1] = 0.1
    made = fit(wide(numbers))
    assert made.scale[0, 1] == 1 and made.location[0, 1] == pytest.approx(0.1)


def test_no_scaling_is_the_identity() -> None:
    made = fit(wide(values()), kind="none")
    torch.testing.assert_close(made.apply(wide(values())).value.double(), torch.from_numpy(values()))


@pytest.mark.parametrize(
    "options", [{}, {"kind": "none"}, {"transform": "log"}, {"transform": "logit", "lower": -1.0, "upper": 2000.0}]
)
def test_inverse_takes_everything_back(options: dict[str, object]) -> None:
    panel = wide(values())
    made = fit(panel, **options)
    scaled = made.apply(panel).value.double()
    back = made.inverse(scaled.reshape(6, 10, 2), torch.zeros(6, dtype=torch.long))
    torch.testing.assert_close(back.reshape(ROWS, 2), panel.value, rtol=1e-4, atol=1e-4)
    quantiles = scaled.reshape(6, 10, 2, 1) + torch.linspace(-1, 1, 5, dtype=torch.float64)
    found = made.inverse(quantiles, torch.zeros(6, dtype=torch.long))
    assert (found.diff(dim=-1) >= 0).all()
    torch.testing.assert_close(found[..., 2], back)


@pytest.mark.parametrize(
    ("options", "low", "high"),
    [({"transform": "log"}, 0.0, np.inf), ({"transform": "logit", "lower": 0.0, "upper": 800.0}, 0.0, 800.0)],
)
def test_bounds_hold_however_far_a_forecast_goes(options: dict[str, object], low: float, high: float) -> None:
    made = fit(wide(values()), **options)
    found = made.inverse(torch.linspace(-50, 50, 40).reshape(1, 20, 2), torch.tensor([0]))
    assert (found >= low).all() and (found <= high).all()


@pytest.mark.parametrize(
    ("options", "bad"), [({"transform": "log"}, -0.5), ({"transform": "logit", "upper": 900.0}, 901.0)]
)
def test_a_value_outside_the_bounds_is_named_with_its_row(options: dict[str, object], bad: float) -> None:
    numbers = values()
    numbers[11, 1] = bad
    with pytest.raises(ForetideError, match=rf"'b' is {bad:g} in row 12, but scaling.transform"):
        fit(wide(numbers), **options)
    numbers[11, 1] = np.nan
    fit(wide(numbers), **options)


def test_bounds_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ForetideError, match=r"scaling\.lower"):
        ScalingOptions(transform="logit", lower=1.0, upper=0.0)


def test_covariates_are_scaled_by_their_training_rows() -> None:
    wind, price = np.arange(ROWS, dtype=float), np.linspace(5, 6, ROWS)
    wind[2] = np.nan
    panel = wide(values(), past={"wind": wind}, future={"price": price}, static={"area": 7.0})
    made = fit(panel)
    scaled = made.apply(panel)
    known = wind[:TRAIN][np.isfinite(wind[:TRAIN])]
    expected = np.nan_to_num((wind - known.mean()) / known.std())
    assert scaled.past is not None and scaled.future is not None and scaled.static is not None
    np.testing.assert_allclose(scaled.past[:, 0], expected, atol=1e-5)
    np.testing.assert_allclose(scaled.future[:, 0], (price - price[:TRAIN].mean()) / price[:TRAIN].std(), atol=1e-5)
    assert scaled.static.tolist() == [[0.0]]


@pytest.fixture
def long_panel() -> Callable[..., Panel]:
    def make(**series: list[float]) -> Panel:
        frames = [
            pl.DataFrame(
                {
                    "unique_id": name,
                    "y": y,
                    "ds": pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2024, 1, len(y)), "1d", eager=True),
                }
            )
            for name, y in series.items()
        ]
        return panels.from_long(LongSeries(pl.concat(frames), "D"))

    return make


def test_each_series_of_a_panel_has_its_own_scale(long_panel: Callable[..., Panel]) -> None:
    panel = long_panel(x=[1.0, 3.0, 100.0], y=[10.0, 20.0, 30.0, 40.0])
    made = Scaler.fit(panel, [(0, 2), (0, 3)], ScalingOptions())
    assert made.location[:, 0].tolist() == [2.0, 20.0]
    assert made.scale[:, 0].tolist() == pytest.approx([1.0, np.sqrt(200 / 3)])
    found = made.inverse(torch.zeros(2, 1, 1), torch.tensor([1, 0]))
    assert found.flatten().tolist() == [20.0, 2.0]


def test_known_series_keep_their_scale_and_new_ones_take_their_own(long_panel: Callable[..., Panel]) -> None:
    made = Scaler.fit(long_panel(x=[1.0, 3.0, 5.0], y=[10.0, 20.0, 60.0]), [(0, 3), (0, 3)], ScalingOptions())
    matched = made.match(long_panel(y=[0.0, 0.0, 1.0], new=[4.0, 6.0, 8.0]))
    assert matched.ids == ("y", "new")
    assert matched.location[:, 0].tolist() == pytest.approx([30.0, 6.0])
    assert matched.scale[0, 0] == made.scale[1, 0]


def test_a_single_table_keeps_its_scale_under_another_title() -> None:
    made = fit(wide(values(), title="training"))
    matched = made.match(wide(values(3), title="new rows"))
    assert torch.equal(matched.location, made.location) and matched.ids == ("new rows",)


def test_plain_data_gives_the_same_scaler() -> None:
    panel = wide(values(), past={"wind": np.arange(ROWS)}, static={"area": 7.0})
    made = fit(panel, transform="log")
    again = Scaler.from_dict(json.loads(json.dumps(made.to_dict())))
    for field in dataclasses.fields(Scaler):
        if field.name != "covariates":
            one, other = getattr(made, field.name), getattr(again, field.name)
            assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    for kind, moments in made.covariates.items():
        assert all(torch.equal(a, b) for a, b in zip(moments, again.covariates[kind], strict=True))
    torch.testing.assert_close(again.apply(panel).value, made.apply(panel).value, rtol=0, atol=0)


def test_stored_scaling_that_does_not_fit_is_an_error() -> None:
    stored = fit(wide(values())).to_dict()
    del stored["scale"]
    with pytest.raises(ForetideError, match=r"scaling\.json: 'scale' does not fit"):
        Scaler.from_dict(stored)
