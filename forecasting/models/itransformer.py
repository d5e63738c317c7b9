"""iTransformer (Liu et al., ICLR 2024): a Transformer whose tokens are variates."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from datasets.options import require, tunable
from datasets.windows import Batch
from forecasting.forecaster import Architecture, Recipe, Supports, Task
from forecasting.layers import EncoderLayer, MultiHeadAttention
from forecasting.variate_tokens import VariateTokenForecaster


@dataclass(frozen=True)
class ITransformerConfig(Architecture):
    """Options of iTransformer.

    Args:
        layers: Encoder layers.
        d_model: Width of a token.
        d_ff: Width of the feed-forward part.
        heads: Attention heads; must divide ``d_model``.
        dropout: On embeddings, attention weights and the feed-forward part.
        activation: Of the feed-forward part.
    """

    layers: int = tunable(2, low=1, high=4)
    d_model: int = tunable(256, choices=(64, 128, 256, 512))
    d_ff: int = tunable(256, choices=(64, 128, 256, 512))
    heads: int = tunable(8, choices=(2, 4, 8))
    dropout: float = tunable(0.1, low=0.0, high=0.4)
    activation: Literal["gelu", "relu"] = "gelu"

    def __post_init__(self) -> None:
        require(self.layers >= 1, "architecture.layers", self.layers, "at least 1")
        require(self.d_ff >= 1, "architecture.d_ff", self.d_ff, "at least 1")
        require(
            self.heads >= 1 and self.d_model >= 1 and self.d_model % self.heads == 0,
            "architecture.d_model",
            self.d_model,
            f"a multiple of architecture.heads = {self.heads}",
        )
        require(0 <= self.dropout < 1, "architecture.dropout", self.dropout, "0 to below 1")


class ITransformer(VariateTokenForecaster):
    """Attention over variates: each variate's whole lookback is one token (paper, section 3).

    Calendar features and past covariates are further tokens through the same embedding, as published; future
    covariates span lookback and horizon and have an embedding of their own; static ones form one token. Weights do not
    depend on the number of variates, so a model trained on some can forecast all (paper, section 4.2).
    """

    Config = ITransformerConfig
    supports = Supports(past=True, future=True, static=True, calendar=True, any_variates=True)
    title = "iTransformer"

    def __init__(self, task: Task, architecture: ITransformerConfig, recipe: Recipe) -> None:
        super().__init__(task, architecture, recipe)
        width = architecture.d_model
        self.encoder = nn.ModuleList(
            EncoderLayer(
                MultiHeadAttention(width, architecture.heads, architecture.dropout),
                width,
                architecture.d_ff,
                architecture.dropout,
                architecture.activation,
            )
            for _ in range(architecture.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, task.horizon * self.head.size)

    @torch.no_grad()
    def attention(self, batch: Batch) -> Tensor:
        """Attention maps ``(layers, B, heads, N, N)``; the first C of the N tokens are the variates."""
        normalized, _ = self._normalization.normalize(batch)
        tokens, maps = self.tokens(normalized), []
        for layer in self.encoder:
            assert isinstance(layer, EncoderLayer)
            maps.append(layer.attention.weights(tokens))
            tokens = layer(tokens)
        return torch.stack(maps)
