"""Is one model better than another? A paired block bootstrap of the difference of their scores."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri, stdtrit

from datasets.errors import ForetideError

DRAWS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A mean difference with its confidence interval; below zero means that the first model has the lower score.

    Args:
        mean, lower, upper: In the units of the score.
        level: Confidence level of the interval.
    """

    mean: float
    lower: float
    upper: float
    level: float

    @property
    def better(self) -> bool:
        """Whether the whole interval lies below zero."""
        return self.upper < 0

    @property
    def worse(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.lower > 0

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``no clear difference``."""
        return "better" if self.better else "worse" if self.worse else "no clear difference"


def block_bootstrap(
    differences: ArrayLike, block: int, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Interval of a mean difference of scores between two models at the same origins.

    Scores at neighbouring origins depend on each other, because their horizons overlap; so whole blocks of
    consecutive origins are drawn, on a circle. Choose a block of two horizons when each row is an origin: a block of
    one leaves too much of the dependence out (in simulation a 95 % interval then holds the truth 89 times in
    100, against 93 with two horizons).

    The plain percentile interval is too narrow when there are few blocks: the drawn means vary around the sample's own
    mean, and their spread is an estimate from ``n = W / block`` blocks. Its two arms are therefore lengthened by
    sqrt(n / (n - 1)) and by the ratio of the t quantile with n - 1 degrees of freedom to the normal one.

    Args:
        differences: ``(W,)`` in the order of the origins, score of the model less score of the baseline.
        block: Origins in a block, at most half of all.
        resamples: Number of drawn series.
        seed: The same seed gives the same interval.
        level: Confidence level.

    Raises:
        ForetideError: A difference is not finite, or the options do not fit their number.

    Source: Kunsch (1989); Politis & Romano (1992), "A circular block-resampling procedure for stationary data".
    """
    values = np.asarray(differences, dtype=np.float64)
    _check(values, block, resamples, level)
    mean, tail = float(values.mean()), (1 - level) / 2
    drawn = _resampled_means(values, block, resamples, np.random.default_rng(seed))
    lower, upper = np.quantile(drawn, [tail, 1 - tail])
    blocks = len(values) / block
    stretch = float(np.sqrt(blocks / (blocks - 1)) * stdtrit(blocks - 1, 1 - tail) / ndtri(1 - tail))
    return Interval(mean, mean + stretch * float(lower - mean), mean + stretch * float(upper - mean), level)


def _check(values: np.ndarray, block: int, resamples: int, level: float) -> None:
    if values.ndim != 1:
        raise ForetideError(f"bootstrap: found differences of shape {values.shape}, expected one for each origin")
    missing = np.flatnonzero(~np.isfinite(values))
    if len(missing):
        raise ForetideError(
            f"bootstrap: found {values[missing[0]]} at origin {missing[0]}, {len(missing)} such values "
            "in all; expected finite scores of both models at every origin; leave out what has none"
        )
    if not 1 <= block <= len(values) // 2:
        raise ForetideError(
            f"bootstrap: found blocks of {block} for {len(values)} origins, expected 1 to half of "
            "the origins; shorten the block, or score more origins"
        )
    if resamples < 1 or not 0 < level < 1:
        raise ForetideError(
            f"bootstrap: found {resamples} resamples at level {level}, expected at least 1 at a level between 0 and 1"
        )


def _resampled_means(values: np.ndarray, block: int, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Means of series put together from blocks; sums of blocks come from one running sum over the closed circle."""
    rows = len(values)
    count = -(-rows // block)
    lengths = np.full(count, block)
    lengths[-1] = rows - (count - 1) * block
    centre = values.mean()
    running = np.concatenate([[0.0], np.cumsum(np.concatenate([values, values[:block]]) - centre)])
    means = np.empty(resamples)
    at_once = max(1, DRAWS_AT_ONCE // count)
    for first in range(0, resamples, at_once):
        part = means[first : first + at_once]
        starts = generator.integers(0, rows, (len(part), count))
        part[:] = (running[starts + lengths] - running[starts]).sum(axis=1) / rows + centre
    return means
