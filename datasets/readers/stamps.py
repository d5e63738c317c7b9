"""Text as time stamps, and local time as UTC."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from datasets.errors import ForetideError
from datasets.readers.options import ReaderOptions

if TYPE_CHECKING:
    import polars as pl

Numbering = Callable[[Sequence[int]], list[int]]

NAMES = ("date", "time", "datetime", "timestamp", "ds", "day", "week", "month", "quarter", "year", "hour", "period")
_DAYS = (
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d.%m.%y",
    "%d-%b-%Y",
    "%d %b %Y",
    "%d %B %Y",
    "%b %d, %Y",
    "%B %d, %Y",
)
_TIMES = ("", " %H:%M:%S", " %H:%M", "T%H:%M:%S", "T%H:%M", " %H:%M:%S%.f", "T%H:%M:%S%.f", " %I:%M:%S %p", " %I:%M %p")
_ZONED = tuple(
    f"%Y-%m-%d{mark}{time}{zone}" for time in ("%H:%M:%S%.f", "%H:%M") for mark in "T " for zone in ("%#z", " %z")
)
_DIGITS = ("%Y%m%d", "%Y%m%d%H%M", "%Y%m%d%H%M%S")
# A period names its first day; the pattern decides, the replacements make a date of it.
_PERIODS = {
    r"^\d{4}-\d{1,2}$": ((r"$", "-1"),),
    r"^\d{4}[ -]?[Qq][1-4]$": (
        (r"[ -]?[Qq]1$", "-01-01"),
        (r"[ -]?[Qq]2$", "-04-01"),
        (r"[ -]?[Qq]3$", "-07-01"),
        (r"[ -]?[Qq]4$", "-10-01"),
    ),
    r"^\d{4}-?W\d{2}$": ((r"-?W", "-W"), (r"$", "-1")),
}
_YEARS = r"^[12]\d{3}$"
_EPOCHS = {r"^\d{9,10}$": "s", r"^\d{12,13}$": "ms"}
_SWAPPED = {"%d/%m/%Y": "%m/%d/%Y", "%m/%d/%Y": "%d/%m/%Y", "%d-%m-%Y": "%m-%d-%Y", "%m-%d-%Y": "%d-%m-%Y"}


@dataclass(frozen=True)
class Clock:
    """Positions of local stamps that a change of the clock makes special.

    Args:
        repeated: In the hour that occurs twice in autumn: the first occurrence was taken as summer time.
        skipped: In the hour that does not exist in spring: read with the offset before the change.
        dates: Whether the stamps are whole days or longer, which stay local dates.
    """

    repeated: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    skipped: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    dates: bool = False


def holds_dates(column: "pl.Series", time_format: str | None) -> bool:
    """Whether at least half of a column's cells read as dates; bare digits only under a name such as 'year'."""
    import polars as pl

    if column.dtype.is_temporal():
        return column.dtype in (pl.Date, pl.Datetime)
    digits = column.name.strip().lower() in NAMES
    if column.dtype != pl.String and not (column.dtype.is_integer() and digits):
        return False
    text = _text(column).drop_nulls()
    if len(text) == 0:
        return False
    if time_format is not None:
        return _given(text, time_format).count() * 2 >= len(text)
    if not digits and text.cast(pl.Float64, strict=False).count() * 2 >= len(text):
        return False
    best = _best(text, digits)
    return best is not None and best(text).count() * 2 >= len(text)


def parse(column: "pl.Series", options: ReaderOptions, where: Callable[[int], str]) -> "pl.Series":
    """Time stamps of a column, ``datetime[ns]``: in UTC where the text has an offset, in the column's own zone if any.

    Args:
        where: File, row and column of a position, for the message.

    Raises:
        ForetideError: A cell that is no date, or dates that can be read in two ways.
    """
    import polars as pl

    text = _text(column)
    if column.dtype == pl.Date:
        parsed = column.cast(pl.Datetime("us"))
    elif column.dtype == pl.Datetime:
        parsed = column
    elif options.time_format is not None:
        parsed = _given(text, options.time_format)
    else:
        reading = _best(text, digits=True) or _Reading("%Y-%m-%d")
        parsed = _filled(text, _ordered(text, reading, where))
    _check_all(text, parsed, options, where)
    return parsed.dt.cast_time_unit("ns")


def to_utc(frame: "pl.DataFrame", time: str, group: str | None, zone: str | None) -> tuple["pl.DataFrame", Clock]:
    """Stamps without a zone: UTC where one is known, as given otherwise.

    In the hour that autumn repeats, the first occurrence of a stamp is summer time and the second is winter time.
    Stamps of whole days or longer periods stay local dates: a day of 23 hours is still one step.
    """
    import polars as pl

    column = frame[time]
    if getattr(column.dtype, "time_zone", None):
        local = column.dt.convert_time_zone(zone) if zone else column
        stays = local if _whole_days(local) else column.dt.convert_time_zone("UTC")
        return frame.with_columns(stays.dt.replace_time_zone(None)), Clock(dates=stays is local)
    if zone is None or _whole_days(column):
        return frame, Clock(dates=zone is not None)

    def utc(stamps: pl.Expr, ambiguous: str) -> pl.Expr:
        local = stamps.dt.replace_time_zone(zone, ambiguous=ambiguous, non_existent="null")  # type: ignore[arg-type]
        return local.dt.convert_time_zone("UTC").dt.replace_time_zone(None)

    stamp = pl.col(time)
    both = frame.select(
        first=utc(stamp, "earliest"),
        second=utc(stamp, "latest"),
        before=utc(stamp.dt.offset_by("-1d"), "latest").dt.offset_by("1d"),
        occurrence=pl.int_range(pl.len()).over([time, *([group] if group else [])]),
    )
    repeated = (both["first"] != both["second"]).fill_null(False)
    skipped = both["first"].is_null()
    result = both.select(
        pl.when(pl.col("first").is_null())
        .then("before")
        .when(pl.col("occurrence") > 0)
        .then("second")
        .otherwise("first")
    )
    clock = Clock(repeated.arg_true().to_numpy().astype(np.int64), skipped.arg_true().to_numpy().astype(np.int64))
    return frame.with_columns(result.to_series().alias(time)), clock


def _whole_days(column: "pl.Series") -> bool:
    return len(column) > 1 and column.dt.time().n_unique() == 1


def zone_of(column: "pl.Series") -> str:
    """IANA name of the zone of parsed stamps: UTC for a mere offset, empty where there is none."""
    zone = getattr(column.dtype, "time_zone", None) or ""
    return "UTC" if zone[:1] in ("+", "-") else zone


def _text(column: "pl.Series") -> "pl.Series":
    import polars as pl

    return column.cast(pl.String, strict=False).str.strip_chars()


def _sample(text: "pl.Series") -> "pl.Series":
    some = text.drop_nulls()
    return some.gather_every(max(1, len(some) // 500))


def _read(text: "pl.Series", form: str) -> "pl.Series":
    import polars as pl

    # The parser wants a minute beside an hour, and a day beside a month.
    if ("%H" in form or "%I" in form) and not any(part in form for part in ("%M", "%T", "%R")):
        text, form = text + " 00", f"{form} %M"
    if "%m" in form and not any(part in form for part in ("%d", "%e")):
        text, form = text + " 01", f"{form} %d"
    if any(part in form for part in ("%H", "%I", "%T", "%R", "%s", "%+", "%c")):
        return text.str.to_datetime(form, strict=False, time_unit="us")
    return text.str.to_date(form, strict=False).cast(pl.Datetime("us"))


def _given(text: "pl.Series", form: str) -> "pl.Series":
    import polars as pl

    try:
        return _read(text, form)
    except pl.exceptions.PolarsError as error:
        raise ForetideError(
            f"reader.time_format: found {form!r}, expected a format such as '%d.%m.%Y %H:%M' "
            f"({str(error).splitlines()[0]})"
        ) from error


@dataclass(frozen=True)
class _Reading:
    """One way to read a column: a format, after replacements in cells that match a pattern."""

    form: str
    pattern: str = ""
    replace: tuple[tuple[str, str], ...] = ()
    epoch: str = ""

    @property
    def day(self) -> str:
        """The part of the format that reads the day."""
        return max((day for day in _DAYS if self.form.startswith(day)), key=len, default="")

    def __call__(self, text: "pl.Series") -> "pl.Series":
        import polars as pl

        if self.pattern:
            text = text.set(~text.str.contains(self.pattern).fill_null(False), None)
        if self.epoch:
            numbers = text.cast(pl.Int64, strict=False)
            return (numbers * (10**6 if self.epoch == "s" else 10**3)).cast(pl.Datetime("us"))
        for old, new in self.replace:
            text = text.str.replace(old, new)
        parsed = _read(text, self.form)
        return parsed.set((parsed.dt.year() < 1000).fill_null(False), None)


def _readings(digits: bool) -> list[_Reading]:
    plain = [_Reading(day + time) for day in _DAYS for time in _TIMES]
    periods = [
        _Reading("%G-W%V-%u" if "W" in pattern else "%Y-%m-%d", pattern, replace)
        for pattern, replace in _PERIODS.items()
    ]
    made = [*plain, *(_Reading(form) for form in _ZONED), *periods]
    if digits:
        made += [_Reading(form, rf"^\d{{{length}}}$") for form, length in zip(_DIGITS, (8, 12, 14), strict=True)]
        made += [_Reading("%Y-%m-%d", _YEARS, ((r"$", "-01-01"),))]
        made += [_Reading("", pattern, epoch=unit) for pattern, unit in _EPOCHS.items()]
    return made


def _best(text: "pl.Series", digits: bool) -> _Reading | None:
    """The reading that fits most cells of a sample, or None where no cell fits any."""
    sample = _sample(text)
    best, most = None, 0
    for reading in _readings(digits):
        count = reading(sample).count()
        if count > most:
            best, most = reading, count
        if most == len(sample):
            break
    return best


def _filled(text: "pl.Series", reading: _Reading) -> "pl.Series":
    # Some programs write midnight as a bare date, or leave out seconds that are zero.
    parsed = reading(text)
    if reading.form in _ZONED or reading.pattern:
        return parsed
    for time in _TIMES:
        if parsed.null_count() == 0:
            break
        parsed = parsed.zip_with(parsed.is_not_null(), _Reading(reading.day + time)(text))
    return parsed


def _ordered(text: "pl.Series", reading: _Reading, where: Callable[[int], str]) -> _Reading:
    """The reading itself, or the one with day and month exchanged where that one fits more cells."""
    if reading.day not in _SWAPPED:
        return reading
    other = _Reading(reading.form.replace(reading.day, _SWAPPED[reading.day], 1))
    one, two = _filled(text, reading), _filled(text, other)
    if one.null_count() != two.null_count():
        return reading if one.null_count() < two.null_count() else other
    different = (one != two).fill_null(False)
    if different.any():
        at = int(different.arg_true()[0])
        raise ForetideError(
            f"{where(at)}: {text[at]!r} can be day before month or month before day, and no other row decides it; "
            f"give --reader.time_format '{reading.form}' or '{other.form}'"
        )
    return reading


def _check_all(text: "pl.Series", parsed: "pl.Series", options: ReaderOptions, where: Callable[[int], str]) -> None:
    outside = (parsed.dt.year() < 1678) | (parsed.dt.year() > 2261)
    bad = parsed.is_null() | outside.fill_null(False)
    if not bad.any():
        return
    at = int(bad.arg_true()[0])
    if options.time_format:
        expected = f"a date in the format {options.time_format!r}; mend the cell, or change --reader.time_format"
    elif bad.all():
        expected = (
            "a date; name the column of the time stamps with --reader.time, or its format with --reader.time_format"
        )
    else:
        expected = "a date; mend the cell or remove the row"
    found = "an empty cell" if text[at] is None or text[at] == "" else repr(text[at])
    raise ForetideError(f"{where(at)}: found {found}, expected {expected}")
