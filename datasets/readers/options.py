"""What a reader is told about a file."""

from dataclasses import dataclass, field, fields
from typing import Literal

from datasets.errors import ForetideError
from datasets.options import require


@dataclass(frozen=True)
class ReaderOptions:
    """How a table is read. Every field has a default that suits a plain CSV with one column of time stamps.

    Args:
        time: Column of the time stamps; by default the first one that holds dates.
        variates: Columns to forecast; by default every numeric one that has no other part.
        id: Long form: the column that names the series.
        target: Long form: the column of the values; by default ``y``, or the only numeric one.
        past: Covariate columns that are known up to the forecast, such as measurements.
        future: Covariate columns that are known in advance, such as a timetable or a weather forecast.
        static: Covariate columns with one value for each series.
        delimiter: Between the cells of a text file; detected by default.
        decimal: Sign between whole and fraction.
        encoding: Of a text file; a byte order mark is tolerated.
        time_format: Of the time stamps, as strftime writes it ("%d.%m.%Y %H:%M"); detected by default.
        time_zone: IANA name; stamps without an offset are local to it, and become UTC.
        frequency: pandas offset alias; found from the stamps by default.
        start: First time stamp of a file that has neither a header nor stamps; needs ``frequency``.
        units: Unit of each column.
        sentinels: Numbers that stand for a missing value.
        table: SQL: a table, or one SELECT.
        variable: NetCDF and Zarr: the variable to read.
    """

    time: str | None = None
    variates: list[str] | None = None
    id: str | None = None
    target: str | None = None
    past: list[str] = field(default_factory=list)
    future: list[str] = field(default_factory=list)
    static: list[str] = field(default_factory=list)
    delimiter: str | None = None
    decimal: Literal[".", ","] = "."
    encoding: str = "utf-8"
    time_format: str | None = None
    time_zone: str | None = None
    frequency: str | None = None
    start: str | None = None
    units: dict[str, str] | None = None
    sentinels: list[float] = field(default_factory=lambda: [-9999.0])
    table: str | None = None
    variable: str | None = None

    def __post_init__(self) -> None:
        require(self.delimiter is None or len(self.delimiter) == 1, "reader.delimiter", self.delimiter, "one character")
        require(self.decimal in (".", ","), "reader.decimal", self.decimal, "'.' or ','")
        require(
            self.time_format is None or "%" in self.time_format,
            "reader.time_format",
            self.time_format,
            "a format such as '%d.%m.%Y %H:%M'",
        )
        require(
            self.start is None or self.frequency is not None,
            "reader.start",
            self.start,
            "reader.frequency beside it, such as 10min",
        )
        require(
            self.target is None or self.id is not None,
            "reader.target",
            self.target,
            "reader.id beside it; in wide form, name the columns with reader.variates",
        )
        _check_names(self)
        _check_encoding(self.encoding)
        if self.time_zone is not None:
            _check_zone(self.time_zone)
        if self.frequency is not None:
            _check_frequency(self.frequency)

    @property
    def parts(self) -> dict[str, list[str]]:
        """The columns that are named here, by the option that names them."""
        single = {"time": self.time, "id": self.id, "target": self.target}
        made = {part: [name] for part, name in single.items() if name is not None}
        return made | {"variates": self.variates or [], "past": self.past, "future": self.future, "static": self.static}

    def overlaid(self, base: "ReaderOptions") -> "ReaderOptions":
        """These options on top of ``base``: whatever differs from the default here wins."""
        plain = ReaderOptions()
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != getattr(plain, f.name)}
        return ReaderOptions(**({f.name: getattr(base, f.name) for f in fields(base)} | given))


def _check_names(options: ReaderOptions) -> None:
    seen: dict[str, str] = {}
    for part, names in options.parts.items():
        for name in names:
            if part == "variates" and seen.get(name) == "target":
                continue
            require(
                name not in seen, f"reader.{part}", name, f"another column: it is in reader.{seen.get(name)} already"
            )
            seen[name] = part
    if options.variates is not None:
        require(len(options.variates) > 0, "reader.variates", options.variates, "at least one column")
        require(
            options.id is None or len(options.variates) == 1,
            "reader.variates",
            options.variates,
            "one column beside reader.id: the long form has one value column",
        )


def _check_encoding(name: str) -> None:
    try:
        "a".encode(name)
    except LookupError as error:
        raise ForetideError(
            f"reader.encoding: found {name!r}, expected a known encoding such as utf-8 or latin-1"
        ) from error


def _check_zone(name: str) -> None:
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:
        raise ForetideError(f"reader.time_zone: found {name!r}, expected an IANA name such as Europe/Berlin") from error


def _check_frequency(alias: str) -> None:
    from pandas.tseries.frequencies import to_offset

    try:
        to_offset(alias)
    except ValueError as error:
        raise ForetideError(
            f"reader.frequency: found {alias!r}, expected a pandas offset alias such as h, 15min, D, W-TUE or MS"
        ) from error
