"""Reproductions: how far measured scores are from the published ones."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from app.figures.style import INK, MUTED, SURFACE, color, finish, label

if TYPE_CHECKING:
    import plotly.graph_objects as go

# MSE above, filled; MAE below, open: their spreads do not cover each other
_OFFSETS = {"mse": -0.16, "mae": 0.16}


def reproduction(rows: Sequence[Mapping[str, Any]]) -> "go.Figure":
    """Measured scores as percent above the published ones, which are the zero line; left of it is better.

    Args:
        rows: ``model``, ``name`` (of the horizon), ``metric`` (mse or mae), ``published``, ``value`` and ``spread``
            (standard deviation over seeds, or None), in the order in which they are to be read.
    """
    import plotly.graph_objects as go

    lines = {line: at for at, line in enumerate(dict.fromkeys((row["model"], row["name"]) for row in rows))}
    figure = go.Figure()
    for metric in _OFFSETS:
        for model in dict.fromkeys(row["model"] for row in rows if row["metric"] == metric):
            own = [row for row in rows if (row["model"], row["metric"]) == (model, metric)]
            figure.add_trace(_dots(own, model, metric, lines))
        # the axis names the models; the legend has to say what filled and open dots are
        key = {"symbol": "circle", "size": 9, "color": INK if metric == "mse" else SURFACE, "line": _edge(INK)}
        figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", name=metric.upper(), marker=key))
    figure.add_vline(x=0, line={"color": MUTED, "width": 1.5, "dash": "dot"})
    figure.update_yaxes(
        tickvals=list(lines.values()),
        ticktext=[f"{label(model)}, {name}" for model, name in lines],
        range=[len(lines) - 0.5, -0.5],
        showgrid=True,
    )
    figure.update_xaxes(ticksuffix=" %", showgrid=True)
    names = ", ".join(dict.fromkeys(label(model) for model, _ in lines))
    return finish(
        figure,
        x="above the published score; bars: two standard deviations over seeds",
        y="",
        height=130 + 26 * len(lines),
        hover="closest",
        description=f"Dots: MSE and MAE of {names} by horizon, in percent above the published scores; left is better.",
    )


def _dots(
    rows: Sequence[Mapping[str, Any]], model: str, metric: str, lines: Mapping[tuple[str, str], int]
) -> "go.Scatter":
    import plotly.graph_objects as go

    shade = color(model)
    spreads = [200 * (row["spread"] or 0.0) / row["published"] for row in rows]
    return go.Scatter(
        x=[100 * (row["value"] / row["published"] - 1) for row in rows],
        y=[lines[row["model"], row["name"]] + _OFFSETS[metric] for row in rows],
        mode="markers",
        name=f"{label(model)}, {metric.upper()}",
        showlegend=False,
        marker={"size": 9, "color": shade if metric == "mse" else SURFACE, "line": _edge(shade)},
        error_x={"array": spreads, "thickness": 1.5, "width": 3, "color": shade, "visible": any(spreads)},
        text=[row["name"] for row in rows],
        hovertemplate="%{text}: %{x:+.2f} %<extra>" + f"{label(model)}, {metric.upper()}</extra>",
    )


def _edge(shade: str) -> dict[str, Any]:
    return {"width": 2, "color": shade}
