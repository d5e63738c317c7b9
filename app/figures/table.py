"""The score table as plain rows, for the figure, the report and the terminal alike."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from app.figures.style import label

Better = Literal["low", "high"] | float | None
Style = Literal["decimals", "digits", "percent", "signed"]
_DASH, _MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Score:
    """One column of a score table.

    Args:
        group: Heading over columns that belong together.
        better: Whether ``low`` or ``high`` values are better, or the nominal value that the best one comes closest
            to; None where no value is better by itself.
        style: ``decimals`` (three), ``digits`` (three significant), ``percent`` or ``signed`` percent of a fraction.
        meaning: One sentence for a newcomer.
    """

    key: str
    title: str
    better: Better
    group: str
    style: Style
    meaning: str

    def text(self, value: float | None) -> str:
        """A value as printed; a dash where there is none."""
        if value is None or not math.isfinite(value):
            return _DASH
        if self.style == "decimals":
            return f"{value:.3f}"
        if self.style == "digits":
            return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".rstrip(".")
        return f"{100 * value:.1f} %" if self.style == "percent" else signed(100 * value)

    def distance(self, value: float) -> float:
        """How far a value is from the best possible one, up to a constant."""
        if isinstance(self.better, float):
            return abs(value - self.better)
        return value if self.better == "low" else -value


@dataclass(frozen=True)
class Cell:
    """A printed value, and whether no other model has a better one as printed."""

    text: str
    best: bool


@dataclass(frozen=True)
class Row:
    """The scores of one model."""

    model: str
    label: str
    cells: tuple[Cell, ...]


SCALED, ORIGINAL, INTERVALS, SKILL = "standardized data", "original units", "intervals", "skill"
SCORES = (
    Score(
        "mse",
        "MSE",
        "low",
        SCALED,
        "decimals",
        "Mean squared error on standardized data, the scale of published tables.",
    ),
    Score(
        "mae",
        "MAE",
        "low",
        SCALED,
        "decimals",
        "Mean absolute error on standardized data, the scale of published tables.",
    ),
    Score(
        "mae_original",
        "MAE",
        "low",
        ORIGINAL,
        "digits",
        "Mean absolute error in the units of the data, averaged over variates.",
    ),
    Score(
        "mase",
        "MASE",
        "low",
        ORIGINAL,
        "decimals",
        "Absolute error as a multiple of the seasonal-naive error on the training rows.",
    ),
    Score("smape", "sMAPE", "low", ORIGINAL, "digits", "Symmetric percentage error, from 0 to 200."),
    Score(
        "crps",
        "CRPS",
        "low",
        ORIGINAL,
        "digits",
        "Error of the whole forecast distribution; for a single value it is the absolute error.",
    ),
    Score("coverage_50", "50 %", 0.5, INTERVALS, "percent", "Share of actual values inside the 50 % interval."),
    Score("coverage_80", "80 %", 0.8, INTERVALS, "percent", "Share of actual values inside the 80 % interval."),
    Score("coverage_95", "95 %", 0.95, INTERVALS, "percent", "Share of actual values inside the 95 % interval."),
    Score(
        "width_80",
        "width",
        None,
        INTERVALS,
        "digits",
        "Mean width of the 80 % interval in the units of the data; of two with the same coverage the narrower one "
        "is better.",
    ),
    Score(
        "skill_mae",
        "point",
        "high",
        SKILL,
        "signed",
        "How much lower the error of the point forecast is than that of seasonal naive.",
    ),
    Score(
        "skill_crps",
        "distribution",
        "high",
        SKILL,
        "signed",
        "How much lower the error of the whole distribution is than that of seasonal naive.",
    ),
)


def signed(percent: float) -> str:
    """A percentage with its sign and one decimal."""
    rounded = round(percent, 1)
    return f"{'+' if rounded > 0 else _MINUS if rounded < 0 else ''}{abs(rounded):.1f} %"


def columns(metrics: Mapping[str, Any]) -> tuple[Score, ...]:
    """The scores that at least one model has."""
    present = {key for scores in metrics["scores"].values() for key in scores}
    return tuple(score for score in SCORES if score.key in present)


def rows(metrics: Mapping[str, Any]) -> list[Row]:
    """Models in ascending order of MSE, with their printed scores.

    Models that print the same are best together, and none is where all print the same.
    """
    table = metrics["scores"]
    order = sorted(table, key=lambda model: table[model].get("mse", math.inf))
    best = {score.key: _best(score, [table[model].get(score.key) for model in order]) for score in columns(metrics)}
    made = []
    for model in order:
        texts = [(score.text(table[model].get(score.key)), best[score.key]) for score in columns(metrics)]
        made.append(Row(model, label(model), tuple(Cell(text, text == winner) for text, winner in texts)))
    return made


def _best(score: Score, values: list[float | None]) -> str | None:
    finite = [value for value in values if value is not None and math.isfinite(value)]
    all_equal = len(values) > 1 and len({score.text(value) for value in values}) == 1
    if score.better is None or all_equal or not finite:
        return None
    return score.text(min(finite, key=score.distance))
