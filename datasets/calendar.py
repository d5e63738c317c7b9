"""Calendar features of time stamps, and holidays.

The features are the "timeF" marks of the published benchmarks, which took them from GluonTS: each is a position in
its cycle, scaled to [-0.5, 0.5]. Which ones there are depends on the frequency.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from datasets.errors import ForetideError

_WITHIN_DAY = ("hour", "weekday", "day", "yearday")
_BY_UNIT: dict[str, tuple[str, ...]] = {
    "s": ("second", "minute", *_WITHIN_DAY),
    "min": ("minute", *_WITHIN_DAY),
    "h": _WITHIN_DAY,
    "D": ("weekday", "day", "yearday"),
    "B": ("weekday", "day", "yearday"),
    "W": ("day", "week"),
    "M": ("month",),
    "Q": ("month",),
    "Y": (),
}
_COARSER = {
    "ns": (10**9, "s"),
    "us": (10**6, "s"),
    "ms": (1000, "s"),
    "s": (60, "min"),
    "min": (60, "h"),
    "h": (24, "D"),
    "D": (7, "W"),
}
_SPELLINGS = {"ME": "M", "MS": "M", "QE": "Q", "QS": "Q", "YE": "Y", "YS": "Y"}


def features(
    times: np.ndarray, frequency: str, names: Sequence[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Calendar features of time stamps.

    Args:
        times: ``(T,)`` datetime64.
        frequency: pandas offset alias; decides which features there are, as in the published code.
        names: Features to compute instead, out of ``second``, ``minute``, ``hour``, ``weekday``, ``day``, ``yearday``,
            ``week`` and ``month``.

    Returns:
        Features ``(T, F)`` float32, each in [-0.5, 0.5], and their ``F`` names; yearly data have none.

    Raises:
        ForetideError: Unknown frequency or name.
    """
    chosen = feature_names(frequency) if names is None else tuple(names)
    unknown = [name for name in chosen if name not in _POSITIONS]
    if unknown:
        raise ForetideError(f"calendar feature: found {unknown[0]!r}, expected one of {', '.join(_POSITIONS)}")
    stamps = np.asarray(times)
    marks = np.empty((len(stamps), len(chosen)), dtype=np.float32)
    for column, name in enumerate(chosen):
        position, last = _POSITIONS[name]
        marks[:, column] = position(stamps) / last - 0.5
    return marks, chosen


def feature_names(frequency: str) -> tuple[str, ...]:
    """The features that belong to a frequency: those of the largest unit that divides its step ('60min' is hourly)."""
    match = re.fullmatch(r"(\d*)([A-Za-z]+)(-[A-Za-z]{3})?", frequency)
    unit = _SPELLINGS.get(match[2], match[2]) if match else ""
    if match is None or (unit not in _BY_UNIT and unit not in _COARSER):
        raise ForetideError(f"frequency: found {frequency!r}, expected a pandas alias such as h, 15min, D, W or MS")
    count = int(match[1] or 1)
    while unit in _COARSER and (count % _COARSER[unit][0] == 0 or unit not in _BY_UNIT):
        count, unit = max(1, count // _COARSER[unit][0]), _COARSER[unit][1]
    return _BY_UNIT[unit]


def holiday_feature(times: np.ndarray, country: str, subdivision: str | None = None, time_zone: str = "") -> np.ndarray:
    """1 on public holidays, 0 elsewhere, by the calendars of the library ``holidays``.

    On the Holiday column of vic_elec (Victoria, 2012 to 2014) it agrees on 1093 of 1096 days: all 31 holidays of the
    file are found, and Easter Saturday, which the file leaves out, is added in each of the three years.

    Args:
        times: ``(T,)`` datetime64; UTC where ``time_zone`` is given, local time as it stands otherwise.
        country: ISO 3166 code, such as ``AU``.
        subdivision: State or province, such as ``VIC``.
        time_zone: IANA name; holidays follow the local day.

    Returns:
        ``(T,)`` float32.

    Raises:
        ForetideError: The library is missing, or the country, subdivision or time zone is unknown.
    """
    days = _local_days(np.asarray(times), time_zone)
    if not len(days):
        return np.zeros(0, dtype=np.float32)
    first, last = (int(day.astype("datetime64[Y]").astype(int)) + 1970 for day in (days.min(), days.max()))
    known = _holidays(country, subdivision, range(first, last + 1))
    return np.isin(days, known).astype(np.float32)


def _holidays(country: str, subdivision: str | None, years: range) -> np.ndarray:
    try:
        import holidays
    except ImportError as error:
        raise ForetideError("holidays: the library is not installed; run: pip install holidays") from error
    try:
        days = holidays.country_holidays(country, subdiv=subdivision, years=years)
    except NotImplementedError as error:
        known = holidays.list_supported_countries()
        found = f"subdivision {subdivision!r} of {country}" if country in known else f"country {country!r}"
        choices = ", ".join(sorted(known.get(country, known))) or "none (this country has no subdivisions)"
        raise ForetideError(f"holidays: found {found}, expected one of {choices}") from error
    return np.array(sorted(days), dtype="datetime64[D]")


def _local_days(times: np.ndarray, time_zone: str) -> np.ndarray:
    if not time_zone:
        return times.astype("datetime64[D]")
    import pandas as pd

    try:
        local = pd.DatetimeIndex(times).tz_localize("UTC").tz_convert(time_zone).tz_localize(None)
    except (KeyError, ValueError) as error:
        raise ForetideError(f"time zone: found {time_zone!r}, expected an IANA name such as Europe/Berlin") from error
    return local.to_numpy().astype("datetime64[D]")


def _since(times: np.ndarray, unit: str, start: str) -> np.ndarray:
    """Whole units of each stamp since the start of the larger unit that holds it."""
    fine = f"datetime64[{unit}]"
    return (times.astype(fine) - times.astype(f"datetime64[{start}]").astype(fine)).astype(np.int64)


def _weekday(times: np.ndarray) -> np.ndarray:
    return (times.astype("datetime64[D]").astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday


def _iso_week(times: np.ndarray) -> np.ndarray:
    days = times.astype("datetime64[D]")
    thursdays = days + (3 - _weekday(times))  # the Thursday of a week lies in the year that the week belongs to
    return _since(thursdays, "D", "Y") // 7


# Position from 0, and the divisor of the published code, which is not always the last position (a year of 365 days).
_POSITIONS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    "second": (lambda times: _since(times, "s", "m"), 59),
    "minute": (lambda times: _since(times, "m", "h"), 59),
    "hour": (lambda times: _since(times, "h", "D"), 23),
    "weekday": (_weekday, 6),
    "day": (lambda times: _since(times, "D", "M"), 30),
    "yearday": (lambda times: _since(times, "D", "Y"), 365),
    "week": (_iso_week, 52),
    "month": (lambda times: _since(times, "M", "Y"), 11),
}
