"""Every plot as a pure function: data in, plotly figure out; nothing is read, written or computed anew.

History is grey, what happened is black, a model has one color everywhere, and seasonal naive stands beside it.
Figures are made for a light page on a transparent ground; `themed` turns them for a dark one.
"""

from app.figures.data import missing_map, overview
from app.figures.horizon import forecast, forecast_picture, forecasts
from app.figures.reproduction import reproduction
from app.figures.scores import (
    comparison,
    coverage_by_step,
    error_by_step,
    error_by_variate,
    scores_table,
    skill_bars,
    training_curve,
)
from app.figures.style import color, label, themed

__all__ = [
    "color",
    "comparison",
    "coverage_by_step",
    "error_by_step",
    "error_by_variate",
    "forecast",
    "forecast_picture",
    "forecasts",
    "label",
    "missing_map",
    "overview",
    "reproduction",
    "scores_table",
    "skill_bars",
    "themed",
    "training_curve",
]
