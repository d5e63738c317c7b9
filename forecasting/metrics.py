"""Scores as small functions of tensors: an expression for each element, and one masked mean.

A score function neither masks nor averages: it returns a value for each element, which is meaningless where the
target is unobserved. `masked_mean` then leaves those elements out, whatever they hold. A NaN among the scored
elements is never dropped, so that a model that forecasts NaN cannot look good. All run on the device of their
inputs and record no gradient (`forecasting.losses` holds what models are trained by).

Letters: T rows, C variates, Q quantile levels; ``...`` any shape, mostly ``(B, H, C)``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Levels = Sequence[float] | Tensor


@torch.no_grad()
def squared_error(y: Tensor, forecast: Tensor) -> Tensor:
    """Squared error of each element."""
    return (y - forecast) ** 2


@torch.no_grad()
def absolute_error(y: Tensor, forecast: Tensor) -> Tensor:
    """Absolute error of each element; divided by `seasonal_scale` it is the scaled error, whose mean is MASE."""
    return (y - forecast).abs()


@torch.no_grad()
def symmetric_percentage_error(y: Tensor, forecast: Tensor) -> Tensor:
    """Symmetric percentage error in percent, 0 to 200, as the M4 competition defines it; 0 where both are 0.

    Source: Makridakis, Spiliotis & Assimakopoulos (2020), 200 |y - f| / (|y| + |f|).
    """
    size = y.abs() + forecast.abs()
    return torch.where(size == 0, 0.0, 200 * (y - forecast).abs() / size)


@torch.no_grad()
def seasonal_scale(history: Tensor, mask: Tensor | None, season: int) -> Tensor:
    """Mean absolute change over one season within the training rows, the denominator of MASE.

    Where it is zero to the precision of the numbers, or has no pair of rows, the change from row to row takes its
    place, and 1 where that is zero too.

    Args:
        history: ``(..., T, C)``, training rows only.
        mask: True where observed; by default wherever a number is finite.
        season: Seasonal period in rows.

    Returns:
        ``(..., C)``, positive, in the units of the history.

    Source: Hyndman & Koehler (2006), "Another look at measures of forecast accuracy".
    """
    seen = observed(history, mask)
    noise = torch.finfo(history.dtype).eps * torch.where(seen, history.abs(), 0.0).amax(dim=-2)
    scale = torch.ones_like(noise)
    for lag in (1, season):
        pairs = seen[..., lag:, :] & seen[..., :-lag, :]
        change = masked_mean((history[..., lag:, :] - history[..., :-lag, :]).abs(), pairs, -2)
        scale = torch.where(change > noise, change, scale)
    return scale


@torch.no_grad()
def pinball(y: Tensor, quantiles: Tensor, levels: Levels) -> Tensor:
    """Pinball loss of each quantile (Koenker & Bassett, 1978); at level 0.5 it is half the absolute error.

    Args:
        y: ``(...)``.
        quantiles: ``(..., Q)`` at ``levels (Q,)``.

    Returns:
        ``(..., Q)``.
    """
    known = _as(levels, quantiles)
    error = y.unsqueeze(-1) - quantiles
    return torch.maximum(known * error, (known - 1) * error)


def quantile_weights(levels: Levels) -> Tensor:
    """Share of [0, 1] that each level stands for ``(Q,)``: the cell between the midpoints to its neighbours.

    Inside, this is the trapezoid rule. The outermost cells reach to 0 and 1, so that the shares add up to 1.
    """
    known = torch.as_tensor(levels, dtype=torch.float64)
    middle = (known[1:] + known[:-1]) / 2
    return torch.cat([known.new_zeros(1), middle, known.new_ones(1)]).diff()


@torch.no_grad()
def crps_from_quantiles(y: Tensor, quantiles: Tensor, levels: Levels) -> Tensor:
    """Continuous ranked probability score of a forecast that is known by its quantiles, in the units of ``y``.

    CRPS is twice the integral of the pinball loss over the level. The integral is the sum of the pinball losses
    weighted by `quantile_weights`; beyond the outermost levels the loss of the outermost quantile is held, which
    leaves unseen how far the tails reach. The sum is exact for a point mass (the absolute error), and tends to
    CRPS as levels fill [0, 1]. With the 21 levels of `forecasting.conformal.LEVELS` and exact quantiles, the mean over
    a Gaussian's own draws is 0.23 % too high, over those of Laplace, exponential, log-normal and Student-t (3)
    distributions up to 0.33 %, and at a single ``y`` off by at most 0.7 % for a Gaussian.

    Args:
        y: ``(...)``.
        quantiles: ``(..., Q)`` at ascending ``levels (Q,)``, symmetric around 0.5.

    Returns:
        ``(...)``.

    Source: Laio & Tamea (2007), eq. 3; Gneiting & Ranjan (2011), eq. 12.
    """
    return (pinball(y, quantiles, levels) * (2 * _as(quantile_weights(levels), quantiles))).sum(dim=-1)


@torch.no_grad()
def coverage(y: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Whether each element lies in its interval, ends included; the mean is the coverage as a fraction."""
    return (lower <= y) & (y <= upper)


@torch.no_grad()
def interval_score(y: Tensor, lower: Tensor, upper: Tensor, alpha: float) -> Tensor:
    """Interval (Winkler) score of the central ``1 - alpha`` interval: width, and a penalty for each miss.

    Source: Gneiting & Raftery (2007), eq. 43.
    """
    return upper - lower + (2 / alpha) * ((lower - y).clamp(min=0) + (y - upper).clamp(min=0))


@torch.no_grad()
def masked_mean(values: Tensor, mask: Tensor | None = None, dims: int | tuple[int, ...] | None = None) -> Tensor:
    """Mean over the scored elements; NaN where there is none.

    Args:
        values: Numbers, or bool for a share.
        mask: True = scored, broadcast to the values; by default all are.
        dims: Dimensions to average over; by default all.
    """
    numbers = values if values.is_floating_point() and values.element_size() >= 4 else values.float()
    over = tuple(range(values.ndim)) if dims is None else dims
    if mask is None:
        return numbers.mean(dim=over)
    scored = mask.expand_as(values)
    return torch.where(scored, numbers, 0.0).sum(dim=over) / scored.sum(dim=over)


def observed(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mask itself without what is not finite; all that is finite where there is no mask."""
    return values.isfinite() if mask is None else mask & values.isfinite()


def _as(levels: Levels, like: Tensor) -> Tensor:
    return torch.as_tensor(levels, dtype=like.dtype, device=like.device)
