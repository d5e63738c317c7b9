"""Regular grids of time: found from stamps that may have gaps, and numbered."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from datasets.errors import ForetideError

_DAY = 86_400_000_000
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


@dataclass(frozen=True)
class Grid:
    """Stamps at equal steps: of a fixed length, of whole months, or of working days.

    Args:
        frequency: pandas offset alias.
        unit: What a step is made of.
        step: Length of a step in that unit.
        end: Months: whether stamps are at the last day, not the first.
    """

    frequency: str
    unit: Literal["microsecond", "month", "workday"]
    step: int = 1
    end: bool = False

    def ordinals(self, times: np.ndarray, anchor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of stamps on the grid through ``anchor``, and whether a stamp is off that grid.

        Args:
            times, anchor: ``(N,)`` datetime64[us]; the anchor of each stamp is on its series' grid.
        """
        if self.unit == "microsecond":
            distance = (times - anchor).astype(np.int64)
            return distance // self.step, distance % self.step != 0
        clock = _clock(times) != _clock(anchor)
        if self.unit == "workday":
            days = times.astype("datetime64[D]")
            return np.busday_count(anchor.astype("datetime64[D]"), days), clock | ~np.is_busday(days)
        distance = times.astype("datetime64[M]").astype(np.int64) - anchor.astype("datetime64[M]").astype(np.int64)
        return distance // self.step, clock | (distance % self.step != 0) | (self._day(times) != self._day(anchor))

    def stamps(self, ordinals: np.ndarray, anchor: np.ndarray) -> np.ndarray:
        """The stamps with these numbers, ``datetime64[us]``: months at their first or last day."""
        if self.unit == "microsecond":
            return anchor + (ordinals * self.step).astype("timedelta64[us]")
        if self.unit == "workday":
            return np.busday_offset(anchor.astype("datetime64[D]"), ordinals).astype("datetime64[us]") + _clock(anchor)
        months = anchor.astype("datetime64[M]") + (ordinals * self.step + int(self.end)).astype("timedelta64[M]")
        return (months.astype("datetime64[D]") - int(self.end)).astype("datetime64[us]") + _clock(anchor)

    def text(self, steps: int) -> str:
        """A number of steps as an alias: '30min', '2MS'."""
        if self.unit == "microsecond":
            return _alias(np.timedelta64(self.step * steps, "us"))
        return f"{steps} × {self.frequency}"

    def _day(self, times: np.ndarray) -> np.ndarray:
        days = times.astype("datetime64[D]")
        month = times.astype("datetime64[M]") + int(self.end)
        return (days - month.astype("datetime64[D]")).astype(np.int64)


def from_alias(alias: str, first: np.datetime64) -> Grid:
    """The grid of a pandas offset alias through a first stamp, whose weekday or month overrides that of the alias.

    Raises:
        ForetideError: An alias without equal steps, such as business hours.
    """
    import pandas as pd

    offset = pd.tseries.frequencies.to_offset(alias)
    kind = offset.rule_code.split("-")[0]
    if kind in ("MS", "ME", "QS", "QE", "YS", "YE"):
        step, end = {"M": 1, "Q": 3, "Y": 12}[kind[0]] * offset.n, kind[1] == "E"
        month = int(first.astype("datetime64[M]").astype(np.int64)) % 12
        return Grid(_monthly_alias(step, month, end), "month", step, end)
    if kind == "B" and offset.n == 1:
        return Grid("B", "workday")
    try:
        step = 7 * _DAY * offset.n if kind == "W" else pd.Timedelta(offset).value // 1000
        return Grid(_alias(np.timedelta64(step, "us")), "microsecond", step)
    except ValueError as error:
        raise ForetideError(
            f"reader.frequency: found {alias!r}, expected equal steps such as h, 15min, D, B, W-TUE, MS, QS or YS"
        ) from error


def infer(times: np.ndarray, first: np.ndarray) -> Grid | None:
    """The grid on which most stamps lie, or None where no step prevails.

    Args:
        times: ``(N,)`` datetime64[us], rising and unique within each series.
        first: ``(N,)`` whether a stamp is the first of its series.
    """
    steps = np.diff(times).astype(np.int64)[~first[1:]]
    if len(steps) == 0:
        return None
    calendar = _monthly(times, first) if steps.min() >= 28 * _DAY else None
    if calendar is not None:
        return calendar
    lengths, counts = np.unique(steps, return_counts=True)
    step = int(lengths[counts.argmax()])
    if step == _DAY and _only_workdays(times, steps):
        return Grid("B", "workday")
    if counts.max() * 2 < len(steps):
        if (lengths % lengths[0]).any():
            return None
        step = int(lengths[0])
    return Grid(_alias(np.timedelta64(step, "us")), "microsecond", step)


def anchors(grid: Grid, times: np.ndarray, first: np.ndarray) -> np.ndarray:
    """For each stamp, the stamp through which the grid of its series goes.

    It is the first one; in a single series the first of the phase that most stamps share, so that a stray first row
    does not push all others off the grid.
    """
    if first.sum() == 1 and grid.unit == "microsecond":
        phases, inverse, counts = np.unique(times.astype(np.int64) % grid.step, return_inverse=True, return_counts=True)
        chosen = times[int(np.argmax(inverse == counts.argmax()))]
        return np.full(len(times), chosen) if len(phases) > 1 else np.full(len(times), times[0])
    return times[first][np.cumsum(first) - 1]


def _monthly(times: np.ndarray, first: np.ndarray) -> Grid | None:
    days = times.astype("datetime64[D]")
    months = times.astype("datetime64[M]")
    start = bool((days == months.astype("datetime64[D]")).all())
    end = bool((days + 1 == (months + 1).astype("datetime64[D]")).all())
    if not (start or end) or len(np.unique(_clock(times))) > 1:
        return None
    lengths, counts = np.unique(np.diff(months.astype(np.int64))[~first[1:]], return_counts=True)
    step, month = int(lengths[counts.argmax()]), int(months[0].astype(np.int64)) % 12
    return Grid(_monthly_alias(step, month, end), "month", step, end)


def _monthly_alias(step: int, month: int, end: bool) -> str:
    letter = "E" if end else "S"
    if step == 3:
        usual = month % 3 == (2 if end else 0)
        return f"Q{letter}" if usual else f"Q{letter}-{_MONTHS[month % 3]}"
    if step == 12:
        usual = month == (11 if end else 0)
        return f"Y{letter}" if usual else f"Y{letter}-{_MONTHS[month]}"
    return f"M{letter}" if step == 1 else f"{step}M{letter}"


def _only_workdays(times: np.ndarray, steps: np.ndarray) -> bool:
    return bool(
        (steps == 3 * _DAY).any()
        and np.is_busday(times.astype("datetime64[D]")).all()
        and len(np.unique(_clock(times))) == 1
    )


def _alias(step: np.timedelta64) -> str:
    from datasets.schema import frequency_of

    return frequency_of(step)


def _clock(times: np.ndarray) -> np.ndarray:
    return times - times.astype("datetime64[D]")
