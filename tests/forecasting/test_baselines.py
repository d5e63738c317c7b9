"""Baselines against closed forms, at gaps, and against statsforecast."""

import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch

from datasets.errors import ForetideError
from forecasting.baselines import classical, drift, seasonal_naive

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="not here: no GPU")),
]
NAN = torch.nan


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("lookback", "horizon", "season"), [(96, 96, 24), (10, 7, 4), (5, 12, 5), (9, 3, 1)])
def test_seasonal_naive_repeats_the_last_season(lookback: int, horizon: int, season: int, device: str) -> None:
    past = torch.randn(3, lookback, 2, generator=torch.Generator().manual_seed(0)).to(device)
    found = seasonal_naive(past, horizon, season)
    expected = [past[:, lookback - season + step % season] for step in range(horizon)]
    assert torch.equal(found, torch.stack(expected, dim=1))


def test_seasonal_naive_takes_the_last_observed_value_at_the_same_position() -> None:
    past = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])[None, :, None]
    mask = torch.tensor([1, 1, 1, 1, 0, 1, 0, 1], dtype=torch.bool)[None, :, None]
    assert seasonal_naive(past, 5, 3, mask)[0, :, 0].tolist() == [6.0, 4.0, 8.0, 6.0, 4.0]


def test_seasonal_naive_falls_back_to_the_last_value_and_then_to_zero() -> None:
    past = torch.tensor([[5.0, NAN, 7.0, NAN], [NAN] * 4]).T[None]
    assert seasonal_naive(past, 3, 2)[0].T.tolist() == [[7.0, 7.0, 7.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("season", [0, 9])
def test_seasonal_naive_refuses_a_season_that_the_lookback_does_not_hold(season: int) -> None:
    with pytest.raises(ValueError, match=f"season of {season} rows, expected 1 to the lookback of 8 rows"):
        seasonal_naive(torch.zeros(1, 8, 1), 4, season)


@pytest.mark.parametrize("device", DEVICES)
def test_drift_continues_a_line_whatever_is_missing(device: str) -> None:
    line = (torch.arange(20.0)[:, None] * torch.tensor([0.5, -3.0]) + 2).to(device)
    mask = torch.rand(4, 20, 2, generator=torch.Generator().manual_seed(1)).to(device) > 0.6
    found = drift(line[:12].expand(4, -1, -1).masked_fill(~mask[:, :12], NAN), 8, mask[:, :12])
    assert (mask[:, :12].sum(dim=1) >= 2).all()
    torch.testing.assert_close(found, line[12:].expand(4, -1, -1))


def test_drift_joins_the_first_and_the_last_value() -> None:
    past = torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(2))
    slope = (past[:, -1] - past[:, 0]) / 29
    torch.testing.assert_close(drift(past, 4)[:, 3], past[:, -1] + 4 * slope)


def test_drift_repeats_a_single_value_and_gives_zero_for_none() -> None:
    past = torch.tensor([[NAN, 4.0, NAN], [NAN] * 3]).T[None]
    assert drift(past, 2)[0].T.tolist() == [[4.0, 4.0], [0.0, 0.0]]


def test_a_forecast_reads_nothing_under_the_mask_and_records_no_gradient() -> None:
    past = torch.randn(2, 24, 3, generator=torch.Generator().manual_seed(3))
    mask = torch.rand(2, 24, 3, generator=torch.Generator().manual_seed(4)) > 0.4
    first, second = past.masked_fill(~mask, 0.0), past.masked_fill(~mask, 1e9).requires_grad_()
    for made in (lambda values: seasonal_naive(values, 9, 6, mask), lambda values: drift(values, 9, mask)):
        assert torch.equal(made(first), made(second))
        assert not made(second).requires_grad


def test_baselines_agree_with_statsforecast(require: Callable[[str], ModuleType]) -> None:
    models = require("statsforecast.models")
    series = np.random.default_rng(0).standard_normal(50)
    past = torch.from_numpy(series)[None, :, None]
    np.testing.assert_allclose(
        seasonal_naive(past, 20, 7)[0, :, 0].numpy(),
        models.SeasonalNaive(season_length=7).forecast(y=series, h=20)["mean"],
    )
    np.testing.assert_allclose(
        drift(past, 20)[0, :, 0].numpy(), models.RandomWalkWithDrift().forecast(y=series, h=20)["mean"]
    )


@pytest.mark.parametrize("name", ["auto_ets", "theta"])
def test_classical_methods_continue_trend_and_season(name: str, require: Callable[[str], ModuleType]) -> None:
    require("statsforecast.models")
    time = np.arange(132)
    noise = np.random.default_rng(0).standard_normal((132, 2)) * 0.05
    angle = 2 * np.pi * time / 12
    series = np.stack([50 + 0.2 * time + 5 * np.sin(angle), 20 + 2 * np.cos(angle)], axis=-1)
    history = (series + noise)[:120]
    history[40:43, 0] = np.nan
    history[:2, 1] = np.nan
    found = classical(name, history, 12, 12)  # type: ignore[arg-type]
    assert found.shape == (12, 2)
    naive = np.nan_to_num(history[108:120]) - series[120:]
    assert (np.abs(found - series[120:]).mean(axis=0) < [0.5 * np.abs(naive[:, 0]).mean(), 0.3]).all()
    np.testing.assert_array_equal(classical(name, history[:, 0], 12, 12), found[:, 0])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["auto_ets", "theta"])
def test_classical_methods_repeat_a_constant(name: str, require: Callable[[str], ModuleType]) -> None:
    require("statsforecast.models")
    np.testing.assert_allclose(classical(name, np.full(30, 4.0), 3, 12), 4.0)  # type: ignore[arg-type]


def test_classical_refuses_a_short_history(require: Callable[[str], ModuleType]) -> None:
    require("statsforecast.models")
    with pytest.raises(ForetideError, match="theta found 9 observed rows, expected at least 10"):
        classical("theta", np.append(np.arange(9.0), np.nan), 3, 1)


def test_classical_refuses_an_unknown_name() -> None:
    with pytest.raises(ForetideError, match="found 'arima', expected auto_ets or theta"):
        classical("arima", np.arange(20.0), 3, 1)  # type: ignore[arg-type]


def test_classical_says_how_to_install_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "statsforecast.models", None)
    with pytest.raises(ForetideError, match=r'pip install "foretide\[classical\]"') as caught:
        classical("auto_ets", np.arange(20.0), 3, 1)
    assert "\n" not in str(caught.value)
