"""The paired block bootstrap: its coverage in simulation, its limits, and what it refuses."""

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from datasets.errors import ForetideError
from forecasting import bootstrap
from forecasting.bootstrap import Interval, block_bootstrap


def autoregressive(series: int, rows: int, memory: float) -> np.ndarray:
    """Stationary AR(1) series with mean 0, ``(series, rows)``."""
    noise = np.random.default_rng(0).standard_normal((series, rows + 300))
    return np.asarray(lfilter([1.0], [1.0, -memory], noise, axis=1))[:, 300:]


@pytest.mark.parametrize(("memory", "rows", "block"), [(0.9, 1000, 50), (0.5, 300, 15)])
def test_interval_holds_the_mean_of_an_autoregressive_series(memory: float, rows: int, block: int) -> None:
    made = (block_bootstrap(differences, block, resamples=500) for differences in autoregressive(400, rows, memory))
    held = np.mean([interval.lower <= 0 <= interval.upper for interval in made])
    # three standard errors of a share of 0.95 among 400 are 0.033; a little more is the bias of a finite block
    assert 0.90 <= held <= 0.985


def test_blocks_of_one_are_far_too_narrow_for_a_dependent_series() -> None:
    made = (block_bootstrap(differences, 1, resamples=200) for differences in autoregressive(100, 500, 0.9))
    assert np.mean([interval.lower <= 0 <= interval.upper for interval in made]) < 0.6


@pytest.mark.parametrize("rows", [8, 60])
def test_interval_of_independent_differences_is_that_of_the_t_test(rows: int) -> None:
    differences = np.linspace(-1, 1, rows) + 0.2
    found = block_bootstrap(differences, 1, resamples=100000)
    expected = stats.t.interval(0.95, rows - 1, differences.mean(), stats.sem(differences))
    assert (found.lower, found.upper) == pytest.approx(expected, abs=0.02 * (expected[1] - expected[0]))


def test_mean_is_exact_and_the_seed_fixes_the_interval() -> None:
    differences = np.random.default_rng(2).standard_normal(200)
    first = block_bootstrap(differences, 10, seed=3)
    assert first.mean == pytest.approx(differences.mean(), abs=1e-15)
    assert first == block_bootstrap(differences.tolist(), 10, seed=3)
    assert first != block_bootstrap(differences, 10, seed=4)


def test_interval_moves_and_stretches_with_the_differences() -> None:
    differences = np.random.default_rng(3).standard_normal(101)
    first, second = block_bootstrap(differences, 7), block_bootstrap(5 * differences - 2, 7)
    assert (second.mean, second.lower, second.upper) == pytest.approx(
        tuple(5 * value - 2 for value in (first.mean, first.lower, first.upper))
    )


def test_a_higher_level_gives_a_wider_interval() -> None:
    differences = np.random.default_rng(4).standard_normal(300)
    narrow, wide = block_bootstrap(differences, 12, level=0.8), block_bootstrap(differences, 12, level=0.95)
    assert wide.lower < narrow.lower < narrow.mean < narrow.upper < wide.upper


def test_result_does_not_depend_on_how_many_draws_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(5).standard_normal(150)
    whole = block_bootstrap(differences, 4, resamples=100)
    monkeypatch.setattr(bootstrap, "DRAWS_AT_ONCE", 500)
    assert block_bootstrap(differences, 4, resamples=100) == whole


@pytest.mark.parametrize("shift", [-1.0, 1.0, 0.0])
def test_verdict(shift: float) -> None:
    found = block_bootstrap(0.1 * np.sin(np.arange(400)) + shift, 20)
    assert found.verdict == {-1.0: "better", 1.0: "worse", 0.0: "no clear difference"}[shift]
    assert (found.better, found.worse) == (shift < 0, shift > 0)


def test_an_interval_that_touches_zero_is_no_clear_difference() -> None:
    assert Interval(-1.0, -2.0, 0.0, 0.95).verdict == "no clear difference"


def test_equal_differences_have_no_spread() -> None:
    found = block_bootstrap(np.full(50, 0.3), 5)
    assert (found.lower, found.upper) == pytest.approx((0.3, 0.3))


@pytest.mark.parametrize(
    ("differences", "options", "message"),
    [
        ([1.0, np.nan, np.inf, 2.0], {"block": 1}, "found nan at origin 1, 2 such values"),
        ([1.0, 2.0, 3.0, 4.0], {"block": 3}, "found blocks of 3 for 4 origins, expected 1 to half"),
        ([1.0, 2.0, 3.0, 4.0], {"block": 0}, "found blocks of 0"),
        ([1.0, 2.0], {"block": 1, "level": 1.0}, "found 2000 resamples at level 1.0"),
        ([[1.0, 2.0]], {"block": 1}, "found differences of shape"),
        ([], {"block": 1}, "found blocks of 1 for 0 origins"),
    ],
)
def test_what_is_refused(differences: list[float], options: dict[str, float], message: str) -> None:
    with pytest.raises(ForetideError, match=message) as caught:
        block_bootstrap(differences, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
