"""Forecasts: history, what happened, the model with its intervals, and seasonal naive beside it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from app.figures.style import (
    HISTORY,
    INK,
    MUTED,
    REFERENCE,
    SURFACE,
    color,
    epochs,
    finish,
    label,
    thin,
    tint,
    with_unit,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

BANDS = ((95, 0.14), (80, 0.2), (50, 0.3))
_NUMBER = ".4~g"


def forecast(
    history: "xr.Dataset",
    forecast: "xr.Dataset",
    variate: str,
    *,
    actual: "xr.Dataset | None" = None,
    naive: "xr.Dataset | None" = None,
    last: int = 336,
) -> "go.Figure":
    """One variate of a forecast.

    Args:
        history: Canonical series; values from the start of the forecast on are drawn as what happened.
        forecast: ``forecast (time, variate)`` and, where there are intervals, ``quantile (time, variate, level)``;
            ``attrs["model"]`` names the model.
        actual: Canonical series of what happened, when ``history`` ends before the forecast.
        naive: The seasonal-naive forecast, in the form of ``forecast``.
        last: Rows of history shown.
    """
    import plotly.graph_objects as go

    return _finish(go.Figure(_traces(history, forecast, variate, actual, naive, last)), forecast, variate)


def forecasts(
    history: "xr.Dataset",
    forecast: "xr.Dataset",
    *,
    actual: "xr.Dataset | None" = None,
    naive: "xr.Dataset | None" = None,
    last: int = 336,
    selected: str | None = None,
    variates: Sequence[str] | None = None,
    limit: int = 30,
) -> "go.Figure":
    """All variates of a forecast in one figure, with a drop-down list that picks the one shown.

    Args:
        history, forecast, actual, naive, last: As in `forecast`.
        selected: The variate shown first; by default the first one.
        variates: Which to offer; by default the first ``limit``, and ``selected``.
    """
    import plotly.graph_objects as go

    names = [str(name) for name in forecast["variate"].values]
    chosen = selected or (variates or names)[0]
    offered = list(variates) if variates else [name for row, name in enumerate(names) if row < limit or name == chosen]
    groups = {name: _traces(history, forecast, name, actual, naive, last) for name in offered}
    owner = [name for name, group in groups.items() for _ in group]
    figure = go.Figure([trace for group in groups.values() for trace in group])
    for trace, name in zip(figure.data, owner, strict=True):
        trace.visible = name == chosen
    _finish(figure, forecast, chosen)
    if len(offered) > 1:
        buttons = [
            {
                "label": name,
                "method": "update",
                "args": [
                    {"visible": [other == name for other in owner]},
                    {"yaxis.title.text": with_unit(forecast, name)},
                ],
            }
            for name in offered
        ]
        figure.update_layout(
            updatemenus=[
                {
                    "buttons": buttons,
                    "active": offered.index(chosen),
                    "showactive": True,
                    "font": {"color": INK},
                    "x": 1,
                    "xanchor": "right",
                    "y": 1.02,
                    "yanchor": "bottom",
                }
            ]
        )
    return figure


def forecast_picture(
    history: "xr.Dataset",
    forecast: "xr.Dataset",
    variate: str,
    *,
    title: str = "",
    sentence: str = "",
    actual: "xr.Dataset | None" = None,
    naive: "xr.Dataset | None" = None,
    last: int = 168,
) -> "go.Figure":
    """The forecast of one variate as a picture of 1400 x 800 that stands alone: opaque, titled, in larger type.

    Args:
        history, forecast, variate, actual, naive, last: As in `forecast`.
        title: Headline; by default the variate, the number of steps and the model.
        sentence: Line under it, such as the verdict.
    """
    import plotly.graph_objects as go

    figure = _finish(go.Figure(_traces(history, forecast, variate, actual, naive, last)), forecast, variate)
    headline = title or f"{with_unit(forecast, variate)}: {forecast.sizes['time']} steps ahead by {_model(forecast)}"
    figure.update_layout(
        width=1400,
        height=800,
        paper_bgcolor=SURFACE,
        plot_bgcolor=SURFACE,
        font_size=20,
        legend={"y": 1.02},
        margin={"l": 104, "r": 40, "t": 178, "b": 92},
        title={
            "text": f"<b>{headline}</b>",
            "x": 0.025,
            "y": 0.955,
            "yanchor": "top",
            "font": {"size": 32},
            "subtitle": {"text": sentence, "font": {"size": 21, "color": MUTED}},
        },
    )
    figure.update_xaxes(title_font_size=20).update_yaxes(title={"font": {"size": 20}, "standoff": 14})
    for trace in figure.data:
        if trace.mode == "lines" and trace.line.width:
            trace.line.width *= 1.6
    return figure.update_annotations(font_size=18)


def bands(forecast: "xr.Dataset", variate: str) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Limits ``(H,)`` of the central intervals whose quantiles the forecast holds, by percent, widest first."""
    if "quantile" not in forecast:
        return {}
    quantiles = forecast["quantile"].sel(variate=variate).transpose("time", "level").values
    levels = forecast["level"].values
    found = {}
    for percent, _ in BANDS:
        tail = (100 - percent) / 200
        lower, upper = (np.flatnonzero(np.isclose(levels, level, atol=1e-6)) for level in (tail, 1 - tail))
        if len(lower) and len(upper):
            found[percent] = (quantiles[:, lower[0]], quantiles[:, upper[0]])
    return found


def _traces(
    history: "xr.Dataset",
    forecast: "xr.Dataset",
    variate: str,
    actual: "xr.Dataset | None",
    naive: "xr.Dataset | None",
    last: int,
) -> list[Any]:
    known = history["time"].values < forecast["time"].values[0]
    happened = actual if actual is not None else history.isel(time=~known)
    happened = happened.sel(time=happened["time"].isin(forecast["time"]))
    past = history.isel(time=np.flatnonzero(known)[-last:])
    model = str(forecast.attrs.get("model", "model"))
    traces = _band_traces(forecast, variate, color(model))
    traces.append(_line(past, "value", variate, "History", rank=1, color=HISTORY, width=1.5))
    if naive is not None:
        traces.append(
            _line(naive, "forecast", variate, label(REFERENCE), rank=7, color=color(REFERENCE), width=1.5, dash="dash")
        )
    traces.append(_line(forecast, "forecast", variate, label(model), rank=3, color=color(model), width=2.5))
    if np.isfinite(happened["value"].sel(variate=variate).values).any():
        traces.append(_line(happened, "value", variate, "Actual", rank=2, color=INK, width=1.75))
    return traces


def _band_traces(forecast: "xr.Dataset", variate: str, base: str) -> list[Any]:
    """Per band its two limits, and a legend entry in the tint that the bands on top of each other add up to."""
    import plotly.graph_objects as go

    alphas, made, seen = dict(BANDS), [], 0.0
    for rank, (percent, (lower, upper)) in enumerate(bands(forecast, variate).items()):
        alpha, low = alphas[percent], lower.astype(np.float32)
        seen = 1 - (1 - seen) * (1 - alpha)
        shared: dict[str, Any] = {
            "x": epochs(forecast["time"].values),
            "mode": "lines",
            "showlegend": False,
            "line": {"width": 0, "color": base},
            "legendgroup": str(percent),
        }
        made += [
            go.Scatter(y=low, hoverinfo="skip", name=f"{percent} % lower", **shared),
            go.Scatter(
                y=upper.astype(np.float32),
                name=f"{percent} %",
                fill="tonexty",
                fillcolor=tint(base, alpha),
                customdata=low,
                hovertemplate=f"%{{customdata:{_NUMBER}}} to %{{y:{_NUMBER}}}",
                **shared,
            ),
            go.Scatter(
                x=[None],
                y=[None],
                mode="markers",
                name=f"{percent} % interval",
                legendgroup=str(percent),
                marker={"symbol": "square", "size": 13, "color": tint(base, seen)},
                hoverinfo="skip",
                legendrank=6 - rank,
            ),
        ]
    return made


def _line(data: "xr.Dataset", variable: str, variate: str, name: str, rank: int, **line: Any) -> Any:
    import plotly.graph_objects as go

    x, y = thin(data["time"].values, data[variable].sel(variate=variate).values)
    return go.Scatter(x=x, y=y, name=name, mode="lines", line=line, legendrank=rank, hovertemplate=f"%{{y:{_NUMBER}}}")


def _finish(figure: "go.Figure", forecast: "xr.Dataset", variate: str) -> "go.Figure":
    times = forecast["time"].values
    start = float(epochs(times[:1])[0])
    first, final = (np.datetime_as_string(stamp, unit="m").replace("T", " ") for stamp in (times[0], times[-1]))
    finish(
        figure,
        x="Time (UTC)" if forecast.attrs.get("time_zone") else "",
        y=with_unit(forecast, variate),
        height=440,
        description=f"Line chart: recent history, then the forecast by {_model(forecast)} from {first} "
        f"to {final} with its intervals.",
    )
    figure.update_xaxes(type="date", hoverformat="%Y-%m-%d %H:%M")
    figure.add_shape(
        type="line",
        x0=start,
        x1=start,
        y0=0,
        y1=1,
        yref="y domain",
        name="forecast start",
        line={"color": MUTED, "width": 1, "dash": "dot"},
    )
    figure.add_annotation(
        x=start,
        y=1,
        yref="y domain",
        text="Forecast starts",
        showarrow=False,
        xanchor="right",
        yanchor="top",
        xshift=-6,
        font={"color": MUTED, "size": 12},
    )
    return figure


def _model(forecast: "xr.Dataset") -> str:
    return label(str(forecast.attrs.get("model", "model")))
