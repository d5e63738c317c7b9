"""DLinear (Zeng et al., AAAI 2023): one linear map for the trend and one for the rest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from datasets.options import require, tunable
from datasets.windows import Batch
from forecasting.forecaster import Architecture, Forecaster, Recipe, Supports, Task
from forecasting.layers import MovingAverage


@dataclass(frozen=True)
class DLinearConfig(Architecture):
    """Options of DLinear.

    Args:
        window: Steps of the moving average that separates the trend.
    """

    window: int = tunable(25, choices=(5, 13, 25, 49))

    def __post_init__(self) -> None:
        require(self.window >= 1, "architecture.window", self.window, "at least 1")


class DLinear(Forecaster):
    """Decomposition by a moving average, then a linear map over time for each part, shared by all variates."""

    Config = DLinearConfig
    supports = Supports(any_variates=True)
    title = "DLinear"
    # no normalisation, as published; the rate is Adam's own default
    defaults: ClassVar[Mapping[str, Any]] = {"normalization": "none", "training": {"learning_rate": 1e-3}}

    def __init__(self, task: Task, architecture: DLinearConfig, recipe: Recipe) -> None:
        super().__init__(task, architecture, recipe)
        self.trend = MovingAverage(architecture.window)
        outputs = task.horizon * self.head.size
        self.project_trend, self.project_rest = nn.Linear(task.lookback, outputs), nn.Linear(task.lookback, outputs)
        for layer in (self.project_trend, self.project_rest):
            # start from the mean of the lookback, as in the Time-Series-Library
            nn.init.constant_(layer.weight, 1 / task.lookback)

    def forward(self, batch: Batch) -> Tensor:
        """See `Forecaster.forward`."""
        trend = self.trend(batch.past)
        rest = batch.past - trend
        outputs = self.project_trend(trend.transpose(1, 2)) + self.project_rest(rest.transpose(1, 2))  # (B, C, H·P)
        return torch.transpose(outputs.unflatten(-1, (self.task.horizon, self.head.size)), 1, 2)
