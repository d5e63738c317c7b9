"""The rows of a table in order of series and time, whatever their order in the file."""

from dataclasses import dataclass

import numpy as np

from datasets.quality import grid as grids
from datasets.quality.grid import Grid
from datasets.readers.table import RawTable


@dataclass(frozen=True)
class Layout:
    """Rows sorted by series, then time, then place in the file.

    Args:
        order: ``(N,)`` positions in the frame.
        series, times: ``(N,)`` number of the series and datetime64[us], in that order.
        first, repeated: ``(N,)`` whether a row starts its series, and whether it has the stamp of the row before it.
        backward: Positions in the frame of rows that are older than the row of the same series before them.
        ids: Names of the series by number; one empty name in wide form.
        future: ``(N,)`` in file order: rows behind the last target of their series, in a table with future covariates.
    """

    order: np.ndarray
    series: np.ndarray
    times: np.ndarray
    first: np.ndarray
    repeated: np.ndarray
    backward: np.ndarray
    ids: tuple[str, ...]
    future: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """Rows of the sorted order without repeated stamps, as a mask."""
        return ~self.repeated


def arrange(table: RawTable) -> Layout:
    """Sorts the rows of a table."""
    times = table.frame[table.time].dt.cast_time_unit("us").to_numpy()
    series, ids = _series(table)
    order = np.lexsort((times, series))
    sorted_series, sorted_times = series[order], times[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = sorted_series[1:] != sorted_series[:-1]
    repeated = np.zeros(len(order), dtype=bool)
    repeated[1:] = ~first[1:] & (sorted_times[1:] == sorted_times[:-1])
    return Layout(
        order,
        sorted_series,
        sorted_times,
        first,
        repeated,
        _backward(series, times),
        ids,
        _future(table, series, times),
    )


def find_grid(table: RawTable, layout: Layout) -> Grid | None:
    """The grid that the options name, else the prevailing one, or None."""
    if table.frequency is not None:
        return grids.from_alias(table.frequency, layout.times[0])
    return grids.infer(layout.times[layout.kept], layout.first[layout.kept])


def _series(table: RawTable) -> tuple[np.ndarray, tuple[str, ...]]:
    import polars as pl

    if table.id is None:
        return np.zeros(table.frame.height, dtype=np.int64), ("",)
    column = table.frame[table.id]
    ids = column.unique().sort()
    return column.cast(pl.Enum(ids)).to_physical().cast(pl.Int64).to_numpy(), tuple(ids.to_list())


def _backward(series: np.ndarray, times: np.ndarray) -> np.ndarray:
    by_series = np.argsort(series, kind="stable")
    codes, stamps = series[by_series], times[by_series]
    older = (codes[1:] == codes[:-1]) & (stamps[1:] < stamps[:-1])
    return np.sort(by_series[1:][older])


def _future(table: RawTable, series: np.ndarray, times: np.ndarray) -> np.ndarray:
    import polars as pl

    if not table.future:
        return np.zeros(len(series), dtype=bool)
    observed = table.frame.select(pl.any_horizontal(pl.col(table.variates).is_not_null())).to_series().to_numpy()
    last = np.full(int(series.max()) + 1, np.iinfo(np.int64).min)
    np.maximum.at(last, series[observed], times[observed].astype(np.int64))
    return times.astype(np.int64) > last[series]
