"""The data itself: every variate through time, and where values are missing."""

from typing import TYPE_CHECKING

import numpy as np

from app.figures.style import BAD, HISTORY, INK, epochs, finish, missing_runs, thin, tint, with_unit

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

_SHADED_GAPS, _MAP_COLUMNS = 40, 400


def overview(series: "xr.Dataset", *, limit: int = 8) -> "go.Figure":
    """The first ``limit`` variates through time, one panel each, with their longest gaps shaded."""
    from plotly.subplots import make_subplots

    names = [str(name) for name in series["variate"].values][:limit]
    figure = make_subplots(
        len(names),
        1,
        shared_xaxes=True,
        vertical_spacing=min(0.05, 0.3 / len(names)),
        subplot_titles=[with_unit(series, name) for name in names],
    )
    for row, name in enumerate(names, start=1):
        _panel(figure, series, name, row)
    figure.update_annotations(font={"size": 12, "color": INK}, x=0, xanchor="left")
    shown, total = len(names), series.sizes["variate"]
    finish(
        figure,
        x="",
        y="",
        height=60 + 84 * shown,
        legend=False,
        top=24,
        description=f"Line charts: {shown} of {total} variates through time, {series.sizes['time']} rows.",
    )
    return figure.update_xaxes(type="date").update_yaxes(nticks=4)


def missing_map(series: "xr.Dataset", *, limit: int = 60) -> "go.Figure":
    """Share of missing values by variate and stretch of time, for the ``limit`` variates that miss most."""
    import plotly.graph_objects as go

    missing = ~np.isfinite(series["value"].transpose("time", "variate").values)
    worst = np.sort(np.argsort(-missing.mean(axis=0), kind="stable")[:limit])
    edges = np.linspace(0, len(missing), min(len(missing), _MAP_COLUMNS) + 1).astype(np.int64)
    totals = np.add.reduceat(missing[:, worst].astype(np.float64), edges[:-1], axis=0)
    share = (100 * totals / np.diff(edges)[:, None]).astype(np.float32)
    names = [str(series["variate"].values[column]) for column in worst]
    figure = go.Figure(
        go.Heatmap(
            x=epochs(series["time"].values[edges[:-1]]),
            y=names,
            z=share.T,
            zmin=0,
            zmax=100,
            colorscale=[[0, tint(HISTORY, 0.15)], [1e-6, tint(BAD, 0.35)], [1, BAD]],
            colorbar={"title": {"text": "missing"}, "ticksuffix": " %", "thickness": 12, "outlinewidth": 0},
            hovertemplate="%{y}, %{x|%Y-%m-%d %H:%M}: %{z:.1f} % missing<extra></extra>",
        )
    )
    finish(
        figure,
        x="",
        y="",
        height=max(160, 90 + 22 * len(names)),
        legend=False,
        hover="closest",
        description=f"Map of missing values: {int(missing.sum())} of {missing.size}, by variate and time.",
    )
    return figure.update_xaxes(type="date").update_yaxes(autorange="reversed", showgrid=False)


def _panel(figure: "go.Figure", series: "xr.Dataset", name: str, row: int) -> None:
    import plotly.graph_objects as go

    times, values = series["time"].values, series["value"].sel(variate=name).values
    x, y = thin(times, values)
    line = go.Scatter(x=x, y=y, name=name, mode="lines", line={"color": HISTORY, "width": 1}, hovertemplate="%{y:.4~g}")
    figure.add_trace(line, row, 1)
    stamps = epochs(times)
    for first, end in missing_runs(values, _SHADED_GAPS):
        figure.add_vrect(
            x0=stamps[max(first - 1, 0)],
            x1=stamps[min(end, len(stamps) - 1)],
            row=row,
            col=1,
            fillcolor=tint(BAD, 0.18),
            line_width=0,
            name="missing",
        )
