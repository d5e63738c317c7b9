"""What a check of a table found, for people and for programs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from datasets.errors import ForetideError
from datasets.options import require

Kind = Literal[
    "non_numeric",
    "unsorted",
    "duplicate",
    "mixed_frequency",
    "gap",
    "sentinel",
    "infinite",
    "missing",
    "empty",
    "daylight_saving",
    "constant",
    "outlier",
]
BLOCKING: frozenset[Kind] = frozenset(
    ("non_numeric", "unsorted", "duplicate", "mixed_frequency", "gap", "sentinel", "infinite", "missing", "empty")
)
_REMEDIES: dict[Kind, str] = {
    "non_numeric": "mend the cell, or choose --quality.policy mask or interpolate",
    "unsorted": "sort the file, or choose --quality.policy mask, interpolate or drop",
    "duplicate": "mend the file, or choose --quality.policy mask, interpolate or drop, which keep the first row",
    "mixed_frequency": "resample the file to one step, or give --reader.frequency",
    "gap": "add the rows, or choose --quality.policy mask or interpolate",
    "sentinel": "mend the cells, or choose --quality.policy mask or interpolate",
    "infinite": "mend the cells, or choose --quality.policy mask or interpolate",
    "missing": "fill the cells, or choose --quality.policy mask or interpolate",
    "empty": "leave the column out with --reader.variates, or choose --quality.policy drop",
}


@dataclass(frozen=True)
class QualityOptions:
    """What is done about problems in the data.

    Args:
        policy: ``error`` refuses them; ``mask`` makes them missing values on a regular grid; ``interpolate`` also fills
            these linearly in time; ``drop`` leaves out incomplete rows at both ends and empty columns, or in long form
            whole series.
        max_gap: Longest run of missing rows that ``interpolate`` fills; by default any.
        outlier_limit: Robust z-score from which a value is reported as an outlier: its distance from the median, over
            the larger of the scaled median absolute deviation and the scaled range between the 5 and 95 % quantiles.
            Outliers are never changed.
    """

    policy: Literal["error", "mask", "interpolate", "drop"] = "error"
    max_gap: int | None = None
    outlier_limit: float = 10.0

    def __post_init__(self) -> None:
        require(
            self.policy in ("error", "mask", "interpolate", "drop"),
            "quality.policy",
            self.policy,
            "error, mask, interpolate or drop",
        )
        require(
            self.max_gap is None or self.max_gap >= 1, "quality.max_gap", self.max_gap, "a number of rows, at least 1"
        )
        require(self.outlier_limit > 0, "quality.outlier_limit", self.outlier_limit, "a positive number")


@dataclass(frozen=True)
class Finding:
    """One kind of problem in one column.

    Args:
        rows: The first 20 row numbers in the file, where the header is line 1.
        count: Cells or rows concerned; missing rows for a gap, series for what concerns whole series.
        detail: One phrase for people, about the first case.
        blocking: Whether the policy ``error`` refuses it.
    """

    kind: Kind
    column: str | None
    rows: list[int]
    count: int
    detail: str

    @property
    def blocking(self) -> bool:
        """Whether the policy ``error`` refuses it."""
        return self.kind in BLOCKING


@dataclass(frozen=True)
class QualityReport:
    """A table in numbers, and everything that is wrong with it.

    Args:
        rows, series, variates: Rows in the file, series in them, columns to forecast.
        first, last: First and last time stamp, ISO; UTC where a zone is known.
        frequency: pandas offset alias of the prevailing step; empty where there is none.
        sentinels: Numbers that were taken for missing values.
        unused: Columns of the file that have no part.
    """

    source: str
    rows: int
    series: int
    variates: tuple[str, ...]
    first: str
    last: str
    frequency: str
    time_zone: str = ""
    sentinels: tuple[float, ...] = ()
    unused: tuple[str, ...] = ()
    findings: list[Finding] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether the policy ``error`` lets the table through."""
        return not any(finding.blocking for finding in self.findings)

    def refuse(self) -> None:
        """Raises a ForetideError about the first finding that blocks, if there is one."""
        found = next((finding for finding in self.findings if finding.blocking), None)
        if found is None:
            return
        row = f"row {found.rows[0]}, " if found.rows else ""
        column = f"column {found.column!r}: " if found.column else ""
        many = f" ({found.count:,} in all)" if found.count > 1 and found.kind != "gap" else ""
        more = sum(finding.blocking for finding in self.findings) - 1
        others = (
            f"; {more} more finding{'s block' if more > 1 else ' blocks'}, see 'foretide data check'" if more else ""
        )
        raise ForetideError(f"{self.source}: {row}{column}{found.detail}{many}; {_REMEDIES[found.kind]}{others}")

    def to_dict(self) -> dict[str, Any]:
        """Everything as literals, lists and mappings, ready for JSON."""
        findings = [
            {
                "kind": f.kind,
                "column": f.column,
                "rows": f.rows,
                "count": f.count,
                "detail": f.detail,
                "blocking": f.blocking,
            }
            for f in self.findings
        ]
        return {
            "source": self.source,
            "rows": self.rows,
            "series": self.series,
            "variates": list(self.variates),
            "first": self.first,
            "last": self.last,
            "frequency": self.frequency,
            "time_zone": self.time_zone,
            "sentinels": list(self.sentinels),
            "unused": list(self.unused),
            "clean": self.clean,
            "findings": findings,
        }

    def to_json(self) -> str:
        """The report as indented JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def to_text(self) -> str:
        """The report for a terminal, in aligned columns."""
        facts = [
            ("rows", f"{self.rows:,}"),
            ("series", f"{self.series:,}" if self.series > 1 else ""),
            ("variates", f"{len(self.variates):,}  ({_shortened(self.variates)})"),
            ("first", self.first),
            ("last", self.last),
            ("time zone", f"{self.time_zone}, stamps in UTC" if self.time_zone else ""),
            ("frequency", self.frequency or "none: no regular step"),
            ("not used", ", ".join(name or "(no name)" for name in self.unused)),
        ]
        lines = [self.source, *(f"  {name:<11}{value}" for name, value in facts if value), ""]
        return "\n".join([*lines, *self._table(), self._verdict()])

    def _table(self) -> list[str]:
        if not self.findings:
            return []
        cells = [("finding", "column", "count", "stops", "rows", "detail")]
        cells += [
            (f.kind, f.column or "", f"{f.count:,}", "yes" if f.blocking else "no", ranges(f.rows, f.count), f.detail)
            for f in self.findings
        ]
        widths = [max(len(row[at]) for row in cells) for at in range(5)]
        lines = [
            "  "
            + "  ".join(
                [
                    row[0].ljust(widths[0]),
                    row[1].ljust(widths[1]),
                    row[2].rjust(widths[2]),
                    row[3].ljust(widths[3]),
                    row[4].ljust(widths[4]),
                    row[5],
                ]
            )
            for row in cells
        ]
        return [lines[0].rstrip(), "  " + "-" * (min(120, max(map(len, lines))) - 2), *lines[1:], ""]

    def _verdict(self) -> str:
        blocking = sum(finding.blocking for finding in self.findings)
        if blocking:
            number = f"{blocking} finding{'s' * (blocking > 1)}"
            return f"{number} must be mended, in the file or by --quality.policy mask, interpolate or drop."
        return (
            "Nothing stops a training on this table."
            if self.findings
            else "Nothing to report: a regular grid, and every cell is a number."
        )


def ranges(rows: Sequence[int], count: int, limit: int = 3) -> str:
    """Row numbers as short text: '7, 12-19, 31 …'."""
    parts: list[list[int]] = []
    for row in rows:
        if parts and row == parts[-1][1] + 1:
            parts[-1][1] = row
        else:
            parts.append([row, row])
    text = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts[:limit])
    return f"{text} …" if len(parts) > limit or count > len(rows) > 0 else text


def _shortened(names: Sequence[str], limit: int = 4) -> str:
    return ", ".join(names) if len(names) <= limit else f"{', '.join(names[: limit - 1])} … {names[-1]}"
