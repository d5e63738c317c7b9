"""Prints one table of all committed benchmark results: what was asked for, and what is met."""

import json
import sys
from collections import Counter
from pathlib import Path

from benchmarks.harness import RESULTS, Record

COLUMNS = ("benchmark", "case", "metric", "value", "unit", "peer", "ratio", "× floor", "target", "verdict")
NUMERIC = ("value", "ratio", "× floor")


def read(path: Path) -> list[Record]:
    """The records of one result file.

    Raises:
        ValueError: The file is not in the common form; the message names it.
    """
    try:
        return [Record(**values) for values in json.loads(path.read_text(encoding="utf-8"))["records"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a result file: {error}") from error


def table(folder: Path = RESULTS) -> str:
    """All results under ``folder`` as aligned text, with the count of each verdict as its last line."""
    results = [(path.stem, record) for path in sorted(folder.glob("*.json")) for record in read(path)]
    if not results:
        return f"no results under {folder}"
    rows = [COLUMNS, *(_row(name, record) for name, record in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(_aligned(*cell) for cell in zip(COLUMNS, row, widths, strict=True)).rstrip() for row in rows]
    count = Counter(record.verdict for _, record in results)
    total = f"{count['met']} met, {count['missed']} missed, {count['no target']} without a target"
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], "", total])


def main() -> int:
    """Prints the table; 2 where a file is not in the common form."""
    try:
        print(table())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _row(name: str, record: Record) -> tuple[str, ...]:
    value = _number(record.value) + (f" ± {_number(record.spread)}" if record.spread is not None else "")
    peer = " ".join(filter(None, (record.peer, _number(record.peer_value))))
    target = f"{record.target_of} {record.target}" if record.target else ""
    return (
        name,
        record.case,
        record.metric,
        value,
        record.unit,
        peer,
        _number(record.ratio),
        _number(record.times_floor),
        target,
        record.verdict,
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _aligned(column: str, text: str, width: int) -> str:
    return text.rjust(width) if column in NUMERIC else text.ljust(width)


if __name__ == "__main__":
    sys.exit(main())
