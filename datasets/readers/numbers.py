"""Text cells as numbers, column by column."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import polars as pl

MISSING = ("", "na", "n/a", "#n/a", "#na", "nan", "null", "none", "-", "--", ".", "?")
_COMMA = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+),\d+")


@dataclass(frozen=True)
class Cells:
    """Cells of one column that are neither numbers nor missing: their positions in the frame, and the first texts."""

    positions: np.ndarray
    texts: tuple[str, ...]

    @property
    def looks_like_comma(self) -> bool:
        """Whether the text is a number with a decimal comma."""
        return _COMMA.fullmatch(self.texts[0]) is not None


def convert(
    frame: "pl.DataFrame", columns: Sequence[str], decimal: str, named: set[str]
) -> tuple["pl.DataFrame", dict[str, Cells], set[str]]:
    """Makes columns numeric where they are.

    A column counts as text when fewer than half of its cells are numbers and nobody named it; it is left as it is.

    Args:
        named: Columns that the user asked for: they are numbers or in error. Only there do true and false count as 1
            and 0.

    Returns:
        The frame, the cells that hold text in numeric columns (of text columns, too), and the names of text columns.
    """
    import polars as pl

    made, cells, text = [], {}, set()
    quick = _parsed(frame, [c for c in columns if frame.schema[c] == pl.String]) if decimal == "." else {}
    for name in columns:
        column = frame[name]
        if column.dtype == pl.String:
            clean, cells_of = (quick[name], None) if name in quick else _careful(column, decimal, name in named)
        else:
            clean, cells_of = _plain(column, name in named)
        if cells_of is not None:
            cells[name] = cells_of
            if name not in named and len(cells_of.positions) > clean.count():
                text.add(name)
                continue
        made.append(clean.fill_nan(None).alias(name))
    return frame.with_columns(made), cells, text


def _parsed(frame: "pl.DataFrame", columns: Sequence[str]) -> dict[str, "pl.Series"]:
    # Nearly every column of nearly every file: each cell is a number or empty, and one pass is enough.
    import polars as pl

    numbers = frame.select(pl.col(columns).cast(pl.Float64, strict=False))
    return {name: numbers[name] for name in columns if numbers[name].null_count() == frame[name].null_count()}


def _careful(column: "pl.Series", decimal: str, named: bool) -> tuple["pl.Series", Cells | None]:
    import polars as pl

    stripped = column.str.strip_chars()
    cells = stripped.set(stripped.str.to_lowercase().is_in(MISSING).fill_null(True), None)
    if decimal == ",":
        ambiguous = cells.str.contains(".", literal=True).fill_null(False)
        numbers = cells.str.replace(",", ".", literal=True).set(ambiguous, None).cast(pl.Float64, strict=False)
    else:
        numbers = cells.cast(pl.Float64, strict=False)
    bad = cells.is_not_null() & numbers.is_null()
    if not bad.any():
        return numbers, None
    if named and cells.drop_nulls().str.to_lowercase().is_in(["true", "false"]).all():
        return cells.str.to_lowercase().replace_strict(
            {"true": 1.0, "false": 0.0}, default=None, return_dtype=pl.Float64
        ), None
    return numbers, Cells(bad.arg_true().to_numpy(), tuple(column.filter(bad).head(20).to_list()))


def _plain(column: "pl.Series", named: bool) -> tuple["pl.Series", Cells | None]:
    import polars as pl

    if column.dtype.is_numeric() or column.dtype == pl.Null or (named and column.dtype == pl.Boolean):
        return column.cast(pl.Float64), None
    texts = [str(value) for value in column.drop_nulls().head(20).to_list()]
    return pl.Series(column.name, [None] * len(column), dtype=pl.Float64), Cells(
        column.is_not_null().arg_true().to_numpy(), tuple(texts)
    )
