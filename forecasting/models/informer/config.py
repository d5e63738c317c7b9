"""Options of Informer, and whether they fit a task."""

from dataclasses import dataclass, field
from typing import Literal

from datasets.errors import ForetideError
from datasets.options import require, tunable
from forecasting.forecaster import Architecture, Task


@dataclass(frozen=True)
class InformerConfig(Architecture):
    """Options of Informer; the defaults are those of the authors' code.

    Args:
        layers: Layers of the encoder.
        stack: Layers of each further encoder, fewer than ``layers``; it sees the end of the lookback, halved for each
            layer that it lacks, so that all encoders end at the same length. ``[2, 1]`` is the stacked variant of a
            three-layer encoder in the authors' code, ``[1]`` that of the paper.
        decoder_layers: Layers of the decoder.
        d_model: Width of a step.
        d_ff: Width of the feed-forward part.
        heads: Attention heads; must divide ``d_model``.
        label_length: Rows of the lookback that start the decoder's input; by default half of the lookback.
        attention: Self-attention ``probsparse``, or ``full`` (Informer† of the paper). From decoder to encoder it is
            full in both.
        factor: c of ProbSparse: c ⌈ln L⌉ queries attend, chosen by their scores on as many drawn keys.
        distil: Whether a convolution and pooling halve the sequence between encoder layers.
        mix: Whether the decoder's self-attention lays its heads one after the other along time before they are cut
            into steps, as in the published runs: a step then gets one head at several steps, not all heads at its own.
        dropout: On embeddings and the outputs of attention and feed-forward parts, and on full attention's weights.
        activation: Of the feed-forward part.
    """

    layers: int = tunable(2, low=1, high=4)
    stack: list[int] = field(default_factory=list)
    decoder_layers: int = tunable(1, low=1, high=3)
    d_model: int = tunable(512, choices=(64, 128, 256, 512))
    d_ff: int = tunable(2048, choices=(128, 256, 512, 1024, 2048))
    heads: int = tunable(8, choices=(2, 4, 8))
    label_length: int | None = None
    attention: Literal["probsparse", "full"] = tunable("probsparse", choices=("probsparse", "full"))
    factor: int = tunable(5, low=1, high=10)
    distil: bool = True
    mix: bool = tunable(True, choices=(True, False))
    dropout: float = tunable(0.05, low=0.0, high=0.4)
    activation: Literal["gelu", "relu"] = "gelu"

    def __post_init__(self) -> None:
        for name in ("layers", "decoder_layers", "d_ff", "factor"):
            require(getattr(self, name) >= 1, f"architecture.{name}", getattr(self, name), "at least 1")
        fewer = all(1 <= layers < self.layers for layers in self.stack)
        require(fewer, "architecture.stack", self.stack, f"numbers from 1 to below architecture.layers = {self.layers}")
        require(
            self.heads >= 1 and self.d_model >= 1 and self.d_model % self.heads == 0,
            "architecture.d_model",
            self.d_model,
            f"a multiple of architecture.heads = {self.heads}",
        )
        label = self.label_length
        require(label is None or label >= 1, "architecture.label_length", label, "at least 1")
        require(0 <= self.dropout < 1, "architecture.dropout", self.dropout, "0 to below 1")

    def label(self, lookback: int) -> int:
        """Rows of the start token."""
        return max(1, lookback // 2) if self.label_length is None else self.label_length

    def lengths(self, lookback: int, layers: int) -> list[int]:
        """Steps that each layer of an encoder with so many layers sees."""
        found = [lookback // 2 ** (self.layers - layers)]
        for _ in range(layers - 1):
            found.append(-(-found[-1] // 2) if self.distil else found[-1])
        return found


def check(task: Task, options: InformerConfig) -> None:
    """Refuses a start token longer than the lookback, and a lookback that distilling would use up."""
    label = options.label(task.lookback)
    expected = f"at most the lookback of {task.lookback} rows"
    require(label <= task.lookback, "architecture.label_length", label, expected)
    for layers in (options.layers, *options.stack):
        if options.lengths(task.lookback, layers)[-1] < 2:
            raise ForetideError(
                f"lookback: found {task.lookback}, too short for an encoder of {layers} layers, whose last one would "
                "see fewer than two steps; lengthen it, lower architecture.layers, or set architecture.distil false"
            )
