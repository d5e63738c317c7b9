"""Seasonal naive: the value one season ago. The baseline that every score is compared with."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from datasets.errors import ForetideError
from datasets.windows import Batch
from forecasting.baselines import seasonal_naive
from forecasting.forecaster import Forecaster, Recipe, Supports, Task


class SeasonalNaive(Forecaster):
    """Repeats the last observed season of the lookback (Hyndman & Athanasopoulos, *Forecasting*, section 5.2)."""

    supports = Supports(any_variates=True, probabilistic=False)
    title = "Seasonal naive"
    trainable = False
    defaults: ClassVar[Mapping[str, Any]] = {"normalization": "none"}

    @classmethod
    def check(cls, task: Task, recipe: Recipe) -> None:
        """Also refuses a lookback shorter than a season."""
        super().check(task, recipe)
        if task.lookback < task.season:
            raise ForetideError(
                f"{cls.title}: found lookback {task.lookback}, expected at least the season of {task.season} rows; "
                "lengthen --lookback or set --season"
            )

    def forward(self, batch: Batch) -> Tensor:
        """See `Forecaster.forward`."""
        return seasonal_naive(batch.past, self.task.horizon, self.task.season, batch.past_mask)[..., None]
