"""What the papers report: test scores by model, dataset, features and horizon, each with the table that it comes from.

The scores themselves are data, in ``published.yaml`` beside this module.
"""

import functools
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from datasets.options import build, require

Features = Literal["M", "S"]
Origin = Literal["paper", "re-run", "recalled"]
AVERAGE = "average"


@dataclass(frozen=True)
class Table:
    """One published table, as far as it is about a model.

    Args:
        source: Paper and table.
        scores: Dataset → horizon, or ``average`` → MSE and MAE.
        features: ``M`` forecasts all variates, ``S`` the target variate from itself alone.
        origin: ``paper`` is the model's own; ``re-run`` is somebody else's; ``recalled`` was not seen in print.
        dropped: Size of the test batches, where the code left the last incomplete one out of the score; 0 where not.
        note: What one must know to compare with it.
    """

    model: str
    source: str
    scores: dict[str, dict[str, list[float]]]
    features: Features = "M"
    origin: Origin = "paper"
    dropped: int = 0
    note: str = ""

    def __post_init__(self) -> None:
        for dataset, cells in self.scores.items():
            for horizon, pair in cells.items():
                where = f"{self.model}: {dataset}: {horizon}"
                require(len(pair) == 2 and min(pair) > 0, where, pair, "MSE and MAE")
                require(horizon == AVERAGE or horizon.isdigit(), where, horizon, f"a horizon, or {AVERAGE}")


@dataclass(frozen=True)
class Published:
    """One published score.

    Args:
        mse, mae: On scaled data.
        source, origin, dropped, note: See `Table`.
    """

    model: str
    dataset: str
    features: Features
    horizon: int
    mse: float
    mae: float
    source: str
    origin: Origin
    dropped: int
    note: str


def scores(model: str | None = None, dataset: str | None = None, features: Features | None = None) -> list[Published]:
    """All published scores, or those of a model, a dataset, a kind of features."""
    return [
        cell
        for cell in _cells()
        if model in (None, cell.model) and dataset in (None, cell.dataset) and features in (None, cell.features)
    ]


def find(model: str, dataset: str, horizon: int, features: Features = "M") -> Published | None:
    """The published score of one cell, or None."""
    return next((cell for cell in scores(model, dataset, features) if cell.horizon == horizon), None)


def average(model: str, dataset: str, features: Features = "M") -> tuple[float, float] | None:
    """MSE and MAE over all horizons of a table: as it prints them, or else the mean of its cells; None without any."""
    for table in _tables():
        if (table.model, table.features) == (model, features) and dataset in table.scores:
            cells = table.scores[dataset]
            if AVERAGE in cells:
                return cells[AVERAGE][0], cells[AVERAGE][1]
            return statistics.mean(mse for mse, _ in cells.values()), statistics.mean(mae for _, mae in cells.values())
    return None


@functools.cache
def _tables() -> tuple[Table, ...]:
    text = Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = yaml.safe_load(text)
    return tuple(build(Table, values, f"published.yaml: table {number}") for number, values in enumerate(found, 1))


@functools.cache
def _cells() -> tuple[Published, ...]:
    return tuple(cell for table in _tables() for cell in _cells_of(table))


def _cells_of(table: Table) -> Iterator[Published]:
    for dataset, cells in table.scores.items():
        for horizon, (mse, mae) in cells.items():
            if horizon != AVERAGE:
                yield Published(
                    table.model,
                    dataset,
                    table.features,
                    int(horizon),
                    mse,
                    mae,
                    table.source,
                    table.origin,
                    table.dropped,
                    table.note,
                )
