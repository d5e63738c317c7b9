"""Options of Autoformer, and whether they fit a task."""

import math
from dataclasses import dataclass
from typing import Literal

from datasets.errors import ForetideError
from datasets.options import require, tunable
from forecasting.forecaster import Architecture, Task


@dataclass(frozen=True)
class AutoformerConfig(Architecture):
    """Options of Autoformer.

    Args:
        layers: Layers of the encoder.
        decoder_layers: Layers of the decoder.
        d_model: Width of a time step.
        d_ff: Width of the feed-forward parts.
        heads: Heads of the auto-correlation; must divide ``d_model``.
        factor: c in the number of delays, ⌊c · ln L⌋.
        window: Steps of the moving average that separates the trend.
        label_length: Last steps of the lookback that the decoder starts from; by default half of the lookback.
        dropout: On embeddings, auto-correlations and the feed-forward parts.
        activation: Of the feed-forward parts.
    """

    layers: int = tunable(2, low=1, high=3)
    decoder_layers: int = tunable(1, low=1, high=2)
    d_model: int = tunable(512, choices=(64, 128, 256, 512))
    d_ff: int = tunable(2048, choices=(128, 256, 512, 1024, 2048))
    heads: int = tunable(8, choices=(2, 4, 8))
    factor: float = tunable(3.0, low=1.0, high=5.0)
    window: int = tunable(25, choices=(5, 13, 25, 49))
    label_length: int | None = None
    dropout: float = tunable(0.05, low=0.0, high=0.4)
    activation: Literal["gelu", "relu"] = "gelu"

    def __post_init__(self) -> None:
        for name in ("layers", "decoder_layers", "d_ff", "window"):
            require(getattr(self, name) >= 1, f"architecture.{name}", getattr(self, name), "at least 1")
        require(
            self.heads >= 1 and self.d_model >= 1 and self.d_model % self.heads == 0,
            "architecture.d_model",
            self.d_model,
            f"a multiple of architecture.heads = {self.heads}",
        )
        require(0 < self.factor < math.inf, "architecture.factor", self.factor, "a positive number")
        require(
            self.label_length is None or self.label_length >= 0,
            "architecture.label_length",
            self.label_length,
            "0 or more, or nothing for half of the lookback",
        )
        require(0 <= self.dropout < 1, "architecture.dropout", self.dropout, "0 to below 1")

    def label(self, lookback: int) -> int:
        """Rows of the lookback that start the decoder's input."""
        return lookback // 2 if self.label_length is None else self.label_length

    def delays(self, length: int) -> int:
        """Delays that an auto-correlation over so many steps chooses, ⌊c · ln L⌋."""
        return int(self.factor * math.log(length))


def check(task: Task, options: AutoformerConfig) -> None:
    """Refuses a start longer than the lookback, and lengths that leave no delay or fewer than are wanted."""
    label = options.label(task.lookback)
    expected = f"at most the lookback of {task.lookback} rows"
    require(label <= task.lookback, "architecture.label_length", label, expected)
    for place, length in (("the lookback", task.lookback), ("label length and horizon", label + task.horizon)):
        count = options.delays(length)
        if not 1 <= count <= length:
            raise ForetideError(
                f"architecture.factor: found {options.factor}, which makes {count} delays of {place} of {length} rows, "
                f"expected 1 to {length}; a row count of L takes ⌊factor · ln L⌋ delays"
            )
