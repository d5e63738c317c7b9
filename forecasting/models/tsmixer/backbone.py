"""The backbone: patches become tokens, which MLPs mix along patches, features and, if wanted, variates.

Letters beside those of `Batch`: N patches of a lookback, S rows of a patch, D features, R series of tokens (C, or 1
for the vanilla backbone).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forecasting.layers import Dropout, MultiHeadAttention
from forecasting.models.tsmixer.config import TSMixerConfig


class Gate(nn.Module):
    """Gated attention (paper, section 3.2): each element is weighted by a softmax of a linear map of its neighbours."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.score = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        """``(…, K)`` → ``(…, K)``."""
        return x * self.weights(x)

    def weights(self, x: Tensor) -> Tensor:
        """Weights ``(…, K)``; they sum to 1."""
        return torch.softmax(self.score(x), dim=-1)


class MLP(nn.Module):
    """Two linear maps over the last axis with GELU between them.

    Args:
        size: K.
        expansion: Hidden width in multiples of K.
    """

    def __init__(self, size: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(size, expansion * size), nn.Linear(expansion * size, size)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(…, K)`` → ``(…, K)``."""
        return self.dropout(self.narrow(self.dropout(F.gelu(self.widen(x)))))


class FeatureBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of the features, over windows, variates and patches."""

    def forward(self, input: Tensor) -> Tensor:
        """``(…, D)`` → ``(…, D)``."""
        return super().forward(input.flatten(0, -2)).view_as(input)


def make_norm(options: TSMixerConfig) -> nn.Module:
    """The normalisation of the features that the options name."""
    return nn.LayerNorm(options.d_model) if options.norm == "layer" else FeatureBatchNorm(options.d_model)


class Mixer(nn.Module):
    """Normalisation, an MLP along one axis, the gate, and a residual sum.

    Args:
        axis: Of tokens ``(B, R, N, D)``: 1 mixes variates, 2 patches, 3 features.
        size: Length of that axis.
        attention: Whether self-attention over patches runs beside the MLP.
    """

    def __init__(self, axis: int, size: int, options: TSMixerConfig, *, attention: bool = False) -> None:
        super().__init__()
        self.axis = axis
        self.norm = make_norm(options)
        self.mlp = MLP(size, options.expansion, options.dropout)
        self.gate = Gate(size) if options.gated else None
        self.attention = MultiHeadAttention(options.d_model, options.heads, options.dropout) if attention else None
        self.norm_attention = make_norm(options) if attention else None

    def forward(self, x: Tensor) -> Tensor:
        """``(B, R, N, D)`` → ``(B, R, N, D)``."""
        normed = self.norm(x)
        y = normed.transpose(self.axis, 3)
        # over variates the authors' code gates what goes into the MLP, elsewhere what comes out of it
        if self.gate is not None and self.axis == 1:
            y = self.gate(y)
        y = self.mlp(y)
        if self.gate is not None and self.axis != 1:
            y = self.gate(y)
        y = y.transpose(self.axis, 3)
        if self.attention is not None and self.norm_attention is not None:
            y = self.norm_attention(y + self.attention(normed.flatten(0, 1)).view_as(normed))
        return x + y


class Backbone(nn.Module):
    """From normalised lookbacks to features of patches (paper, section 3.2).

    Args:
        lookback, variates: L, C.
    """

    def __init__(self, lookback: int, variates: int, options: TSMixerConfig) -> None:
        super().__init__()
        self.options = options
        self.token = options.patch_length * (variates if options.backbone == "vanilla" else 1)
        self.embed = nn.Linear(self.token, options.d_model)
        sizes = [(2, options.patches(lookback)), (3, options.d_model)]
        if options.backbone == "inter_channel":
            sizes.insert(0, (1, variates))
        self.layers = nn.Sequential(
            *(
                Mixer(axis, size, options, attention=options.self_attention and axis == 2)
                for _ in range(options.layers)
                for axis, size in sizes
            )
        )

    def tokens(self, past: Tensor) -> Tensor:
        """Patches of lookbacks (or of their masks), ``(B, L, C)`` → ``(B, R, N, S)``; with R = 1, S = C · rows."""
        patches = past.transpose(1, 2).unfold(2, self.options.patch_length, self.options.stride)
        return patches.transpose(1, 2).flatten(2)[:, None] if self.options.backbone == "vanilla" else patches

    def forward(self, tokens: Tensor) -> Tensor:
        """Features of the patches, ``(B, R, N, S)`` → ``(B, R, N, D)``."""
        features: Tensor = self.layers(self.embed(tokens))
        return features
