"""What all figures share: fixed colors per model, layout, themes, and light time axes.

Colors of data keep a contrast of at least 3:1 on white and on the dark surface. The colors of text and grid change
with the theme: they occur in a figure only as the tokens below, so that a theme is a replacement of strings.
"""

import json
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

INK, MUTED, GRID, SURFACE = "#17202b", "#536070", "#e2e7ed", "#ffffff"
DARK = {INK: "#f1f5f9", MUTED: "#a5b1c0", GRID: "#2b3542", SURFACE: "#161d27"}
HISTORY = "#8491a1"
GOOD, BAD = "#1d9271", "#d5505a"
CLEAR = "rgba(0,0,0,0)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
REFERENCE = "seasonal_naive"

_MODELS = {
    "itransformer": ("iTransformer", "#2b78d4"),
    "seasonal_naive": ("Seasonal naive", "#c2760f"),
    "dlinear": ("DLinear", "#1d9271"),
    "autoformer": ("Autoformer", "#8b6cdb"),
    "informer": ("Informer", "#c9559b"),
    "s_mamba": ("S-Mamba", "#d5505a"),
    "tsmixer": ("TSMixer", "#7d8b1f"),
    "drift": ("Drift", "#a56f4b"),
    "auto_ets": ("AutoETS", "#4b8a9e"),
    "theta": ("Theta", "#6d7fa8"),
}
_SPARE = ("#128fa6", "#b0558f", "#5f8f3a", "#9a6fc0", "#b8694f", "#5a7fc4")
# The first one uploads the data of the chart to plotly's cloud.
_REMOVED_BUTTONS = ["sendChartToCloud", "lasso2d", "select2d", "autoScale2d"]
MAX_POINTS, THINNED_POINTS = 5_000, 2_000


def label(model: str) -> str:
    """The name of a model as people write it."""
    return _MODELS[model][0] if model in _MODELS else model.replace("_", " ")


def color(model: str) -> str:
    """The color of a model: the same in every figure, whatever stands beside it."""
    if model in _MODELS:
        return _MODELS[model][1]
    return _SPARE[zlib.crc32(model.encode()) % len(_SPARE)]


def tint(hexadecimal: str, alpha: float) -> str:
    """A color made transparent."""
    red, green, blue = (int(hexadecimal[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def with_unit(data: "xr.Dataset", variate: str) -> str:
    """``variate`` with its unit in parentheses, where one is known."""
    unit = str(data["unit"].sel(variate=variate).item()) if "unit" in data.coords else ""
    return f"{variate} ({unit})" if unit else variate


def epochs(times: np.ndarray) -> np.ndarray:
    """Time stamps as float64 milliseconds since 1970: what a date axis takes without a string per point."""
    return np.asarray(times).astype("datetime64[ms]").astype(np.int64).astype(np.float64)


def thin(times: np.ndarray, values: np.ndarray, points: int = THINNED_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """A line as light arrays: epoch milliseconds and float32, down-sampled beyond 5,000 points.

    Peaks survive (MinMax-LTTB; Van Der Donckt et al. 2023), and so do the gaps: the first row of every run of
    missing values is kept, or of the longest ``points`` runs.
    """
    x, y = epochs(times), np.ascontiguousarray(values, dtype=np.float32)
    if len(y) <= MAX_POINTS:
        return x, y
    from tsdownsample import MinMaxLTTBDownsampler

    finite = np.flatnonzero(np.isfinite(y))
    kept = finite
    if len(finite) > points:
        kept = finite[MinMaxLTTBDownsampler().downsample(x[finite], y[finite], n_out=points)]
    starts = np.array([first for first, _ in missing_runs(y, points)], dtype=np.int64)
    rows = np.union1d(kept, starts).astype(np.int64)
    return x[rows], y[rows]


def missing_runs(values: np.ndarray, limit: int) -> list[tuple[int, int]]:
    """``(first, end)`` rows of the longest ``limit`` runs of missing values, longest first."""
    edges = np.diff(np.concatenate([[0], ~np.isfinite(values), [0]]).astype(np.int8))
    runs = list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))
    return sorted(runs, key=lambda run: run[0] - run[1])[:limit]


def finish(
    figure: "go.Figure",
    *,
    x: str,
    y: str,
    height: int,
    description: str,
    legend: bool = True,
    hover: str | bool = "x unified",
    top: int = 8,
) -> "go.Figure":
    """Gives a figure the common layout.

    Args:
        x, y: Axis titles, units included.
        description: What the figure shows, for people who cannot see it; kept in ``layout.meta``.
        hover: plotly's ``hovermode``.
        top: Margin above the plot; a legend makes room for itself.
    """
    figure.layout.template = _template()
    figure.update_layout(
        height=height,
        hovermode=hover,
        showlegend=legend,
        meta={"description": description},
        margin_t=top,
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
    )
    if x:
        figure.update_xaxes(title_text=x, selector={"title.text": None})
    if y:
        figure.update_yaxes(title_text=y, selector={"title.text": None})
    return figure


def themed(figure: "go.Figure", theme: Literal["light", "dark"]) -> "go.Figure":
    """The same figure with the text and grid of a theme; figures are made for the light one."""
    import plotly.graph_objects as go

    return figure if theme == "light" else go.Figure(json.loads(replace_tokens(figure.to_json(), DARK)))


def replace_tokens(text: str, colors: Mapping[str, str]) -> str:
    """Figure JSON with the theme tokens replaced."""
    for token, replacement in colors.items():
        text = text.replace(token, replacement)
    return text


def _template() -> dict[str, Any]:
    axis = {
        "gridcolor": GRID,
        "linecolor": GRID,
        "zerolinecolor": GRID,
        "zeroline": False,
        "automargin": True,
        "ticks": "outside",
        "tickfont": {"color": MUTED},
        "title": {"font": {"color": MUTED, "size": 13}, "standoff": 8},
    }
    return {
        "layout": {
            "font": {"family": FONT, "size": 13, "color": INK},
            "paper_bgcolor": CLEAR,
            "plot_bgcolor": CLEAR,
            "margin": {"l": 8, "r": 16, "t": 8, "b": 8},
            "bargap": 0.35,
            "xaxis": {**axis, "showgrid": False, "showline": True, "tickcolor": GRID},
            "yaxis": {**axis, "tickcolor": CLEAR},
            "legend": {"font": {"color": INK}, "itemsizing": "constant"},
            "hoverlabel": {"font": {"family": FONT, "color": INK}, "bgcolor": SURFACE, "bordercolor": GRID},
            "modebar": {"color": MUTED, "activecolor": INK, "bgcolor": CLEAR, "remove": _REMOVED_BUTTONS},
        }
    }
