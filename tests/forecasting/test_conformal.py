"""Conformal quantiles by rank and by simulation, the adaptive ones under drift and delay, and sample paths."""

import gzip
import math
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from datasets.errors import ForetideError
from forecasting import conformal
from forecasting.baselines import seasonal_naive
from forecasting.conformal import LEVELS, AdaptiveQuantiles, band, residual_quantiles, sample_paths, trajectories
from forecasting.metrics import coverage, masked_mean

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="not here: no GPU")),
]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def overlapping(windows: int, horizon: int, variates: int, memory: float) -> Tensor:
    """Residuals ``(W, H, C)`` of windows one row apart, which share an AR(1) series of variance 1."""
    series = noise(windows + horizon + 1000, variates)
    for row in range(1, len(series)):
        series[row] = memory * series[row - 1] + math.sqrt(1 - memory**2) * series[row]
    return series[1000:].unfold(0, horizon, 1)[:windows].transpose(1, 2).contiguous()


def covered(residuals: Tensor, quantiles: Tensor, nominal: float) -> Tensor:
    """Share of residuals inside the central band, for each step and variate."""
    return masked_mean(coverage(residuals, *band(quantiles, nominal)), dims=0)


def test_levels_are_symmetric_and_hold_the_ends_of_the_bands() -> None:
    assert len(LEVELS) == 21
    assert [1 - level for level in reversed(LEVELS)] == pytest.approx(LEVELS)
    assert {0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975} <= set(LEVELS)


@pytest.mark.parametrize(
    ("count", "ranks"),
    [
        (39, {0.025: 1, 0.1: 4, 0.25: 10, 0.5: 20, 0.75: 30, 0.9: 36, 0.975: 39}),
        (99, {0.025: 2, 0.1: 10, 0.25: 25, 0.5: 50, 0.75: 75, 0.9: 90, 0.975: 98}),
        (4, {0.025: 1, 0.1: 1, 0.25: 1, 0.5: 2.5, 0.75: 4, 0.9: 4, 0.975: 4}),
        (1, {0.025: 1, 0.5: 1, 0.975: 1}),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_quantiles_are_the_ranks_with_the_correction_for_finite_samples(
    count: int, ranks: dict[float, float], dtype: torch.dtype
) -> None:
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(1)).to(dtype) + 1
    found = residual_quantiles(shuffled[:, None, None], levels=tuple(ranks))
    assert found[0, 0].tolist() == list(ranks.values())


@pytest.mark.parametrize("count", [39, 60, 100])
def test_marginal_coverage_at_every_step_is_that_of_the_ranks(count: int) -> None:
    trials, steps = 6000, 4
    skewed = torch.exp(noise(count + 1, steps, trials)) * torch.arange(1, steps + 1)[:, None]
    quantiles = residual_quantiles(skewed[:count])
    for nominal in (0.5, 0.8, 0.95):
        found = masked_mean(coverage(skewed[count], *band(quantiles, nominal)), dims=1)
        tail = (1 - nominal) / 2
        ranks = math.ceil((count + 1) * (1 - tail) - 1e-6) - math.floor((count + 1) * tail + 1e-6)
        exact = ranks / (count + 1)
        assert exact >= nominal - 1e-9
        assert (found - exact).abs().max() < 4 * math.sqrt(exact * (1 - exact) / trials)


def test_quantiles_see_only_what_is_observed() -> None:
    residuals = noise(80, 3, 2)
    mask = torch.rand(80, 3, 2, generator=torch.Generator().manual_seed(2)) > 0.4
    mask[:, 2, 1] = False
    found = residual_quantiles(residuals.masked_fill(~mask, 1e9), mask)
    torch.testing.assert_close(residual_quantiles(residuals.masked_fill(~mask, torch.nan)), found, equal_nan=True)
    for step, variate in [(0, 0), (1, 1), (2, 0)]:
        alone = residuals[mask[:, step, variate], step, variate]
        assert torch.equal(found[step, variate], residual_quantiles(alone[:, None, None])[0, 0])
    assert found[2, 1].isnan().all() and found.isnan().sum() == len(LEVELS)


def test_band_refuses_a_coverage_that_the_levels_do_not_hold() -> None:
    lower, upper = band(torch.tensor(LEVELS), 0.9)
    assert (lower.item(), upper.item()) == pytest.approx((0.05, 0.95))
    with pytest.raises(ForetideError, match=r"found coverage 0\.99, expected ends 0\.005 and 0\.995"):
        band(torch.tensor(LEVELS), 0.99)


def test_adaptive_quantiles_keep_coverage_on_a_drifting_series_where_fixed_ones_fail() -> None:
    windows, horizon = 6000, 8
    growth = torch.linspace(0, 1, windows)[:, None, None]
    residuals = noise(windows, horizon, 3) * (1 + 2 * growth) + 2 * growth
    calibration, later = residuals[:600], residuals[600 + horizon :]
    fixed = residual_quantiles(calibration)
    adaptive = AdaptiveQuantiles.from_residuals(calibration, learning_rate=0.01).track(later)
    for nominal in (0.5, 0.8, 0.95):
        assert covered(later, fixed, nominal).max() < nominal - 0.15
        assert (covered(later, adaptive, nominal).mean() - nominal).abs() < 0.015
        assert (covered(later, adaptive, nominal) - nominal).abs().max() < 0.03


def test_adaptive_quantiles_stay_calibrated_when_they_cross() -> None:
    residuals = overlapping(3000, 24, 3, memory=0.99)
    calibration, later = residuals[:1000], residuals[1024:]
    issued = AdaptiveQuantiles.from_residuals(calibration, learning_rate=0.01, warm_up=False).track(later)
    assert (issued.diff(dim=-1) >= 0).all()
    for nominal in (0.5, 0.8, 0.95):
        assert (covered(later, issued, nominal) - nominal).abs().mean() < 0.015


def test_default_rate_leaves_a_stationary_series_as_it_is() -> None:
    residuals = noise(2500, 6, 4)
    issued = AdaptiveQuantiles.from_residuals(residuals[:1000]).track(residuals[1006:])
    for nominal in (0.5, 0.8, 0.95):
        assert (covered(residuals[1006:], issued, nominal).mean() - nominal).abs() < 0.01
    exact = torch.special.ndtri(torch.tensor(LEVELS))
    assert (issued.mean(dim=(0, 1, 2)) - exact).abs().max() < 0.05


@pytest.mark.parametrize("stride", [1, 3, 10])
def test_an_error_is_used_when_its_target_is_known_and_not_before(stride: int) -> None:
    horizon, origin = 7, 5
    residuals = noise(20, horizon, 2)
    start = AdaptiveQuantiles.from_residuals(noise(50, horizon, 2, seed=1), learning_rate=0.05, warm_up=False)
    before = AdaptiveQuantiles.from_state(start.state()).track(residuals, stride=stride)
    for step in range(horizon):
        changed = residuals.clone()
        changed[origin, step, 1] = 100.0
        after = AdaptiveQuantiles.from_state(start.state()).track(changed, stride=stride)
        first = origin + math.ceil((step + 1) / stride)
        differs = (after != before).any(dim=-1)
        assert not differs[:first].any()
        assert differs[first, step, 1]
        differs[:, step, 1] = False
        assert not differs.any()


@pytest.mark.parametrize("stride", [1, 4])
def test_a_stream_issues_the_same_in_batches_of_any_size(stride: int) -> None:
    residuals, mask = noise(40, 9, 2), noise(40, 9, 2, seed=1) > -1
    start = AdaptiveQuantiles.from_residuals(noise(60, 9, 2, seed=2), learning_rate=0.03)
    whole = AdaptiveQuantiles.from_state(start.state())
    issued = whole.track(residuals, mask, stride)
    for size in (1, 7, 40):
        parts = AdaptiveQuantiles.from_state(start.state())
        stream, made = parts.stream(stride), []
        for first in range(0, 40, size):
            upcoming = stream.next()
            made.append(stream.issue(residuals[first : first + size], mask[first : first + size]))
            assert torch.equal(made[-1][0], upcoming)
        assert torch.equal(torch.cat(made), issued)
        assert torch.equal(parts.quantiles, whole.quantiles)


def test_state_survives_a_file_and_continues(tmp_path: Path) -> None:
    residuals = noise(120, 4, 2)
    tracker = AdaptiveQuantiles.from_residuals(residuals[:60], learning_rate=0.02)
    save_file(tracker.state(), tmp_path / "calibration.safetensors")
    loaded = AdaptiveQuantiles.from_state(load_file(tmp_path / "calibration.safetensors"))
    assert loaded.levels == tracker.levels and loaded.learning_rate == 0.02
    tracker.update(residuals[60:])
    loaded.update(residuals[60:])
    assert torch.equal(loaded.quantiles, tracker.quantiles)
    assert torch.equal(loaded.track(residuals), tracker.track(residuals))


def test_update_has_the_effect_of_track_in_pieces_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    residuals = noise(30, 4, 5)
    first = AdaptiveQuantiles.from_residuals(noise(50, 4, 5, seed=1), learning_rate=0.02)
    second = AdaptiveQuantiles.from_state(first.state())
    first.track(residuals)
    monkeypatch.setattr(conformal, "ELEMENTS_AT_ONCE", 2 * 30 * 4 * len(LEVELS))
    second.update(residuals)
    assert torch.equal(first.quantiles, second.quantiles)


def test_selected_variates_are_tracked_in_the_whole() -> None:
    residuals = noise(30, 4, 5)
    whole = AdaptiveQuantiles.from_residuals(noise(50, 4, 5, seed=1), learning_rate=0.02)
    parts = AdaptiveQuantiles.from_state(whole.state())
    issued = whole.track(residuals)
    pieces = [parts.select(part).track(residuals[..., part]) for part in (slice(0, 2), slice(2, 5))]
    assert torch.equal(torch.cat(pieces, dim=2), issued)
    assert torch.equal(parts.quantiles, whole.quantiles)


def test_masked_errors_teach_nothing() -> None:
    residuals, mask = noise(30, 4, 2), noise(30, 4, 2, seed=1) > 0
    start = AdaptiveQuantiles.from_residuals(noise(50, 4, 2, seed=2), learning_rate=0.02)
    made = [
        AdaptiveQuantiles.from_state(start.state()).track(values, given)
        for values, given in [
            (residuals, mask),
            (residuals.masked_fill(~mask, 1e9), mask),
            (residuals.masked_fill(~mask, torch.nan), None),
        ]
    ]
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])
    untaught = AdaptiveQuantiles.from_state(start.state()).track(residuals, torch.zeros_like(mask))
    assert torch.equal(untaught[-1], start.quantiles)


def test_a_rate_of_zero_keeps_the_conformal_quantiles() -> None:
    residuals = noise(50, 4, 2)
    tracker = AdaptiveQuantiles.from_residuals(residuals, learning_rate=0.0)
    assert torch.equal(tracker.track(residuals)[-1], residual_quantiles(residuals))


def test_bands_scale_with_the_residuals() -> None:
    residuals = noise(80, 4, 2)
    small, large = (AdaptiveQuantiles.from_residuals(same).track(same) for same in (residuals, 1024 * residuals))
    torch.testing.assert_close(large, 1024 * small)


def test_scale_of_mostly_equal_residuals_is_not_zero() -> None:
    residuals = torch.zeros(100, 1, 2)
    residuals[:4, 0, 0] = 5.0
    assert conformal.residual_scale(residuals)[0].tolist() == pytest.approx([1.0, 0.0])
    gaussian = conformal.residual_scale(3 * noise(20000, 1, 1))
    assert gaussian.item() == pytest.approx(3.0, rel=0.03)


@pytest.mark.parametrize("device", DEVICES)
def test_tracking_stays_on_the_device_in_the_given_precision(device: str) -> None:
    residuals = noise(40, 5, 2).to(device)
    tracker = AdaptiveQuantiles.from_residuals(residuals.bfloat16(), learning_rate=0.02)
    issued = tracker.track(residuals.requires_grad_())
    assert issued.dtype == torch.float32 and issued.device.type == device and not issued.requires_grad
    here = AdaptiveQuantiles.from_residuals(residuals.detach().cpu().bfloat16(), learning_rate=0.02)
    torch.testing.assert_close(here.track(residuals.detach().cpu()), issued.cpu())


def test_what_does_not_fit_is_refused() -> None:
    tracker = AdaptiveQuantiles.from_residuals(noise(50, 4, 2))
    with pytest.raises(ForetideError, match=r"found residuals of \(3, 2\) steps and variates, expected \(4, 2\)"):
        tracker.track(noise(5, 3, 2))
    with pytest.raises(ForetideError, match="the tensor 'scale' is missing"):
        AdaptiveQuantiles.from_state({"quantiles": tracker.quantiles})
    with pytest.raises(ForetideError, match=r"found learning rate -1\.0"):
        AdaptiveQuantiles(tracker.quantiles, tracker.scale, learning_rate=-1.0)
    with pytest.raises(ForetideError, match=r"found quantiles .* 2 levels"):
        AdaptiveQuantiles(tracker.quantiles, tracker.scale, levels=(0.1, 0.9))


def test_trajectories_are_whole_rows_and_fixed_by_the_seed() -> None:
    residuals = noise(30, 6, 2)
    found = trajectories(residuals, 12, seed=4)
    rows = [int((residuals == path).all(dim=(1, 2)).nonzero()) for path in found]
    assert rows == sorted(set(rows)) and len(rows) == 12
    assert torch.equal(found, trajectories(residuals, 12, seed=4))
    assert not torch.equal(found, trajectories(residuals, 12, seed=5))
    assert trajectories(residuals, 100, seed=4).shape == (100, 6, 2)


def test_gaps_of_a_trajectory_come_from_its_neighbours() -> None:
    residuals = noise(40, 3, 2)
    mask = torch.rand(40, 3, 2, generator=torch.Generator().manual_seed(3)) > 0.5
    mask[:, 2, 1] = False
    found = trajectories(residuals.masked_fill(~mask, torch.nan), 40, seed=0)
    assert torch.equal(found[mask], residuals[mask])
    assert (found[:, 2, 1] == 0).all()
    for step, variate in [(0, 0), (1, 1)]:
        known = mask[:, step, variate].nonzero()[:, 0]
        for row in range(40):
            earlier = known[known <= row]
            source = earlier[-1] if len(earlier) else known[0]
            assert found[row, step, variate] == residuals[source, step, variate]


@pytest.mark.parametrize("device", DEVICES)
def test_sample_paths_have_the_right_spread_of_a_sum_over_the_horizon(device: str) -> None:
    residuals = overlapping(4000, 12, 2, memory=0.9).to(device)
    point = torch.arange(5.0, device=device)[:, None, None].expand(5, 12, 2)
    paths = sample_paths(point, trajectories(residuals, 2000, seed=0), 3000, torch.Generator().manual_seed(1))
    assert paths.shape == (3000, 5, 12, 2)
    lags = torch.arange(12.0)
    deviation = (0.9 ** (lags[:, None] - lags).abs()).sum().sqrt().item()
    sums = paths.sum(dim=2)
    assert sums.std(dim=0).mean().item() == pytest.approx(deviation, rel=0.1)
    middle = sums.median(dim=0).values.mean(dim=-1).cpu()
    assert (middle - 12 * torch.arange(5.0)).abs().max() < 0.25 * deviation


def test_sample_paths_are_drawn_anew_for_each_forecast_and_fixed_by_the_generator() -> None:
    paths = trajectories(noise(50, 4, 1), 50, seed=0)
    first, second = (sample_paths(torch.zeros(2, 4, 1), paths, 20, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first[:, 0], first[:, 1])
    assert sample_paths(torch.zeros(4, 1), paths, 20).shape == (20, 4, 1)


def test_bands_of_seasonal_naive_on_real_data_come_close_to_nominal_where_fixed_ones_do_not(data_folder: Path) -> None:
    frame = pl.read_csv(gzip.decompress((data_folder / "ETT-small" / "ETTh1.csv.gz").read_bytes()))
    values = torch.from_numpy(frame.drop("date").to_numpy()).float()
    values = (values - values[:8640].mean(dim=0)) / values[:8640].std(dim=0)

    def residuals(first: int, end: int) -> Tensor:
        windows = values[first - 96 : end].unfold(0, 192, 1).transpose(1, 2)
        return windows[:, 96:] - seasonal_naive(windows[:, :96], 96, 24)

    validation, test = residuals(8640, 11520), residuals(11520, 14400)
    fixed, issued = residual_quantiles(validation), AdaptiveQuantiles.from_residuals(validation).track(test)
    assert len(issued) == 2785
    for nominal in (0.8, 0.95):
        gap = (covered(test, issued, nominal).mean() - nominal).abs()
        assert gap < 0.025
        assert gap < (covered(test, fixed, nominal).mean() - nominal).abs()
