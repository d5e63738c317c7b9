"""Forecasting competitions (M1, M3, M4, tourism): thousands of series without stamps, with an official test part."""

import csv
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets import catalog
from datasets.catalog import Entry, Group
from datasets.errors import ForetideError
from datasets.schema import LongSeries

if TYPE_CHECKING:
    import polars

# Rows of the official test part of every series, by the names of the competition and of the group.
HORIZONS = {(entry.name, group.name): group.horizon for entry in catalog.ENTRIES.values() for group in entry.groups}

_STEPS = {"YS": (1, "Y"), "QS": (3, "M"), "MS": (1, "M"), "7D": (7, "D"), "D": (1, "D"), "h": (1, "h")}

_Series = Iterator[tuple[str, np.ndarray]]


def read_competition(entry: Entry, path: Path, group: str | None = None) -> LongSeries:
    """The series of one group, each its history followed by its official test part.

    The last ``HORIZONS[entry.name, group]`` rows of every series are that test part: split with ``last``, one window.
    The stamps are made up, because the files hold none: every series starts at 1970-01-01 on the grid of its group.

    Args:
        entry: A catalogue entry with groups.
        path: Its JSON file, or the folder of the training and test files of M4.
        group: Which part, such as ``monthly``.

    Raises:
        ForetideError: Unknown group, a file that is missing or of another form, or a wrong number of series.
    """
    part = entry.group(group)
    files = [_member(entry, path, name) for name in part.files] or [path]
    found = dict(_wide_series(files[0], files[1], part) if part.files else _json_series(path, part))
    if len(found) != part.series:
        raise ForetideError(
            f"{path}: found {len(found)} {part.name} series, expected {part.series} for {entry.name}; "
            f"get the file again from its publisher ({entry.publisher})"
        )
    return LongSeries(
        frame=_frame(found, part),
        frequency=part.frequency,
        source=path.name,
        checksum=catalog.checksum(*files),
        title=f"{entry.name} {part.name}",
    )


def _frame(found: dict[str, np.ndarray], part: Group) -> "polars.DataFrame":
    import polars as pl

    lengths = [len(values) for values in found.values()]
    count, unit = _STEPS[part.frequency]
    grid = (np.arange(max(lengths)) * count).astype(f"datetime64[{unit}]").astype("datetime64[us]")
    return pl.DataFrame(
        {
            "unique_id": np.repeat(np.array(list(found), dtype=object), lengths).tolist(),
            "ds": np.concatenate([grid[:length] for length in lengths]),
            "y": np.concatenate(list(found.values())),
        }
    ).sort("unique_id", "ds")


def _json_series(path: Path, part: Group) -> _Series:
    """Series of a file ``{name: {"period": [...], "x": history, "xx": test part, ...}}``."""
    try:
        with catalog.open_content(path) as content:
            records: dict[str, dict[str, Any]] = json.load(content)
        for name, record in records.items():
            if record["period"][0].lower() == part.name:
                yield name, _joined(path, name, record["x"], record["xx"], part)
    except (OSError, EOFError, zlib.error, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ForetideError(
            f"{path}: is not the JSON of a competition ({type(error).__name__}: {error}); expected an "
            "object of series, each with 'period', 'x' and 'xx'"
        ) from error


def _wide_series(train: Path, test: Path, part: Group) -> _Series:
    """Series of a pair of M4 files, one in a row: its name in column V1, then its values."""
    ends = dict(_rows(test))
    for name, history in _rows(train):
        if name not in ends:
            raise ForetideError(f"{test}: there is no series {name!r}, which {train.name} has; get both files again")
        yield name, _joined(test, name, history, ends[name], part)


def _rows(path: Path) -> _Series:
    with catalog.open_content(path) as content:
        lines = csv.reader(io.TextIOWrapper(content, encoding="utf-8", newline=""))
        try:
            next(lines, None)
            for cells in lines:
                while cells and not cells[-1]:
                    cells.pop()
                if cells:
                    yield cells[0], np.array(cells[1:], dtype=np.float64)
        except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
            raise ForetideError(f"{path}: line {lines.line_num}: {error}; expected a name, then numbers") from error


def _joined(path: Path, name: str, history: Any, end: Any, part: Group) -> np.ndarray:
    if len(end) != part.horizon or not len(history):
        raise ForetideError(
            f"{path}: series {name!r} has {len(history)} values and a test part of {len(end)}, "
            f"expected some and a test part of {part.horizon}; get the file again from its publisher"
        )
    return np.concatenate([np.asarray(history, dtype=np.float64), np.asarray(end, dtype=np.float64)])


def _member(entry: Entry, folder: Path, name: str) -> Path:
    kind = "Train" if "train" in name else "Test"
    found = catalog.member(folder, name) or catalog.member(folder, f"{kind}/{name}")
    if found is None:
        raise ForetideError(
            f"{entry.name}: {folder / name} does not exist, nor does it with .gz; get it from its "
            f"publisher ({entry.publisher}) and put it there"
        )
    return found
