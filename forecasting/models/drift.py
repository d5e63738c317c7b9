"""Drift: the straight line from the first to the last value of the lookback."""

from torch import Tensor

from datasets.windows import Batch
from forecasting.baselines import drift
from forecasting.forecaster import Forecaster, Supports


class Drift(Forecaster):
    """Continues the mean change over the lookback (Hyndman & Athanasopoulos, Forecasting: Principles and Practice, 5.2)."""

    supports = Supports(any_variates=True, probabilistic=False)
    title = "Drift"
    trainable = False
    defaults = {"normalization": "none"}

    def forward(self, batch: Batch) -> Tensor:
        """See `Forecaster.forward`."""
        return drift(batch.past, self.task.horizon, batch.past_mask)[..., None]
