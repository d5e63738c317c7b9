"""The table as it stands in the file: typed columns, their parts, and what could not be read as a number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from datasets.errors import ForetideError
from datasets.readers import numbers, stamps
from datasets.readers.options import ReaderOptions

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class RawTable:
    """A table in file order, before any check or repair.

    Args:
        frame: Time stamps ``datetime[ns]`` (UTC when a zone is known), ids as text, all other columns as floats with
            null where missing; the names and the order of the file.
        time, id: Names of those columns; ``id`` is None in wide form.
        variates: Columns to forecast; the one value column in long form.
        source, checksum: Name of the file, sha256 of its uncompressed content.
        first_row: Number of the first row of data in the file, where the header is line 1.
        line_numbers: ``(T,)`` row numbers in the file where they do not simply count up from ``first_row``.
        clock: What became of local time stamps at the changes of the clock.
        non_numeric: Cells of value columns that hold text, by column.
        columns, unused: All columns of the file, and those that have no part in the table.
    """

    frame: "pl.DataFrame"
    time: str
    variates: tuple[str, ...]
    past: tuple[str, ...] = ()
    future: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    id: str | None = None
    source: str = ""
    checksum: str = ""
    first_row: int = 1
    line_numbers: np.ndarray | None = None
    time_zone: str = ""
    frequency: str | None = None
    title: str = ""
    units: Mapping[str, str] = field(default_factory=dict)
    clock: stamps.Clock = field(default_factory=stamps.Clock)
    non_numeric: Mapping[str, numbers.Cells] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    @property
    def covariates(self) -> tuple[str, ...]:
        """Past, future and static covariate columns."""
        return (*self.past, *self.future, *self.static)

    @property
    def value_columns(self) -> tuple[str, ...]:
        """All numeric columns: variates, then covariates."""
        return (*self.variates, *self.covariates)

    def rows(self, positions: np.ndarray | Sequence[int], limit: int = 20) -> list[int]:
        """Row numbers in the file of the first ``limit`` positions in the frame."""
        some = np.asarray(positions[:limit], dtype=np.int64)
        return (some + self.first_row if self.line_numbers is None else self.line_numbers[some]).tolist()

    def place(self, position: int, column: str | None = None) -> str:
        """File, row and column of a cell for a message; of the time stamp by default."""
        return f"{self.source}: row {self.rows([position])[0]}, column {column or self.time!r}"


@dataclass(frozen=True)
class Source:
    """Columns of any type, not yet read, and where they come from."""

    lazy: "pl.LazyFrame"
    name: str
    checksum: str = ""
    first_row: int = 1
    title: str = ""
    units: Mapping[str, str] = field(default_factory=dict)
    blank_lines: bool = False


def assemble(source: Source, options: ReaderOptions) -> RawTable:
    """Reads the columns that have a part, as time stamps, ids and numbers.

    Raises:
        ForetideError: A named column does not exist, no column holds dates, a date cannot be read, or no row is there.
    """
    columns = tuple(source.lazy.collect_schema().names())
    _check_columns(columns, options, source.name)
    time = options.time or _find_time(source, columns, options)
    frame, lines = _collected(source, _wanted(columns, time, options))
    table = RawTable(
        frame,
        time,
        variates=(),
        past=tuple(options.past),
        future=tuple(options.future),
        static=tuple(options.static),
        id=options.id,
        source=source.name,
        checksum=source.checksum,
        first_row=source.first_row,
        line_numbers=lines,
        frequency=options.frequency,
        title=source.title,
        units=source.units,
        columns=columns,
    )
    parsed = stamps.parse(frame[time], options, table.place)
    others = [name for name in frame.columns if name not in (time, options.id)]
    frame, cells, text = numbers.convert(frame, others, options.decimal, _named(options))
    frame = _as_ids(frame, table).with_columns(parsed.alias(time))
    frame, clock = stamps.to_utc(frame, time, options.id, options.time_zone)
    variates = _variates(frame, time, options, text, cells, source.name)
    parts = {time, options.id, *variates, *table.covariates}
    return replace(
        table,
        frame=frame.select([name for name in columns if name in parts]),
        variates=variates,
        time_zone=options.time_zone or stamps.zone_of(parsed),
        clock=clock,
        non_numeric={name: found for name, found in cells.items() if name in parts},
        unused=tuple(name for name in columns if name not in parts),
    )


def listed(names: Sequence[str], limit: int = 30) -> str:
    """Column names for a message, the rest of a long list as a count."""
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _check_columns(columns: Sequence[str], options: ReaderOptions, where: str) -> None:
    for part, names in options.parts.items():
        for name in names:
            if name not in columns:
                raise ForetideError(
                    f"{where}: there is no column {name!r} (reader.{part}); expected one of {listed(columns)}"
                )


def _find_time(source: Source, columns: Sequence[str], options: ReaderOptions) -> str:
    first = source.lazy.head(1000)
    # The parser finds some damage only when it reads on to the end of the file.
    head, _ = _collected(replace(source, lazy=first if first.collect().height else source.lazy), columns)
    for name in columns:
        if name != options.id and stamps.holds_dates(head[name], options.time_format):
            return name
    raise ForetideError(
        f"{source.name}: no column holds dates; name the column of the time stamps with --reader.time, "
        f"one of {listed(columns)}"
    )


def _named(options: ReaderOptions) -> set[str]:
    target = [options.target] if options.target else []
    return {*(options.variates or []), *target, *options.past, *options.future, *options.static}


def _wanted(columns: Sequence[str], time: str, options: ReaderOptions) -> list[str]:
    if options.variates is None and options.target is None:
        return list(columns)
    keep = _named(options) | {time, options.id}
    return [name for name in columns if name in keep]


def _collected(source: Source, columns: Sequence[str]) -> tuple["pl.DataFrame", np.ndarray | None]:
    """Some columns without blank lines, and the numbers of the rows that are left if there were any."""
    import polars as pl

    frame = source.lazy.select(*columns, pl.first().is_null().alias("·blank")).collect()
    lines = None
    if source.blank_lines and frame["·blank"].any():
        whole = source.lazy.select(pl.all_horizontal(pl.all().is_null())).collect().to_series()
        lines = np.flatnonzero(~whole.to_numpy()) + source.first_row
        frame = frame.filter(~whole)
    if frame.height == 0:
        raise ForetideError(
            f"{source.name}: found a header and no row of data; expected at least one row below the header"
        )
    return frame.drop("·blank"), lines


def _as_ids(frame: "pl.DataFrame", table: RawTable) -> "pl.DataFrame":
    import polars as pl

    if table.id is None:
        return frame
    ids = frame[table.id].cast(pl.String).str.strip_chars()
    bad = ids.is_null() | (ids == "").fill_null(True)
    if bad.any():
        raise ForetideError(
            f"{table.place(int(bad.arg_true()[0]), table.id)}: found an empty cell, expected the name of a series; "
            "mend the row"
        )
    return frame.with_columns(ids.alias(table.id))


def _variates(
    frame: "pl.DataFrame",
    time: str,
    options: ReaderOptions,
    text: set[str],
    cells: Mapping[str, numbers.Cells],
    where: str,
) -> tuple[str, ...]:
    if options.variates is not None:
        return tuple(options.variates)
    if options.target is not None:
        return (options.target,)
    taken = {time, options.id, *options.past, *options.future, *options.static}
    free = [name for name in frame.columns if name not in taken and name not in text and name.strip()]
    if not free:
        comma = next((found for found in cells.values() if found.looks_like_comma), None)
        hint = f"; {comma.texts[0]!r} has a decimal comma, which --reader.decimal , reads" if comma else ""
        others = listed([name for name in frame.columns if name not in taken])
        advice = (
            f"name columns with --reader.variates, out of {others}" if others else "expected at least one to forecast"
        )
        raise ForetideError(f"{where}: no column holds numbers; {advice}{hint}")
    if options.id is None or len(free) == 1:
        return tuple(free)
    if "y" in free:
        return ("y",)
    raise ForetideError(
        f"{where}: {len(free)} columns hold numbers; name the value column with --reader.target, one of {listed(free)}"
    )
