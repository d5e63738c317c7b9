"""Heads and losses against torch.distributions, scipy and closed forms, under masks and affine maps."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import optimize, stats
from torch import Tensor

from datasets.errors import ForetideError
from forecasting import losses
from forecasting.config import HeadOptions
from forecasting.conformal import LEVELS
from forecasting.heads import Head, QuantileHead, make_head, student_t_quantile

SHAPE = (4, 5, 3)
LEVEL_TENSOR = torch.tensor(LEVELS)
OPTIONS = {
    "mse": HeadOptions(),
    "mae": HeadOptions(loss="mae"),
    "huber": HeadOptions(loss="huber", huber_delta=0.7),
    "quantile": HeadOptions("quantile"),
    "student_t": HeadOptions("student_t", components=3),
}
HEADS = pytest.mark.parametrize("name", list(OPTIONS))


def case(head: Head) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, targets and a mask that leaves some out."""
    return torch.randn(*SHAPE, head.size), torch.randn(SHAPE), torch.rand(SHAPE) > 0.3


def reference(name: str, output: Tensor, target: Tensor) -> Tensor:
    """The loss of each element by other means."""
    if name == "mse":
        return F.mse_loss(output[..., 0], target, reduction="none")
    if name == "mae":
        return F.l1_loss(output[..., 0], target, reduction="none")
    if name == "huber":
        return F.huber_loss(output[..., 0], target, reduction="none", delta=0.7)
    if name == "quantile":
        error = target[..., None] - output
        return torch.where(error >= 0, LEVEL_TENSOR * error, (LEVEL_TENSOR - 1) * error).mean(-1)
    weights, location, scale, freedom = output.chunk(4, -1)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=weights),
        torch.distributions.StudentT(2 + F.softplus(freedom), location, scale.exp()),
    )
    return -mixture.log_prob(target)


@HEADS
def test_loss_is_the_sum_over_what_is_scored(name: str) -> None:
    head = make_head(OPTIONS[name])
    output, target, mask = case(head)
    torch.testing.assert_close(head.loss(output, target, mask), reference(name, output, target)[mask].sum())


@HEADS
def test_what_is_masked_has_no_part_in_loss_or_gradient(name: str) -> None:
    head = make_head(OPTIONS[name])
    output, target, mask = case(head)
    gradients = []
    for spoil in (0.0, 1e9, torch.nan, torch.inf):
        leaf = output.clone().requires_grad_()
        head.loss(leaf, torch.where(mask, target, spoil), mask).backward()
        assert leaf.grad is not None and leaf.grad.isfinite().all() and (leaf.grad[~mask] == 0).all()
        gradients.append(leaf.grad)
    assert all(torch.equal(gradients[0], other) for other in gradients[1:])
    assert head.loss(output, target, torch.zeros_like(mask)) == 0


@HEADS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_is_computed_in_single_precision(name: str, dtype: torch.dtype) -> None:
    head = make_head(OPTIONS[name])
    output, target, mask = case(head)
    assert head.loss(output.to(dtype), target, mask).dtype == torch.float32


@HEADS
def test_an_affine_map_of_the_target_moves_point_quantiles_and_loss_with_it(name: str) -> None:
    head = make_head(OPTIONS[name])
    output, target, mask = case(head)
    location, scale = torch.randn(4, 1, 3), torch.rand(4, 1, 3) + 0.5
    moved = head.affine(output, location, scale)
    torch.testing.assert_close(head.point(moved), head.point(output) * scale + location, atol=1e-5, rtol=1e-5)
    before, after = head.quantiles(output, LEVEL_TENSOR), head.quantiles(moved, LEVEL_TENSOR)
    if before is None:
        assert after is None
    else:
        assert after is not None
        torch.testing.assert_close(after, before * scale[..., None] + location[..., None], atol=1e-4, rtol=1e-4)
    one = torch.full((4, 1, 3), 1.7)
    changed = head.loss(head.affine(output, location, one), target * one + location, mask)
    plain = head.loss(output, target, mask)
    expected = {
        "mse": plain * 1.7**2,
        "mae": plain * 1.7,
        "quantile": plain * 1.7,
        "student_t": plain + mask.sum() * np.log(1.7),
    }
    if name in expected:
        torch.testing.assert_close(changed, expected[name])


def test_huber_is_square_inside_and_absolute_outside() -> None:
    target, mask = torch.zeros(1, 4, 1), torch.ones(1, 4, 1, dtype=torch.bool)
    output = torch.tensor([0.5, -1.0, 2.0, -3.0]).reshape(1, 4, 1)
    assert losses.huber(output, target, mask, 1.0) == pytest.approx(0.125 + 0.5 + 1.5 + 2.5)


def test_point_head_forecasts_its_output_and_has_no_quantiles() -> None:
    head, output = make_head(HeadOptions()), torch.randn(*SHAPE, 1)
    assert torch.equal(head.point(output), output[..., 0]) and head.quantiles(output, LEVEL_TENSOR) is None


def test_quantiles_of_the_quantile_head_are_its_sorted_outputs_and_lines_between() -> None:
    head, output = make_head(HeadOptions("quantile")), torch.randn(*SHAPE, len(LEVELS))
    ordered = np.sort(output.numpy(), axis=-1)
    found = head.quantiles(output, LEVEL_TENSOR)
    assert found is not None
    np.testing.assert_allclose(found, ordered, atol=1e-6)
    assert torch.equal(head.point(output), torch.from_numpy(ordered)[..., LEVELS.index(0.5)])
    wanted = torch.tensor([0.001, 0.03, 0.11, 0.5, 0.87, 0.999])
    between = head.quantiles(output, wanted)
    assert between is not None
    expected = np.apply_along_axis(lambda row: np.interp(wanted, LEVELS, row), -1, ordered)
    np.testing.assert_allclose(between, expected, atol=1e-5)


def test_the_pinball_loss_is_least_at_the_quantiles() -> None:
    levels = (0.1, 0.25, 0.5, 0.9)
    head, sample = QuantileHead(levels), torch.randn(2001, dtype=torch.float64).exp()
    mask = torch.ones(1, 2001, 1, dtype=torch.bool)
    exact = torch.from_numpy(np.quantile(sample.numpy(), levels))

    def loss(guess: Tensor) -> float:
        return float(head.loss(guess.expand(1, 2001, 1, 4), sample.reshape(1, 2001, 1), mask))

    best = loss(exact)
    for shift in (-0.5, -0.05, 0.05, 0.5):
        assert all(loss(exact + shift * torch.eye(4)[place]) > best for place in range(4))


def mixture(components: int, count: int) -> tuple[Tensor, list[tuple[np.ndarray, ...]]]:
    """Outputs of a mixture head for ``count`` elements, and the parameters that they stand for."""
    output = torch.randn(1, count, 1, 4 * components)
    parts = [part.numpy().astype(np.float64) for part in output[0, :, 0].chunk(4, dim=-1)]
    weights = np.exp(parts[0]) / np.exp(parts[0]).sum(-1, keepdims=True)
    return output, list(zip(weights, parts[1], np.exp(parts[2]), 2 + np.log1p(np.exp(parts[3])), strict=True))


def above(x: float, level: float, parts: tuple[np.ndarray, ...]) -> float:
    """By how much the share of a mixture below ``x`` exceeds ``level``."""
    weights, location, scale, freedom = parts
    return float((weights * stats.t.cdf(x, freedom, location, scale)).sum() - level)


def test_quantiles_of_one_student_t_against_scipy() -> None:
    head = make_head(HeadOptions("student_t", components=1))
    output, parameters = mixture(1, 40)
    found = head.quantiles(output, LEVEL_TENSOR)
    assert found is not None
    for row, (_, location, scale, freedom) in zip(found[0, :, 0].numpy(), parameters, strict=True):
        np.testing.assert_allclose(stats.t.cdf(row, freedom, location, scale), LEVELS, atol=0.001)
        inner = slice(2, -2)
        exact = stats.t.ppf(LEVELS[inner], freedom, location, scale)
        np.testing.assert_allclose(row[inner], exact, atol=0.005 * scale[0])


def test_quantiles_of_a_mixture_against_the_inverse_of_its_distribution() -> None:
    head = make_head(HeadOptions("student_t", components=3))
    output, parameters = mixture(3, 40)
    found = head.quantiles(output, LEVEL_TENSOR)
    assert found is not None
    gaps = []
    for row, parts in zip(found[0, :, 0].numpy(), parameters, strict=True):
        assert (np.diff(row) > 0).all()
        exact = np.array([optimize.brentq(above, -500, 500, args=(level, parts)) for level in LEVELS])
        slack = exact[LEVELS.index(0.75)] - exact[LEVELS.index(0.25)]
        np.testing.assert_allclose(row[5:-5], exact[5:-5], atol=0.05 * slack)
        gaps.append([above(x, level, parts) for x, level in zip(row, LEVELS, strict=True)])
    # what counts: the share of the distribution below each issued quantile
    assert np.abs(gaps).max() < 0.01 and np.abs(gaps).mean() < 0.002


def test_the_point_of_a_mixture_is_its_mean() -> None:
    head = make_head(HeadOptions("student_t", components=3))
    output, parameters = mixture(3, 20)
    means = [(weights * location).sum() for weights, location, _, _ in parameters]
    np.testing.assert_allclose(head.point(output)[0, :, 0], means, atol=1e-5)


def test_student_t_quantiles_for_all_degrees_of_freedom() -> None:
    levels = np.concatenate([np.linspace(0.005, 0.495, 60), np.linspace(0.505, 0.995, 60)])
    for freedom in (2.0001, 2.5, 3.0, 4.9, 5.1, 8.0, 30.0, 200.0, 5000.0):
        found = student_t_quantile(torch.from_numpy(levels), torch.tensor(freedom, dtype=torch.float64))
        single = student_t_quantile(torch.from_numpy(levels).float(), torch.tensor(freedom))
        for values in (found, single):
            np.testing.assert_allclose(values, stats.t.ppf(levels, freedom), rtol=1e-4 if freedom >= 2.5 else 1.4e-3)
    assert student_t_quantile(torch.tensor(0.5), torch.tensor(3.0)) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"components": 0}, "head.components"),
        ({"components": 17}, "1 to 16"),
        ({"huber_delta": 0.0}, "head.huber_delta"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(ForetideError, match=words):
        HeadOptions(**options)  # type: ignore[arg-type]
