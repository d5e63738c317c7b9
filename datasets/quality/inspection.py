"""Checks of a table: order and grid of its time stamps, and every column of numbers."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from datasets.quality import grid as grids
from datasets.quality.grid import Grid
from datasets.quality.layout import Layout, arrange, find_grid
from datasets.quality.report import Finding, Kind, QualityOptions, QualityReport
from datasets.readers.table import RawTable

if TYPE_CHECKING:
    import polars as pl

_HOUR = 3_600_000_000
_RUN = 8
_ORDER: tuple[Kind, ...] = get_args(Kind)


def inspect(
    table: RawTable, options: QualityOptions | None = None, sentinels: Sequence[float] = (-9999.0,)
) -> QualityReport:
    """Looks for everything that training or scoring on a table would stumble over; changes nothing.

    Args:
        table: As read, in file order.
        options: ``outlier_limit``.
        sentinels: Numbers that stand for a missing value.

    Returns:
        Findings in the order in which they ought to be mended.
    """
    options = options or QualityOptions()
    layout = arrange(table)
    grid = find_grid(table, layout)
    findings = [
        *_text_cells(table),
        *_order(table, layout),
        *_regularity(table, layout, grid),
        *_clock(table, grid),
        *_columns(table, layout, options, tuple(sentinels)),
    ]
    findings.sort(key=lambda finding: _ORDER.index(finding.kind))
    return QualityReport(
        table.source,
        table.frame.height,
        len(layout.ids),
        table.variates,
        _iso(layout.times.min()),
        _iso(layout.times.max()),
        grid.frequency if grid else "",
        table.time_zone,
        tuple(map(float, sentinels)),
        table.unused,
        findings,
    )


def _text_cells(table: RawTable) -> list[Finding]:
    return [
        Finding(
            "non_numeric",
            name,
            table.rows(cells.positions),
            len(cells.positions),
            f"found {cells.texts[0]!r}, expected a number",
        )
        for name, cells in table.non_numeric.items()
    ]


def _order(table: RawTable, layout: Layout) -> list[Finding]:
    found = []
    if len(layout.backward):
        rows = table.rows(layout.backward)
        stamp = _iso(table.frame[table.time].dt.cast_time_unit("us").to_numpy()[layout.backward[0]])
        found.append(
            Finding(
                "unsorted",
                table.time,
                rows,
                len(layout.backward),
                f"{stamp} is older than the row before it",
            )
        )
    if layout.repeated.any():
        at = np.flatnonzero(layout.repeated)
        at = at[np.argsort(layout.order[at], kind="stable")]
        positions = layout.order[at]
        earlier = table.rows([layout.order[at[0] - 1]])[0]
        same = table.frame[[int(positions[0]), int(layout.order[at[0] - 1])]].n_unique() == 1
        detail = (
            f"{_iso(layout.times[at[0]])} occurs twice{_of(layout, at[0])}, first in row {earlier} "
            f"with {'the same' if same else 'other'} values"
        )
        found.append(Finding("duplicate", table.time, table.rows(positions), len(at), detail))
    return found


def _regularity(table: RawTable, layout: Layout, grid: Grid | None) -> list[Finding]:
    if grid is None:
        return [_no_step(table, layout)]
    places = np.flatnonzero(layout.kept)
    times, first = layout.times[places], layout.first[places]
    ordinals, off = grid.ordinals(times, grids.anchors(grid, times, first))
    found = []
    if off.any():
        rows = table.rows(layout.order[places[off]])
        detail = f"{_iso(times[off][0])} is off the grid of {grid.frequency}"
        found.append(Finding("mixed_frequency", table.time, rows, int(off.sum()), detail))
    on = places[~off]
    jumps = np.diff(ordinals[~off])
    jumps[layout.series[on[1:]] != layout.series[on[:-1]]] = 1
    runs = _runs(jumps)
    if runs.any():
        at = np.flatnonzero(runs)
        detail = (
            f"from {_iso(layout.times[on[at[0]]])} the step is {grid.text(int(jumps[at[0]]))}, not {grid.frequency}"
        )
        found.append(Finding("mixed_frequency", table.time, table.rows(layout.order[on[at]]), len(at), detail))
    return [*found, *_gaps(table, layout, on, np.where(runs, 1, jumps))]


def _no_step(table: RawTable, layout: Layout) -> Finding:
    kept = layout.kept
    steps = np.diff(layout.times[kept]).astype(np.int64)[~layout.first[kept][1:]]
    if len(steps) == 0:
        detail = "no two rows of a series, so that there is no step"
    else:
        lengths, counts = np.unique(steps, return_counts=True)
        usual = Grid("", "microsecond", int(lengths[counts.argmax()])).text(1)
        share = counts.max() / len(steps)
        detail = f"no step prevails: the most frequent of {len(lengths):,}, {usual}, is {share:.0%} of all"
    return Finding("mixed_frequency", table.time, table.rows(layout.order), len(layout.order), detail)


def _gaps(table: RawTable, layout: Layout, on: np.ndarray, jumps: np.ndarray) -> list[Finding]:
    """Missing rows, the longest gap first; ``on`` are places in the sorted order, ``jumps`` the steps between them."""
    at = np.flatnonzero(jumps > 1)
    if len(at) == 0:
        return []
    longest = at[jumps[at].argmax()]
    number = int(jumps[longest]) - 1
    detail = (
        f"{number:,} row{'s are' if number > 1 else ' is'} missing after {_iso(layout.times[on[longest]])}"
        f"{_of(layout, on[longest])}{f', the longest of {len(at):,} gaps' if len(at) > 1 else ''}"
    )
    rows = table.rows(layout.order[on[np.concatenate([[longest], at[at != longest]])]])
    return [Finding("gap", table.time, [rows[0], *sorted(rows[1:])], int((jumps[at] - 1).sum()), detail)]


def _runs(jumps: np.ndarray) -> np.ndarray:
    """Which jumps over more than one step are in a run of equal ones, so long that it is a frequency and not a gap."""
    edges = np.flatnonzero(np.diff(jumps)) + 1
    lengths = np.diff(np.concatenate([[0], edges, [len(jumps)]]))
    return np.repeat(lengths >= _RUN, lengths) & (jumps > 1)


def _clock(table: RawTable, grid: Grid | None) -> list[Finding]:
    found = []
    zone = table.time_zone
    repeated = f"stamps in {zone} lie in the hour that occurs twice in autumn; the first of two was read as summer time"
    skipped = f"stamps in {zone} do not exist, because the clock is put forward; they were read with the time before"
    for positions, text in ((table.clock.repeated, repeated), (table.clock.skipped, skipped)):
        if len(positions):
            found.append(Finding("daylight_saving", table.time, table.rows(positions), len(positions), text))
    if zone or table.id is not None or grid is None or grid.unit != "microsecond" or grid.step > _HOUR:
        return found
    times = table.frame[table.time].dt.cast_time_unit("us").to_numpy()
    at = _changes_of_clock(times, grid.step)
    if len(at):
        detail = (
            f"an hour is skipped or repeated in the night to a Sunday ({_iso(times[at[0]])}), as local clocks do; "
            "give --reader.time_zone"
        )
        found.append(Finding("daylight_saving", table.time, table.rows(at), len(at), detail))
    return found


def _changes_of_clock(times: np.ndarray, step: int) -> np.ndarray:
    """Positions after a step an hour too long or too short, on a Sunday before four, in a month of such changes."""
    steps = np.diff(times).astype(np.int64)
    days = times[1:].astype("datetime64[D]")
    sunday = (days.astype(np.int64) + 4) % 7 == 0
    early = (times[1:] - days).astype(np.int64) < 4 * _HOUR
    season = np.isin(days.astype("datetime64[M]").astype(np.int64) % 12, (2, 3, 8, 9, 10))
    return np.flatnonzero(sunday & early & season & (np.abs(steps - step) == _HOUR)) + 1


def _columns(table: RawTable, layout: Layout, options: QualityOptions, sentinels: tuple[float, ...]) -> list[Finding]:
    import polars as pl

    frame = table.frame.with_columns(pl.Series("·future", layout.future))
    found = _whole_series(table, frame, sentinels)
    empty = {finding.column for finding in found if finding.kind == "empty"} if table.id is None else set()
    checks = {
        (name, kind): check
        for name in table.value_columns
        for kind, check in _checks(name, table, options.outlier_limit, sentinels).items()
        if not (kind == "missing" and name in empty)
    }
    counts = frame.select([check.sum().alias(f"{name}·{kind}") for (name, kind), check in checks.items()])
    for (name, kind), check in checks.items():
        if counts[f"{name}·{kind}"][0]:
            positions = frame.select(check.fill_null(False).arg_true()).to_series().to_numpy()
            found += _cells(table, name, kind, positions, options)
    return found


def _cells(table: RawTable, name: str, kind: Kind, positions: np.ndarray, options: QualityOptions) -> list[Finding]:
    if kind == "missing" and name in table.non_numeric:
        positions = np.setdiff1d(positions, table.non_numeric[name].positions)
    if len(positions) == 0:
        return []
    value = table.frame[name][int(positions[0])]
    details: dict[str, Callable[[], str]] = {
        "sentinel": lambda: f"{value:g} stands for a missing value",
        "infinite": lambda: f"found {'+' if value > 0 else '-'}infinity, expected a number",
        "missing": lambda: "an empty cell",
        "outlier": lambda: f"{value:g} is more than {options.outlier_limit:g} robust deviations from the median",
    }
    return [Finding(kind, name, table.rows(positions), len(positions), details[kind]())]


def _checks(name: str, table: RawTable, limit: float, sentinels: tuple[float, ...]) -> "dict[Kind, pl.Expr]":
    import polars as pl

    column, value = pl.col(name), _clean(name, sentinels)
    expected = pl.lit(True) if name in table.future or name in table.static else ~pl.col("·future")
    checks: dict[Kind, pl.Expr] = {
        "sentinel": column.is_in(list(sentinels)),
        "infinite": column.is_infinite(),
        "missing": column.is_null() & expected,
    }
    if name in table.variates:
        # Both estimate the standard deviation of a normal distribution; the second keeps long tails and nights of zeros
        # from counting as outliers.
        distance = (value - _by_series(value.median(), table)).abs()
        deviation = 1.4826 * _by_series(distance.median(), table)
        width = _by_series(value.quantile(0.95) - value.quantile(0.05), table) / 3.2897
        spread = pl.max_horizontal(deviation, width)
        checks["outlier"] = (spread > 0) & (distance > limit * spread)
    return checks


def _clean(name: str, sentinels: tuple[float, ...]) -> "pl.Expr":
    import polars as pl

    column = pl.col(name)
    return pl.when(column.is_in(list(sentinels)) | column.is_infinite()).then(None).otherwise(column)


def _by_series(value: "pl.Expr", table: RawTable) -> "pl.Expr":
    return value.over(table.id) if table.id is not None else value


def _whole_series(table: RawTable, frame: "pl.DataFrame", sentinels: tuple[float, ...]) -> list[Finding]:
    """Columns, or series of the long form, that hold nothing or always the same."""
    import polars as pl

    names = table.variates if table.id else (*table.variates, *table.past, *table.future)
    values = {name: _clean(name, sentinels) for name in names}
    wanted = [value.min().alias(f"{name}·min") for name, value in values.items()]
    wanted += [value.max().alias(f"{name}·max") for name, value in values.items()]
    by_series = frame.group_by(table.id, maintain_order=True) if table.id else None
    stats = frame.select(*wanted, pl.len()) if by_series is None else by_series.agg(*wanted, pl.len())
    found = []
    for name in names:
        low, high = stats[f"{name}·min"], stats[f"{name}·max"]
        constant = (low == high).fill_null(False) & (stats["len"] > 1)
        found += [
            _series_finding(kind, name, table, stats, which)
            for kind, which in (("empty", low.is_null()), ("constant", constant))
            if which.any()
        ]
    return found


def _series_finding(kind: Any, name: str, table: RawTable, stats: "pl.DataFrame", which: "pl.Series") -> Finding:
    at = int(which.arg_true()[0])
    text = "no value at all" if kind == "empty" else f"always {stats[name + '·min'][at]:g}"
    if table.id is None:
        return Finding(kind, name, [], 1, text)
    ids = stats[table.id].filter(which).head(3).to_list()
    return Finding(
        kind, name, [], int(which.sum()), f"{text} in {', '.join(map(repr, ids))}{' …' if which.sum() > 3 else ''}"
    )


def _of(layout: Layout, at: int) -> str:
    name = layout.ids[layout.series[at]]
    return f" in series {name!r}" if name else ""


def _iso(stamp: Any) -> str:
    text = str(np.datetime64(stamp, "us")).replace("T", " ")
    return text.removesuffix(".000000")
