"""Intervals from a forecaster's own past errors: split conformal, its adaptive form, and sample paths.

A residual is actual less forecast. A quantile of the forecast is the point forecast plus the quantile of the
residual for the same step and variate, so one set of residuals gives bands to every model.

Letters: W origins in time order, H steps, C variates, Q quantile levels.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from datasets.errors import ForetideError
from forecasting.metrics import observed

# Every twentieth, and the ends of the central 95 % interval; the 50, 80, 90 and 95 % bands are pairs of them.
LEVELS: tuple[float, ...] = (0.025, *(step / 20 for step in range(1, 20)), 0.975)
LEARNING_RATE = 0.002
ELEMENTS_AT_ONCE = 2**25


@torch.no_grad()
def residual_quantiles(residuals: Tensor, mask: Tensor | None = None, levels: Sequence[float] = LEVELS) -> Tensor:
    """Split conformal quantiles of the residuals, for each horizon step and variate.

    Of n residuals, level a above 0.5 takes the one of rank ceil((n + 1) a), a level below 0.5 the one of rank
    floor((n + 1) a), and 0.5 the median. If the next residual is exchangeable with these, the interval between
    levels a and 1 - a holds it with probability 1 - 2a or more. That needs n + 1 >= 1 / a (39 residuals for a 95 %
    interval); with fewer, the outermost residuals stand in for an infinite interval, and nothing is guaranteed.

    Args:
        residuals: ``(W, H, C)``.
        mask: True where both actual and forecast exist; by default wherever a number is finite.

    Returns:
        ``(H, C, Q)``, ascending in the level; NaN for a step and variate with no residual.

    Source: Vovk, Gammerman & Shafer (2005); Lei et al. (2018), "Distribution-free predictive inference for regression".
    """
    seen = observed(residuals, mask)
    # step by step, because sorting needs several times the memory of what it sorts
    steps = range(residuals.shape[1])
    return torch.stack([_order_statistics(residuals[:, step], seen[:, step], levels) for step in steps])


def band(quantiles: Tensor, coverage: float, levels: Sequence[float] = LEVELS) -> tuple[Tensor, Tensor]:
    """Lower and upper end ``(...)`` of the central interval with the given coverage, out of ``quantiles (..., Q)``."""
    ends = ((1 - coverage) / 2, (1 + coverage) / 2)
    places = [place for end in ends for place, level in enumerate(levels) if abs(level - end) < 1e-6]
    if len(places) != 2:
        raise ForetideError(
            f"interval: found coverage {coverage:g}, expected ends {ends[0]:g} and {ends[1]:g} to be "
            f"among the quantile levels {', '.join(f'{level:g}' for level in levels)}"
        )
    return quantiles[..., places[0]], quantiles[..., places[1]]


class AdaptiveQuantiles:
    """Residual quantiles that follow a drifting series: one online tracker per step, variate and level.

    A quantile that was issued is compared with its residual once that is known. The quantile at level a then moves up
    by ``gain * a`` if the residual lay above, else down by ``gain * (1 - a)``; so whatever the series does, the share
    of residuals below the issued quantiles tends to a. Quantiles that cross are put in order at once: sorted only where
    they are issued, each would be moved by the errors of another. The gain is

        learning_rate * scale / density(a)

    with a robust scale of the calibration residuals and the standard normal density at the level. Division by the
    density makes coverage, not position, answer at one speed at all levels: a gap in coverage closes at the rate
    ``learning_rate`` per origin, where with a common gain the outer quantiles lag behind. Bands of late steps learn
    of an error late, so that a rate near 1 / H makes them swing.

    The default rate was chosen on the validation rows of ETTh1 with seasonal naive: the largest at which CRPS stays
    within 1 % of that of the fixed quantiles.

    Args:
        quantiles: ``(H, C, Q)`` to start from, ascending; kept, and moved in place.
        scale: ``(H, C)``, a standard deviation of the residuals; 0 keeps the quantiles.
        levels: ``(Q,)``.
        learning_rate: Share of a gap in coverage that is closed per origin; 0 keeps the quantiles.

    Source: Gibbs & Candes (2021), "Adaptive conformal inference under distribution shift"; Angelopoulos, Candes &
        Tibshirani (2023), "Conformal PID control for time series prediction", section 2.1 (the quantile tracker).
    """

    def __init__(
        self, quantiles: Tensor, scale: Tensor, levels: Sequence[float] = LEVELS, learning_rate: float = LEARNING_RATE
    ) -> None:
        if learning_rate < 0 or not all(0 < low < high < 1 for low, high in itertools.pairwise(levels)):
            raise ForetideError(
                f"calibration: found learning rate {learning_rate}, levels {tuple(levels)}; expected a "
                "rate of 0 or more, and levels that ascend between 0 and 1"
            )
        if quantiles.shape != (*scale.shape, len(levels)):
            raise ForetideError(
                f"calibration: found quantiles {tuple(quantiles.shape)}, scale {tuple(scale.shape)}, "
                f"{len(levels)} levels; expected (steps, variates, levels), (steps, variates), levels"
            )
        self.levels, self.learning_rate = tuple(float(level) for level in levels), float(learning_rate)
        self.scale = scale
        self.current = quantiles

    @classmethod
    def from_residuals(
        cls,
        residuals: Tensor,
        mask: Tensor | None = None,
        levels: Sequence[float] = LEVELS,
        learning_rate: float = LEARNING_RATE,
        *,
        warm_up: bool = True,
    ) -> "AdaptiveQuantiles":
        """Starts from the split conformal quantiles of ``residuals (W, H, C)``.

        Args:
            warm_up: Runs over the same residuals once, in time order, so that the later ones count more.
        """
        kept = residuals.float() if residuals.element_size() < 4 else residuals
        made = cls(residual_quantiles(kept, mask, levels), residual_scale(kept, mask), levels, learning_rate)
        if warm_up:
            made.update(kept, mask)
        return made

    @property
    def quantiles(self) -> Tensor:
        """Quantiles ``(H, C, Q)`` for a forecast made now, ascending in the level."""
        return self.current.clone()

    def select(self, variates: slice) -> "AdaptiveQuantiles":
        """The trackers of some variates. They share memory with these: tracking them moves these too."""
        return AdaptiveQuantiles(self.current[:, variates], self.scale[:, variates], self.levels, self.learning_rate)

    @torch.no_grad()
    def track(self, residuals: Tensor, mask: Tensor | None = None, stride: int = 1) -> Tensor:
        """Quantiles issued at each origin, from errors known by then only; then moves on past the last target.

        The error of step h (from 0) at origin w is known at origin ``w + h + 1`` and not before, so that the first
        origin sees none of these residuals. Afterwards all of them have been learnt from: the next origin must not lie
        before the last target, and the first test window's does not after validation.

        Memory is that of the result; trackers are independent, so `select` can do a few variates at a time.

        Args:
            residuals: ``(W, H, C)``, origins in time order.
            mask: True where the residual is known; by default wherever a number is finite.
            stride: Rows from one origin to the next.

        Returns:
            ``(W, H, C, Q)``, ascending in the level.
        """
        if residuals.shape[1:] != self.scale.shape:
            raise ForetideError(
                f"calibration: found residuals of {tuple(residuals.shape[1:])} steps and variates, "
                f"expected {tuple(self.scale.shape)}"
            )
        return self.stream(stride).issue(residuals, mask)

    def stream(self, stride: int = 1) -> "QuantileStream":
        """Issues quantiles batch by batch, for origins in time order; moves these trackers as it goes."""
        return QuantileStream(self, stride)

    def update(self, residuals: Tensor, mask: Tensor | None = None, stride: int = 1) -> None:
        """Learns from newly known errors: `track` for its effect, in bounded memory.

        Bands are issued anew, from the present quantiles, for the origins given.

        Args:
            residuals: ``(W, H, C)``, origins in time order. What is not yet known is NaN or masked; it can be given
                later, in the row of its origin with all else masked.
            mask, stride: See `track`.
        """
        windows, horizon, variates = residuals.shape
        width = max(1, ELEMENTS_AT_ONCE // max(1, windows * horizon * len(self.levels)))
        for first in range(0, variates, width):
            part = slice(first, first + width)
            self.select(part).track(residuals[..., part], None if mask is None else mask[..., part], stride)

    def state(self) -> dict[str, Tensor]:
        """Everything, as tensors, for an artifact; `from_state` continues where this left off."""
        return {
            "quantiles": self.current.clone(),
            "scale": self.scale.clone(),
            "levels": torch.tensor(self.levels, dtype=torch.float64),
            "learning_rate": torch.tensor(self.learning_rate, dtype=torch.float64),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "AdaptiveQuantiles":
        """The inverse of `state`.

        Raises:
            ForetideError: A tensor is missing, or their shapes do not fit together.
        """
        names = ("quantiles", "scale", "levels", "learning_rate")
        missing = [name for name in names if name not in state]
        if missing:
            raise ForetideError(f"calibration: the tensor {missing[0]!r} is missing; expected {', '.join(names)}")
        quantiles, scale, levels, rate = (state[name] for name in names)
        return cls(quantiles.clone(), scale.clone(), levels.tolist(), float(rate))

    def moves(self) -> tuple[Tensor, Tensor]:
        """Moves ``(H, C, Q)`` of the quantiles when the residual lies above, and when it does not."""
        known = torch.tensor(self.levels, dtype=torch.float64)
        density = torch.exp(-(torch.special.ndtri(known) ** 2) / 2) / math.sqrt(2 * math.pi)
        rate, level = (self.learning_rate / density).to(self.scale), known.to(self.scale)
        gain = self.scale.unsqueeze(-1) * rate
        return gain * level, gain * (level - 1)


class QuantileStream:
    """Quantiles for consecutive origins, a batch at a time, in memory of one horizon beyond the batch.

    Args:
        tracker: What learns; moved in place.
        stride: Rows from one origin to the next.
    """

    def __init__(self, tracker: AdaptiveQuantiles, stride: int = 1) -> None:
        self._tracker = tracker
        horizon = tracker.scale.shape[0]
        self._steps = torch.arange(horizon, device=tracker.scale.device)
        self._delay = self._steps // stride + 1
        # what the next origins will be issued, as far as it is known, as a ring: the row of the next one is complete
        rows = (horizon - 1) // stride + 2
        self._ring, self._at = tracker.current.expand(rows, *tracker.current.shape).clone(), 0

    def next(self) -> Tensor:
        """Quantiles ``(H, C, Q)`` for the origin after the last one seen."""
        return self._ring[self._at].clone()

    @torch.no_grad()
    def issue(self, residuals: Tensor, mask: Tensor | None = None) -> Tensor:
        """Quantiles ``(B, H, C, Q)`` issued at the next B origins, given their residuals ``(B, H, C)``.

        The error of step h (from 0) at an origin is used ``h // stride + 1`` origins later, and not before.
        """
        seen, current = observed(residuals, mask).unsqueeze(-1), self._tracker.current
        up, down = self._tracker.moves()
        issued = current.new_empty(len(residuals), *current.shape)
        for origin in range(len(residuals)):
            issued[origin] = self._ring[self._at]
            above = residuals[origin].unsqueeze(-1) > issued[origin]
            current += torch.where(above, up, down) * seen[origin]
            current.copy_(current.sort(dim=-1).values)
            self._ring[(self._at + self._delay) % len(self._ring), self._steps] = current
            self._at = (self._at + 1) % len(self._ring)
        return issued


@torch.no_grad()
def residual_scale(residuals: Tensor, mask: Tensor | None = None) -> Tensor:
    """Robust standard deviation ``(H, C)`` of ``residuals (W, H, C)``: the central 80 %, read as if Gaussian.

    Where more than 80 % are equal, the root mean square about the median; NaN where there is no residual.
    """
    lower, middle, upper = residual_quantiles(residuals, mask, (0.1, 0.5, 0.9)).unbind(dim=-1)
    seen = observed(residuals, mask)
    square = torch.where(seen, (residuals - middle) ** 2, 0.0).sum(dim=0) / seen.sum(dim=0)
    robust = (upper - lower) / 2.5631
    return torch.where(robust > 0, robust, square.sqrt())


@torch.no_grad()
def trajectories(residuals: Tensor, count: int, seed: int, mask: Tensor | None = None) -> Tensor:
    """A random choice of whole residual trajectories, which carry how errors hang together over steps and variates.

    A gap takes the residual of the same step and variate from the chosen origin before (or else after) it, and 0 if
    there is none.

    Args:
        residuals: ``(W, H, C)``.
        count: Trajectories wanted; drawn without replacement where there are as many.
        seed: The same seed gives the same choice.
        mask: True where both actual and forecast exist; by default wherever a number is finite.

    Returns:
        ``(count, H, C)`` in time order.
    """
    generator, windows = torch.Generator().manual_seed(seed), residuals.shape[0]
    drawn = (
        torch.randperm(windows, generator=generator)[:count]
        if count <= windows
        else torch.randint(windows, (count,), generator=generator)
    )
    rows = drawn.sort().values.to(residuals.device)
    picked, seen = residuals[rows], observed(residuals, mask)[rows]
    place = torch.arange(count, device=residuals.device).view(-1, 1, 1)
    before = torch.where(seen, place, -1).cummax(dim=0).values
    after = torch.where(seen, place, count).flip(0).cummin(dim=0).values.flip(0)
    source = torch.where(before >= 0, before, after)
    return torch.where(source < count, picked.gather(0, source.clamp(max=count - 1)), 0.0)


@torch.no_grad()
def sample_paths(point: Tensor, paths: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Sample paths: each forecast plus whole residual trajectories drawn with replacement.

    Quantiles of any function of a path, such as a weekly sum, are right then, which they are not if each step is drawn
    for itself.

    Args:
        point: Forecasts ``(..., H, C)``.
        paths: `trajectories` ``(N, H, C)``.
        count: Paths for each forecast.

    Returns:
        ``(count, ..., H, C)``.
    """
    device = paths.device if generator is None else generator.device
    drawn = torch.randint(paths.shape[0], (count, *point.shape[:-2]), generator=generator, device=device)
    return point + paths[drawn.to(paths.device)]


def _order_statistics(residuals: Tensor, seen: Tensor, levels: Sequence[float]) -> Tensor:
    """Quantiles ``(C, Q)`` of ``residuals (W, C)`` by rank."""
    ordered = torch.where(seen, residuals, torch.inf).sort(dim=0).values.T
    count = seen.sum(dim=0).unsqueeze(-1)
    known = torch.tensor(levels, dtype=torch.float64, device=residuals.device)
    # the allowance keeps 40 times 0.975 at rank 39, whatever way its digits are rounded
    below, above = ((count + 1) * known + 1e-6).floor(), ((count + 1) * known - 1e-6).ceil()
    ranks = (torch.where(known > 0.5, above, below), torch.where(known < 0.5, below, above))
    low, high = (ordered.gather(1, rank.clamp(min=1).minimum(count).long().sub(1).clamp(min=0)) for rank in ranks)
    return torch.where(count > 0, (low + high) / 2, torch.nan)
