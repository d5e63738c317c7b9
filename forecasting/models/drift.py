"""Drift: the straight line from the first to the last value of the lookback."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from datasets.windows import Batch
from forecasting.baselines import drift
from forecasting.forecaster import Forecaster, Supports


class Drift(Forecaster):
    """Continues the mean change over the lookback (Hyndman & Athanasopoulos, *Forecasting*, section 5.2)."""

    supports = Supports(any_variates=True, probabilistic=False)
    title = "Drift"
    trainable = False
    defaults: ClassVar[Mapping[str, Any]] = {"normalization": "none"}

    def forward(self, batch: Batch) -> Tensor:
        """See `Forecaster.forward`."""
        return drift(batch.past, self.task.horizon, batch.past_mask)[..., None]
