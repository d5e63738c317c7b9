"""Repairs by an explicit policy: from a table in file order to the canonical form on a regular grid."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from datasets.errors import ForetideError
from datasets.quality import grid as grids
from datasets.quality.grid import Grid
from datasets.quality.layout import Layout, arrange, find_grid
from datasets.quality.report import QualityOptions, QualityReport
from datasets.readers.table import RawTable

if TYPE_CHECKING:
    import xarray as xr

    from datasets.schema import LongSeries


@dataclass(frozen=True)
class _Gridded:
    """Rows of all series on their grids, behind one another.

    Args:
        values: ``(N, C)`` columns of ``names``, NaN where missing.
        times, series: ``(N,)`` datetime64[us] and number of the series.
        future: ``(N,)`` rows behind the last target.
        damaged: Numbers of series in which rows were left out.
        notes: What was changed, one short sentence each.
    """

    names: tuple[str, ...]
    values: np.ndarray
    times: np.ndarray
    series: np.ndarray
    future: np.ndarray
    damaged: frozenset[int] = frozenset()
    notes: tuple[str, ...] = field(default=())

    def columns(self, names: Sequence[str]) -> np.ndarray:
        return self.values[:, [self.names.index(name) for name in names]]

    def rows(self, keep: np.ndarray, *notes: str) -> "_Gridded":
        return replace(
            self,
            values=self.values[keep],
            times=self.times[keep],
            series=self.series[keep],
            future=self.future[keep],
            notes=(*self.notes, *notes),
        )


def repair(table: RawTable, report: QualityReport, options: QualityOptions | None = None) -> "xr.Dataset | LongSeries":
    """The canonical form of a table, after the repairs that the policy allows and no others.

    Args:
        table: As read.
        report: What `inspect` says about this table.
        options: The policy.

    Returns:
        A Dataset, whose attribute ``repairs`` is a JSON list of what was changed, or a LongSeries.

    Raises:
        ForetideError: Under ``error``, the first finding that blocks; under the other policies, what they cannot mend.
    """
    options = options or QualityOptions()
    if options.policy == "error":
        report.refuse()
    layout = arrange(table)
    grid = find_grid(table, layout)
    if grid is None:
        raise ForetideError(f"{table.source}: {_irregular(report)}; give --reader.frequency, or resample the file")
    data = _on_grid(table, layout, grid, report.sentinels)
    if options.policy == "interpolate":
        data = _interpolated(data, table, options.max_gap)
    if options.policy == "drop":
        data, table = _dropped(data, table, layout)
    return _long(data, table, layout, grid) if table.id is not None else _wide(data, table, grid)


def _irregular(report: QualityReport) -> str:
    return next(
        (finding.detail for finding in report.findings if finding.kind == "mixed_frequency"),
        "the time stamps have no regular step",
    )


def _on_grid(table: RawTable, layout: Layout, grid: Grid, sentinels: Sequence[float]) -> _Gridded:
    values, notes = _numbers(table, sentinels)
    kept = layout.kept
    times, first, series, order = layout.times[kept], layout.first[kept], layout.series[kept], layout.order[kept]
    anchor = grids.anchors(grid, times, first)
    ordinals, off = grid.ordinals(times, anchor)
    damaged = frozenset(layout.series[~kept].tolist()) | frozenset(series[off].tolist())
    times, series, order, anchor, ordinals = (part[~off] for part in (times, series, order, anchor, ordinals))
    starts, lengths, place = _places(series, ordinals)
    out, future = np.full((int(lengths.sum()), values.shape[1]), np.nan), np.zeros(int(lengths.sum()), dtype=bool)
    out[place], future[place] = values[order], layout.future[order]
    begin = np.cumsum(lengths) - lengths
    numbers = np.arange(len(out)) + np.repeat(ordinals[starts] - begin, lengths)
    stamps = grid.stamps(numbers, np.repeat(anchor[starts], lengths))
    for number, text in (
        (len(layout.backward), "out of order sorted by time"),
        (int(layout.repeated.sum()), "with a repeated time stamp left out, the first kept"),
        (int(off.sum()), f"off the grid of {grid.frequency} left out"),
        (len(out) - len(place), "missing from the grid added without values"),
        (int((stamps[place] != times).sum()), f"moved to the grid of {grid.frequency}"),
    ):
        notes += [f"{_count(number, 'row')} {text}"] if number else []
    return _Gridded(table.value_columns, out, stamps, np.repeat(series[starts], lengths), future, damaged, tuple(notes))


def _places(series: np.ndarray, ordinals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each series starts, how many rows its grid has, and where each row goes when grids lie end to end."""
    edges = np.concatenate([[True], series[1:] != series[:-1]])
    starts = np.flatnonzero(edges)
    ends = np.concatenate([starts[1:], [len(series)]]) - 1
    lengths = ordinals[ends] - ordinals[starts] + 1
    begin = np.cumsum(lengths) - lengths
    return starts, lengths, ordinals + (begin - ordinals[starts])[np.cumsum(edges) - 1]


def _numbers(table: RawTable, sentinels: Sequence[float]) -> tuple[np.ndarray, list[str]]:
    values = table.frame.select(table.value_columns).to_numpy(writable=True).astype(np.float64, copy=False)
    notes = [
        f"{_count(len(cells.positions), 'cell')} of text in {name!r} became missing"
        for name, cells in table.non_numeric.items()
    ]
    for found, text in ((np.isin(values, np.array(sentinels)), "sentinel"), (np.isinf(values), "infinity")):
        for at in np.flatnonzero(found.any(axis=0)):
            notes.append(
                f"{_count(int(found[:, at].sum()), f'{text} cell')} in {table.value_columns[at]!r} became missing"
            )
        values[found] = np.nan
    return values, notes


def _interpolated(data: _Gridded, table: RawTable, longest: int | None) -> _Gridded:
    values, filled, left = data.values.copy(), 0, 0
    seconds = data.times.astype(np.int64)
    for at, name in enumerate(data.names):
        if name in table.static:
            continue
        column = values[:, at]
        missing = np.isnan(column)
        inside, before, after = _neighbours(missing, data.series)
        fill = inside & (longest is None or after - before - 1 <= longest)
        rows, low, high = np.flatnonzero(fill), before[fill], after[fill]
        share = (seconds[rows] - seconds[low]) / (seconds[high] - seconds[low])
        column[rows] = column[low] + (column[high] - column[low]) * share
        filled += len(rows)
        left += int((missing & ~fill & ~(data.future & (name not in table.future))).sum())
    notes = [f"{_count(filled, 'missing value')} interpolated in time"] if filled else []
    notes += [f"{_count(left, 'missing value')} left at the ends or in gaps longer than the limit"] if left else []
    return replace(data, values=values, notes=(*data.notes, *notes))


def _neighbours(missing: np.ndarray, series: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which missing rows have observed ones before and after them in their series, and where these are."""
    rows = np.arange(len(missing))
    before = np.maximum.accumulate(np.where(missing, -1, rows))
    after = np.minimum.accumulate(np.where(missing, len(missing), rows)[::-1])[::-1]
    inside = missing & (before >= 0) & (after < len(missing))
    inside[inside] &= (series[before[inside]] == series[inside]) & (series[after[inside]] == series[inside])
    return inside, before, after


def _dropped(data: _Gridded, table: RawTable, layout: Layout) -> tuple[_Gridded, RawTable]:
    if table.id is not None:
        return _without_series(data, table, layout), table
    empty = [name for name in table.variates if np.isnan(data.columns([name])).all()]
    if len(empty) == len(table.variates):
        raise ForetideError(f"{table.source}: every column to forecast is empty; expected at least one with values")
    table = replace(table, variates=tuple(name for name in table.variates if name not in empty))
    bad = _incomplete(data, table)
    whole = np.flatnonzero(~bad & ~data.future)
    if len(whole) == 0:
        raise ForetideError(
            f"{table.source}: no row is complete, so that the policy drop leaves none; "
            "choose --quality.policy mask or interpolate"
        )
    start, end = int(whole[0]), int(whole[-1]) + 1
    usable = data.future[end:] & ~bad[end:]
    last = end + (len(usable) if usable.all() else int(np.argmin(usable)))
    _refuse_holes(np.flatnonzero(bad[start:end]) + start, data, table)
    notes = [f"the empty column {name!r} left out" for name in empty]
    gone = len(bad) - (last - start)
    notes += [f"{_count(gone, 'incomplete row')} at the ends left out"] if gone else []
    return data.rows(np.arange(start, last), *notes), table


def _refuse_holes(holes: np.ndarray, data: _Gridded, table: RawTable) -> None:
    if len(holes) == 0:
        return
    name = next(name for name in data.names if np.isnan(data.columns([name])[holes[0], 0]))
    stamp = str(data.times[holes[0]].astype("datetime64[s]")).replace("T", " ")
    raise ForetideError(
        f"{table.source}: column {name!r} has no value at {stamp}; {_count(len(holes), 'such row')} inside the series "
        "cannot be dropped without breaking the grid; choose --quality.policy mask or interpolate"
    )


def _incomplete(data: _Gridded, table: RawTable) -> np.ndarray:
    """Rows that lack a value: of targets and past covariates up to the last target, of future covariates anywhere."""
    known = np.isnan(data.columns((*table.variates, *table.past))).any(axis=1) & ~data.future
    return known | np.isnan(data.columns(table.future)).any(axis=1)


def _without_series(data: _Gridded, table: RawTable, layout: Layout) -> _Gridded:
    bad = set(np.unique(data.series[_incomplete(data, table)]).tolist()) | data.damaged
    if not bad:
        return data
    if len(bad) == len(layout.ids):
        raise ForetideError(
            f"{table.source}: every series has gaps or missing values, so that the policy drop leaves none; "
            "choose --quality.policy mask or interpolate"
        )
    names = [layout.ids[number] for number in sorted(bad)]
    shown = ", ".join(map(repr, names[:5])) + (" …" if len(names) > 5 else "")
    return data.rows(
        ~np.isin(data.series, list(bad)), f"{_count(len(bad), 'series', 'series')} with problems left out: {shown}"
    )


def _wide(data: _Gridded, table: RawTable, grid: Grid) -> "xr.Dataset":
    from datasets import schema

    covariates = {kind: _by_name(data, names) for kind, names in (("past", table.past), ("future", table.future))}
    static = {name: _only(data.columns([name])[:, 0], f"{table.source}: column {name!r}") for name in table.static}
    made = schema.series(
        data.columns(table.variates),
        data.times.astype("datetime64[ns]"),
        table.variates,
        frequency=grid.frequency,
        units=table.units,
        source=table.source,
        checksum=table.checksum,
        time_zone=table.time_zone,
        title=table.title,
        past=covariates["past"],
        future=covariates["future"],
        static=static,
    )
    made.attrs["repairs"] = json.dumps(list(data.notes), ensure_ascii=False)
    return made


def _by_name(data: _Gridded, names: Sequence[str]) -> Mapping[str, np.ndarray] | None:
    return {name: data.columns([name])[:, 0] for name in names} or None


def _only(values: np.ndarray, where: str) -> float:
    """The one value of a static covariate."""
    found = np.unique(values[~np.isnan(values)])
    if len(found) != 1:
        raise ForetideError(
            f"{where}: a static covariate has {len(found)} values, expected one; mend it, or name it as past covariate"
        )
    return float(found[0])


def _long(data: _Gridded, table: RawTable, layout: Layout, grid: Grid) -> "LongSeries":
    import polars as pl

    from datasets.schema import LongSeries

    taken = next((name for name in table.covariates if name in ("unique_id", "ds", "y")), None)
    if taken is not None:
        raise ForetideError(
            f"{table.source}: a covariate is named {taken!r}, a name that the long form uses; rename it"
        )
    target, covariates = table.variates[0], (*table.past, *table.future)
    ids = pl.Series(list(layout.ids), dtype=pl.String)
    columns = {"unique_id": ids.gather(data.series), "ds": data.times, "y": data.columns([target])[:, 0]}
    columns |= {name: data.columns([name])[:, 0] for name in covariates}
    columns |= {
        name: _per_series(data.columns([name])[:, 0], data.series, layout, f"{table.source}: column {name!r}")
        for name in table.static
    }
    frame = pl.DataFrame(columns).with_columns(pl.col(pl.Float64).fill_nan(None))
    if data.times.max() < np.datetime64("2262-01-01") and data.times.min() > np.datetime64("1678-01-01"):
        frame = frame.with_columns(pl.col("ds").dt.cast_time_unit("ns"))
    return LongSeries(
        frame,
        grid.frequency,
        table.units.get(target, ""),
        table.source,
        table.checksum,
        table.title,
        table.past,
        table.future,
        table.static,
        data.notes,
    )


def _per_series(values: np.ndarray, series: np.ndarray, layout: Layout, where: str) -> np.ndarray:
    """A static covariate in every row of its series."""
    low, high = np.full(len(layout.ids), np.inf), np.full(len(layout.ids), -np.inf)
    seen = ~np.isnan(values)
    np.minimum.at(low, series[seen], values[seen])
    np.maximum.at(high, series[seen], values[seen])
    wrong = np.flatnonzero((low != high)[np.unique(series)])
    if len(wrong):
        name = layout.ids[int(np.unique(series)[wrong[0]])]
        raise ForetideError(
            f"{where}: a static covariate has no single value in series {name!r}; mend it, or name it as past covariate"
        )
    return low[series]


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
