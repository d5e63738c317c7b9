"""Scores against closed forms, identities between them, and two other libraries."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import scoringrules
import torch
import torchmetrics.regression
from torch import Tensor

from forecasting import metrics
from forecasting.conformal import LEVELS

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="not here: no GPU")),
]
MANY = [level / 2000 for level in range(1, 2000)]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def pairs(device: str = "cpu", shape: tuple[int, ...] = (5, 12, 3)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator).to(device) for _ in range(2))  # type: ignore[return-value]


def gaussian_quantiles(levels: list[float] | tuple[float, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.special.ndtri(torch.tensor(levels, dtype=torch.float64)).to(dtype)


def test_squared_and_absolute_error_agree_with_torchmetrics(device: str) -> None:
    y, forecast = pairs(device)
    assert metrics.masked_mean(metrics.squared_error(y, forecast)).item() == pytest.approx(
        torchmetrics.regression.MeanSquaredError().to(device)(forecast, y).item(), rel=1e-6
    )
    assert metrics.masked_mean(metrics.absolute_error(y, forecast)).item() == pytest.approx(
        torchmetrics.regression.MeanAbsoluteError().to(device)(forecast, y).item(), rel=1e-6
    )


def test_symmetric_percentage_error_agrees_with_torchmetrics(device: str) -> None:
    y, forecast = pairs(device)
    other = torchmetrics.regression.SymmetricMeanAbsolutePercentageError().to(device)(forecast, y)
    assert metrics.symmetric_percentage_error(y, forecast).mean().item() == pytest.approx(100 * other.item(), rel=1e-5)


def test_symmetric_percentage_error_at_its_ends() -> None:
    y = torch.tensor([0.0, 0.0, 3.0, 1.0, torch.nan])
    forecast = torch.tensor([0.0, 2.0, -3.0, 3.0, 1.0])
    found = metrics.symmetric_percentage_error(y, forecast)
    assert found[:4].tolist() == [0.0, 200.0, 200.0, 100.0]
    assert found[4].isnan()


@pytest.mark.parametrize("season", [1, 7, 24])
def test_seasonal_scale_of_a_line_is_slope_times_season(season: int, device: str) -> None:
    line = torch.arange(100.0, device=device)[:, None] * torch.tensor([0.5, -2.0], device=device)
    assert metrics.seasonal_scale(line, None, season).tolist() == pytest.approx([0.5 * season, 2.0 * season])


def test_scaled_error_of_seasonal_naive_on_its_own_history_is_one() -> None:
    history = torch.randn(200, 3, generator=torch.Generator().manual_seed(1))
    scale = metrics.seasonal_scale(history, None, 12)
    scaled = metrics.absolute_error(history[12:], history[:-12]) / scale
    torch.testing.assert_close(metrics.masked_mean(scaled, dims=0), torch.ones(3))


def test_seasonal_scale_falls_back_to_one_row_and_then_to_one() -> None:
    periodic = torch.tensor([0.0, 1.0, 0.0, -1.0]).repeat(10)
    constant = torch.full((40,), 0.1)
    empty = torch.full((40,), torch.nan)
    history = torch.stack([periodic, constant, empty], dim=-1)
    assert metrics.seasonal_scale(history, None, 4).tolist() == [1.0, 1.0, 1.0]
    assert metrics.seasonal_scale(3 * history, None, 4).tolist() == [3.0, 1.0, 1.0]
    assert metrics.seasonal_scale(history[:3], None, 24).tolist() == [1.0, 1.0, 1.0]


def test_seasonal_scale_sees_only_observed_pairs_and_each_series_of_a_batch_alone() -> None:
    history = torch.randn(2, 60, 3, generator=torch.Generator().manual_seed(2))
    mask = torch.rand(2, 60, 3, generator=torch.Generator().manual_seed(3)) > 0.3
    found = metrics.seasonal_scale(history.masked_fill(~mask, 1e6), mask, 5)
    for series in range(2):
        for variate in range(3):
            y, seen = history[series, :, variate], mask[series, :, variate]
            changes = [abs(y[t] - y[t - 5]).item() for t in range(5, 60) if seen[t] and seen[t - 5]]
            assert found[series, variate].item() == pytest.approx(np.mean(changes), rel=1e-5)
    torch.testing.assert_close(metrics.seasonal_scale(history.masked_fill(~mask, torch.nan), None, 5), found)


def test_pinball_at_the_median_is_half_the_absolute_error(device: str) -> None:
    y, forecast = pairs(device)
    found = metrics.pinball(y, forecast[..., None], (0.5,))
    torch.testing.assert_close(found[..., 0], metrics.absolute_error(y, forecast) / 2)


def test_pinball_agrees_with_scoringrules_and_its_mirror_image() -> None:
    y, forecast = pairs()
    found = metrics.pinball(y, forecast[..., None].expand(*y.shape, len(LEVELS)), LEVELS)
    other = scoringrules.quantile_score(y.numpy()[..., None], forecast.numpy()[..., None], np.array(LEVELS))
    np.testing.assert_allclose(found.numpy(), other, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found + found.flip(-1), metrics.absolute_error(y, forecast)[..., None].expand_as(found))


def test_quantile_weights_are_the_trapezoid_rule_with_the_ends_held() -> None:
    weights = metrics.quantile_weights(LEVELS)
    assert weights.sum().item() == pytest.approx(1.0, abs=1e-12)
    torch.testing.assert_close(weights, weights.flip(0))
    values = torch.rand(len(LEVELS), dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    inner = torch.trapezoid(values, torch.tensor(LEVELS, dtype=torch.float64))
    assert (weights * values).sum().item() == pytest.approx((inner + 0.025 * (values[0] + values[-1])).item())


def test_crps_of_a_point_mass_is_the_absolute_error(device: str) -> None:
    y, forecast = pairs(device)
    quantiles = forecast[..., None].expand(*y.shape, len(LEVELS))
    torch.testing.assert_close(metrics.crps_from_quantiles(y, quantiles, LEVELS), metrics.absolute_error(y, forecast))


@pytest.mark.parametrize(("dtype", "slack"), [(torch.float32, 1e-5), (torch.float64, 0.0)])
def test_crps_of_a_gaussian_is_within_a_third_of_a_percent_on_average(dtype: torch.dtype, slack: float) -> None:
    y = gaussian_quantiles([(i + 0.5) / 20000 for i in range(20000)], dtype)
    found = metrics.crps_from_quantiles(y, gaussian_quantiles(LEVELS, dtype).expand(len(y), -1), LEVELS).mean().item()
    assert found == pytest.approx(1 / math.sqrt(math.pi), rel=0.0033 + slack)


@pytest.mark.parametrize(("location", "scale"), [(0.0, 1.0), (20.0, 3.0)])
def test_crps_of_a_gaussian_agrees_with_scoringrules_at_every_value(location: float, scale: float) -> None:
    y = torch.linspace(-5, 5, 201, dtype=torch.float64) * scale + location
    quantiles = (gaussian_quantiles(LEVELS) * scale + location).expand(len(y), -1)
    other = scoringrules.crps_normal(y.numpy(), location, scale)
    np.testing.assert_allclose(metrics.crps_from_quantiles(y, quantiles, LEVELS).numpy(), other, rtol=0.007)


@pytest.mark.parametrize(
    ("quantile", "crps"),
    [
        (
            lambda u: np.where(u < 0.5, np.log(2 * u), -np.log(2 - 2 * u)),
            lambda y: scoringrules.crps_laplace(y, 0.0, 1.0),
        ),
        (lambda u: -np.log1p(-u), lambda y: scoringrules.crps_exponential(y, 1.0)),
        (lambda u: u, lambda y: scoringrules.crps_uniform(y, 0.0, 1.0)),
    ],
    ids=["laplace", "exponential", "uniform"],
)
def test_crps_of_other_distributions(
    quantile: Callable[[np.ndarray], np.ndarray], crps: Callable[[np.ndarray], np.ndarray]
) -> None:
    y = quantile((np.arange(20000) + 0.5) / 20000)
    quantiles = torch.from_numpy(quantile(np.array(LEVELS))).expand(len(y), -1)
    found = metrics.crps_from_quantiles(torch.from_numpy(y), quantiles, LEVELS).mean().item()
    assert found == pytest.approx(crps(y).mean(), rel=0.005)


def test_crps_tends_to_the_closed_form_as_levels_fill_the_interval() -> None:
    y = torch.linspace(-3, 3, 61, dtype=torch.float64)
    found = metrics.crps_from_quantiles(y, gaussian_quantiles(MANY).expand(len(y), -1), MANY)
    np.testing.assert_allclose(found.numpy(), scoringrules.crps_normal(y.numpy(), 0.0, 1.0), rtol=2e-4)


def test_crps_at_even_levels_is_the_mean_pinball_loss_of_scoringrules() -> None:
    y, _ = pairs()
    levels = [(i + 0.5) / 20 for i in range(20)]
    quantiles = torch.randn(*y.shape, 20, generator=torch.Generator().manual_seed(5)).sort(dim=-1).values
    other = scoringrules.crps_quantile(y.numpy(), quantiles.numpy(), np.array(levels))
    np.testing.assert_allclose(metrics.crps_from_quantiles(y, quantiles, levels).numpy(), other, rtol=1e-5)


def test_coverage_counts_the_ends_and_never_a_missing_value() -> None:
    y = torch.tensor([1.0, 2.0, 3.0, 3.5, torch.nan])
    found = metrics.coverage(y, torch.full((5,), 1.0), torch.full((5,), 3.0))
    assert found.tolist() == [True, True, True, False, False]
    assert metrics.masked_mean(found, ~y.isnan()).item() == 0.75


def test_interval_score_agrees_with_scoringrules_and_with_two_pinball_losses(device: str) -> None:
    y, centre = pairs(device)
    lower, upper, alpha = centre - 0.7, centre + 0.4, 0.2
    found = metrics.interval_score(y, lower, upper, alpha)
    other = scoringrules.interval_score(*(part.cpu().numpy() for part in (y, lower, upper)), alpha)
    np.testing.assert_allclose(found.cpu().numpy(), other, rtol=1e-5)
    losses = metrics.pinball(y, torch.stack([lower, upper], dim=-1), (alpha / 2, 1 - alpha / 2)).sum(dim=-1)
    torch.testing.assert_close(found, 2 / alpha * losses)


def test_masked_mean_leaves_out_what_is_not_scored(device: str) -> None:
    values = torch.tensor([[1.0, torch.nan, 3.0], [torch.inf, 5.0, 6.0]], device=device)
    mask = torch.tensor([[True, False, True], [False, True, True]], device=device)
    assert metrics.masked_mean(values, mask).item() == 3.75
    assert metrics.masked_mean(values, mask, 0).tolist() == [1.0, 5.0, 4.5]
    assert metrics.masked_mean(values, mask, (0, 1)).item() == 3.75


def test_masked_mean_broadcasts_its_mask_and_shows_a_scored_nan() -> None:
    values = torch.ones(2, 3, 4)
    assert metrics.masked_mean(values, torch.tensor([True, False, True, True]), (0, 1)).isnan().tolist() == [
        False,
        True,
        False,
        False,
    ]
    values[0, 0, 0] = torch.nan
    assert metrics.masked_mean(values).isnan()
    assert metrics.masked_mean(values, torch.ones(2, 3, 4, dtype=torch.bool)).isnan()
    assert metrics.masked_mean(torch.ones(3), torch.zeros(3, dtype=torch.bool)).isnan()


def test_masked_mean_of_half_precision_is_summed_in_single_precision() -> None:
    assert metrics.masked_mean(torch.ones(5000, dtype=torch.bfloat16)).item() == 1.0


def test_scores_record_no_gradient() -> None:
    y, forecast = pairs()
    forecast.requires_grad_()
    quantiles = forecast[..., None].expand(*y.shape, 3)
    made = [
        metrics.squared_error(y, forecast),
        metrics.absolute_error(y, forecast),
        metrics.symmetric_percentage_error(y, forecast),
        metrics.pinball(y, quantiles, (0.1, 0.5, 0.9)),
        metrics.crps_from_quantiles(y, quantiles, (0.1, 0.5, 0.9)),
        metrics.masked_mean(forecast),
        metrics.interval_score(y, forecast, forecast, 0.1),
        metrics.seasonal_scale(forecast, None, 2),
    ]
    assert not any(value.requires_grad for value in made)
