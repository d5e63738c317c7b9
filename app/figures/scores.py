"""Scores: the table, skill, error and coverage by horizon step, by variate, and the course of training.

The metrics are those of ``metrics.json``; the model of the run comes first in each of its tables.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from app.figures import table
from app.figures.style import BAD, CLEAR, GOOD, GRID, HISTORY, INK, MUTED, REFERENCE, color, finish, label

if TYPE_CHECKING:
    import plotly.graph_objects as go

_STEP_TITLES = {"mse": "MSE (standardized data)", "mae": "MAE (standardized data)", "crps": "CRPS (original units)"}
_VERDICTS = {"better": GOOD, "worse": BAD}
_BELOW = "Error below seasonal naive (%)"


def error_by_step(
    metrics: Mapping[str, Any], metric: Literal["mse", "mae", "crps"] = "mae", *, step: str = ""
) -> "go.Figure":
    """Error of every model by horizon step; ``step`` says what one step is, such as ``1 hour``."""
    import plotly.graph_objects as go

    drawn, title = _back_to_front(metrics, metric), _STEP_TITLES[metric]
    figure = go.Figure([_step_line(model, values, ".3f", rank) for rank, model, values in drawn])
    names = ", ".join(label(model) for _, model, _ in reversed(drawn))
    finish(
        figure,
        x=_steps(step),
        y=title,
        height=340,
        description=f"Line chart: {title} of {names} by step of the horizon; lower is better.",
    )
    return figure.update_yaxes(rangemode="tozero")


def coverage_by_step(metrics: Mapping[str, Any], *, step: str = "") -> "go.Figure":
    """Share of actual values inside the 95 and 80 % intervals by horizon step, with the nominal share as a line."""
    from plotly.subplots import make_subplots

    held = {key for values in metrics["by_step"].values() for key in values}
    shown = [percent for percent in (95, 80) if f"coverage_{percent}" in held]
    figure = make_subplots(
        max(1, len(shown)),
        1,
        shared_xaxes=True,
        vertical_spacing=0.14,
        subplot_titles=[f"{percent} % interval" for percent in shown],
    )
    for row, percent in enumerate(shown, start=1):
        drawn = _back_to_front(metrics, f"coverage_{percent}")
        for rank, model, values in drawn:
            figure.add_trace(_step_line(model, 100 * values, ".1f", rank, row == 1), row, 1)
        figure.add_hline(
            y=percent, row=row, col=1, name=f"nominal {percent} %", line={"color": MUTED, "width": 1.5, "dash": "dot"}
        )
        figure.update_yaxes(
            range=_coverage_range(percent, [values for *_, values in drawn]), ticksuffix=" %", row=row, col=1
        )
    figure.update_annotations(font={"size": 12, "color": MUTED}, x=0, xanchor="left")
    figure.update_xaxes(title_text=_steps(step), row=max(1, len(shown)), col=1)
    intervals = " and ".join(f"{percent} %" for percent in shown)
    finish(
        figure,
        x="",
        y="",
        height=340,
        description=f"Line charts: share of actual values inside the {intervals} "
        "intervals by step of the horizon, beside the nominal share.",
    )
    return figure.update_layout(legend_y=1.1)


def scores_table(metrics: Mapping[str, Any]) -> "go.Figure":
    """The score table as a figure, the best value of each column in bold."""
    import plotly.graph_objects as go

    scores, rows = table.columns(metrics), table.rows(metrics)
    columns = zip(*(row.cells for row in rows), strict=True)
    cells = [[f"<b>{cell.text}</b>" if cell.best else cell.text for cell in column] for column in columns]
    titles = [f"{score.title}<br><span style='font-size:10px'>{score.group}</span>" for score in scores]
    shared = {"align": ["left", "right"], "fill": {"color": CLEAR}, "line": {"color": GRID}}
    figure = go.Figure(
        go.Table(
            columnwidth=[2] + [1] * len(scores),
            header={"values": ["Model", *titles], "font": {"color": MUTED}, **shared},
            cells={"values": [[row.label for row in rows], *cells], "font": {"color": INK}, "height": 28, **shared},
        )
    )
    return finish(
        figure,
        x="",
        y="",
        height=90 + 28 * len(rows),
        legend=False,
        description="Table of scores, one row for each model.",
    )


def skill_bars(metrics: Mapping[str, Any]) -> "go.Figure":
    """How much lower the errors of each model are than those of seasonal naive, which is the zero line."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    models = [row.model for row in reversed(table.rows(metrics)) if row.model != REFERENCE]
    panels = {"skill_mae": "Point forecast", "skill_crps": "Whole distribution"}
    values = {key: [100 * metrics["scores"][model].get(key, np.nan) for model in models] for key in panels}
    figure = make_subplots(2, 1, shared_xaxes=True, vertical_spacing=0.16, subplot_titles=list(panels.values()))
    for row, (key, title) in enumerate(panels.items(), start=1):
        figure.add_trace(
            go.Bar(
                y=[label(model) for model in models],
                x=values[key],
                orientation="h",
                name=title,
                textposition="outside",
                marker={"color": [color(model) for model in models]},
                text=[table.signed(value) for value in values[key]],
                textfont={"color": INK},
                cliponaxis=False,
                hovertemplate="%{y}: %{x:+.1f} %<extra></extra>",
            ),
            row,
            1,
        )
    figure.update_annotations(font={"size": 12, "color": MUTED}, x=0, xanchor="left")
    _zero_is_naive(figure, [value for row in values.values() for value in row])
    figure.update_xaxes(title_text=_BELOW, row=2, col=1)
    names = ", ".join(label(model) for model in reversed(models))
    return finish(
        figure,
        x="",
        y="",
        height=max(300, 130 + 56 * len(models)),
        legend=False,
        hover="closest",
        top=24,
        description=f"Bar charts: skill of {names} against seasonal naive in percent; right is better.",
    )


def comparison(metrics: Mapping[str, Any]) -> "go.Figure":
    """Differences of error to each baseline with their bootstrap intervals; left of zero the model is better.

    They are percentages of the baseline's error where the metrics hold that.
    """
    import plotly.graph_objects as go

    entries = list(reversed(metrics.get("comparison", [])))
    relative = all(entry.get("baseline_score") for entry in entries)
    unit, number = (" %", "+.1f") if relative else ("", "+.4f")
    figure, limits = go.Figure(), [0.0]
    for entry in entries:
        scale = 100 / entry["baseline_score"] if relative else 1.0
        middle, low, high = (scale * entry[key] for key in ("difference", "lower", "upper"))
        tone, name = _VERDICTS.get(entry["verdict"], MUTED), _compared(entry)
        limits += [low, high]
        figure.add_trace(
            go.Scatter(
                x=[middle],
                y=[f"{name}<br><b>{entry['verdict']}</b>"],
                mode="markers",
                name=name,
                marker={"color": tone, "size": 11},
                hovertemplate=f"{middle:{number}}{unit} ({low:{number}} to {high:{number}})",
                error_x={
                    "array": [high - middle],
                    "arrayminus": [middle - low],
                    "color": tone,
                    "thickness": 2.5,
                    "width": 6,
                },
            )
        )
    figure.add_vline(x=0, line={"color": MUTED, "width": 1.5, "dash": "dot"}, name="no difference")
    title = "Difference of error (%)" if relative else "Difference of error"
    verdicts = "; ".join(f"{_compared(entry)} {entry['verdict']}" for entry in reversed(entries))
    finish(
        figure,
        x=title,
        y="",
        height=max(300, 90 + 64 * len(entries)),
        legend=False,
        hover="closest",
        description=f"{title} with block-bootstrap intervals, where negative is better: {verdicts}.",
    )
    figure.update_xaxes(range=_padded(limits, 0.1), nticks=5, tickangle=0)
    return figure.update_yaxes(range=[-0.6, max(1, len(entries)) - 0.4], tickfont_color=INK)


def error_by_variate(metrics: Mapping[str, Any], model: str, *, limit: int = 30) -> "go.Figure":
    """How much lower the absolute error of a model is than that of seasonal naive, by variate.

    Variates may have different units, so that only the relative error compares across them; without a seasonal naive
    in the metrics it is the error itself. Of more than ``limit`` variates, those where the model does worst are shown.
    """
    import plotly.graph_objects as go

    own = metrics["by_variate"][model]["mae"]
    base = metrics["by_variate"].get(REFERENCE, {}).get("mae", {}) if model != REFERENCE else {}
    skill = {name: 100 * (1 - own[name] / base[name]) for name in own if base.get(name)}
    worst_first = sorted(skill, key=lambda name: skill[name]) if base else sorted(own, key=lambda name: -own[name])
    names = worst_first[:limit]
    values = [skill[name] if base else own[name] for name in names]
    texts = [table.signed(value) if base else f"{value:.3g}" for value in values]
    title = _BELOW if base else "MAE (standardized data)"
    beside = ", seasonal naive %{customdata[1]:.4~g}" if base else ""
    figure = go.Figure(
        go.Bar(
            y=names,
            x=values,
            orientation="h",
            name=label(model),
            marker={"color": color(model)},
            cliponaxis=False,
            text=texts,
            textposition="outside",
            textfont={"color": INK},
            customdata=[[own[name], base.get(name)] for name in names],
            hovertemplate="%{y}: MAE %{customdata[0]:.4~g}" + beside + "<extra></extra>",
        )
    )
    if base:
        _zero_is_naive(figure, values)
    return finish(
        figure,
        x=title,
        y="",
        height=max(340, 90 + 26 * len(names)),
        legend=False,
        hover="closest",
        description=f"Bar chart: {title} of {label(model)} for {len(names)} of {len(own)} variates.",
    )


def training_curve(metrics: Mapping[str, Any]) -> "go.Figure":
    """Training and validation loss by epoch, with the epoch whose weights were kept."""
    import plotly.graph_objects as go

    training = metrics.get("training", {})
    epochs, best = training.get("epochs", []), training.get("best_epoch")
    x = [entry["epoch"] for entry in epochs]
    figure = go.Figure(
        [
            go.Scatter(
                x=x,
                y=[entry.get(key) for entry in epochs],
                name=name,
                mode="lines+markers",
                marker={"size": 6},
                line={"color": tone, "width": 2},
                hovertemplate="%{y:.4f}",
            )
            for key, name, tone in (("train_loss", "Training", HISTORY), ("validation_loss", "Validation", INK))
        ]
    )
    if best is not None and epochs:
        figure.add_vline(x=best, line={"color": MUTED, "width": 1, "dash": "dot"}, name="best epoch")
        figure.add_annotation(
            x=best,
            y=1,
            yref="y domain",
            text="kept",
            showarrow=False,
            xanchor="left",
            xshift=5,
            yanchor="top",
            font={"color": MUTED, "size": 12},
        )
    finish(
        figure,
        x="Epoch",
        y="Loss",
        height=340,
        description=f"Line chart: training and validation loss over {len(epochs)} epochs.",
    )
    return figure.update_xaxes(dtick=1 if len(epochs) <= 15 else None)


def _back_to_front(metrics: Mapping[str, Any], key: str) -> list[tuple[int, str, np.ndarray]]:
    """Rank, model and values by step, the model of the run last, so that it is drawn on top."""
    found = [
        (rank, model, np.asarray(values[key], dtype=np.float32))
        for rank, (model, values) in enumerate(metrics["by_step"].items(), start=1)
        if key in values
    ]
    return found[::-1]


def _step_line(model: str, values: np.ndarray, number: str, rank: int, in_legend: bool = True) -> Any:
    import plotly.graph_objects as go

    dash, width = "dash" if model == REFERENCE else "solid", 2.5 if rank == 1 else 1.75
    line = {"color": color(model), "width": width, "dash": dash}
    return go.Scatter(
        x=np.arange(1, len(values) + 1, dtype=np.int32),
        y=values,
        mode="lines",
        name=label(model),
        legendgroup=model,
        legendrank=rank,
        showlegend=in_legend,
        line=line,
        hovertemplate=f"%{{y:{number}}}",
    )


def _coverage_range(percent: int, shares: Sequence[np.ndarray]) -> list[float]:
    low = min(float(np.nanmin(100 * share)) for share in shares)
    high = max(float(np.nanmax(100 * share)) for share in shares)
    return [min(low, percent - 5) - 1, min(100.5, max(high, percent + 5) + 1)]


def _compared(entry: Mapping[str, Any]) -> str:
    return f"{entry['metric'].upper()} vs {label(entry['baseline'])}"


def _zero_is_naive(figure: "go.Figure", values: Iterable[float]) -> None:
    figure.add_vline(x=0, line={"color": color(REFERENCE), "width": 2, "dash": "dash"}, name="seasonal naive")
    figure.update_xaxes(range=_padded([*values, 0.0], 0.34))


def _padded(values: Sequence[float], share: float) -> list[float]:
    """A range that holds all finite values and leaves room for text beyond those on either side of zero."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = share * ((high - low) or 1.0)
    return [low - margin if low < 0 else low, high + (margin if high > 0 or low == high else margin / 3)]


def _steps(step: str) -> str:
    return f"Horizon step ({step} each)" if step else "Horizon step"
