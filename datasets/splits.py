"""Chronological splits of rows into training, validation and test.

A split names rows of *targets*. A window belongs to a part when its whole horizon lies in that part; in
validation and test its lookback may reach back over the border (`overlap`), because those values are known
when the forecast is made. No window is ever dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from datasets.errors import ForetideError
from datasets.options import require

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Borders:
    """Half-open row ranges of the three parts of one series.

    Args:
        train, validation, test: ``(first, end)`` rows of the targets; ``end`` is exclusive.
        overlap: Whether the lookback of a validation or test window may use rows before its part.
    """

    train: tuple[int, int]
    validation: tuple[int, int]
    test: tuple[int, int]
    overlap: bool = True

    def rows(self, part: Part, lookback: int) -> tuple[int, int]:
        """Rows ``(first, end)`` that the windows of a part may touch, the lookback before a border included."""
        first, end = getattr(self, part)
        reach = lookback if self.overlap and part != "train" else 0
        return max(0, first - reach), end


@dataclass(frozen=True)
class Split:
    """Parts by counts of rows from the start, as the ETT benchmarks fix them; later rows are unused."""

    train: int
    validation: int
    test: int
    overlap: bool = True

    def borders(self, rows: int) -> Borders:
        """The row ranges in a series of ``rows`` rows."""
        ends = np.cumsum([self.train, self.validation, self.test])
        if ends[-1] > rows:
            raise ForetideError(
                f"split: {self.train} + {self.validation} + {self.test} rows are asked for, "
                f"the series has {rows}; choose a ratio split, or another file"
            )
        return Borders((0, int(ends[0])), (int(ends[0]), int(ends[1])), (int(ends[1]), int(ends[2])), self.overlap)


@dataclass(frozen=True)
class Ratio:
    """Parts by shares of the rows.

    Args:
        rounding: ``rest`` rounds train and test down and gives validation the rest (Autoformer and later);
            ``parts`` rounds validation down too and leaves the rows before test unused (Solar-Energy);
            ``edges`` rounds the two borders down (PEMS).
    """

    train: float = 0.7
    validation: float = 0.1
    test: float = 0.2
    overlap: bool = True
    rounding: Literal["rest", "parts", "edges"] = "rest"

    def __post_init__(self) -> None:
        total = self.train + self.validation + self.test
        require(
            min(self.train, self.test) > 0 and self.validation >= 0,
            "split",
            (self.train, self.validation, self.test),
            "positive shares of train and test",
        )
        require(abs(total - 1.0) < 1e-9, "split", total, "shares that add up to 1")

    def borders(self, rows: int) -> Borders:
        """The row ranges in a series of ``rows`` rows; the test part always ends at the last row."""
        train = int(rows * self.train)
        start = int(rows * (self.train + self.validation)) if self.rounding == "edges" else rows - int(rows * self.test)
        validation_end = train + int(rows * self.validation) if self.rounding == "parts" else start
        return Borders((0, train), (train, validation_end), (start, rows), self.overlap)


def by_dates(times: np.ndarray, validation: str, test: str, end: str | None = None) -> Borders:
    """Parts by the dates at which validation and test begin.

    Args:
        times: Time stamps ``(T,)`` in ascending order.
        validation, test, end: ISO dates; ``end`` is exclusive and defaults to the end of the series.
    """
    stamps = times.astype("datetime64[ns]")
    marks = [_date(text, name) for text, name in ((validation, "validation"), (test, "test"))]
    first, second = (int(np.searchsorted(stamps, mark)) for mark in marks)
    last = len(stamps) if end is None else int(np.searchsorted(stamps, _date(end, "end")))
    if not 0 < first < second < last:
        raise ForetideError(
            f"split: validation from {validation} and test from {test} leave a part empty in a series "
            f"from {stamps[0]} to {stamps[-1]}; move the dates inside the series"
        )
    return Borders((0, first), (first, second), (second, last))


def panel_borders(
    lengths: Sequence[int], horizon: int, validation_windows: int = 1, test_windows: int = 1
) -> list[Borders]:
    """Splits of many unequal series: the last horizons of each are test, the ones before them validation."""
    made = []
    for length in lengths:
        test = length - horizon * test_windows
        validation = test - horizon * validation_windows
        made.append(Borders((0, max(0, validation)), (max(0, validation), max(0, test)), (max(0, test), length)))
    return made


def _date(text: str, name: str) -> np.datetime64:
    try:
        return np.datetime64(text).astype("datetime64[ns]")
    except ValueError as error:
        raise ForetideError(
            f"split: {name} date {text!r} cannot be read; expected an ISO date such as 2018-01-31"
        ) from error
