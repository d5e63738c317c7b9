"""Blocks that two or more models share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MultiHeadAttention(nn.Module):
    """Full scaled dot-product self-attention (Vaswani et al., 2017), one projection for queries, keys and values.

    Args:
        width: D, the model width; must be a multiple of ``heads``.
        dropout: On the attention weights.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, tokens, width = x.shape
        qkv = self.project_in(x).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, N, E)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``(B, N, D)`` → ``(B, N, D)``."""
        q, k, v = self._split(x)
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.project_out(mixed.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor) -> Tensor:
        """Attention weights ``(B, heads, N, N)``, rows sum to 1."""
        q, k, _ = self._split(x)
        return torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, dim=-1)


class EncoderLayer(nn.Module):
    """Attention and feed-forward, each followed by a residual sum and LayerNorm (post-norm).

    Args:
        attention: Maps ``(B, N, D)`` to ``(B, N, D)``.
        hidden: Width of the feed-forward part.
        activation: ``gelu`` or ``relu``.
    """

    def __init__(self, attention: nn.Module, width: int, hidden: int, dropout: float, activation: str) -> None:
        super().__init__()
        self.attention = attention
        self.widen, self.narrow = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm_attention, self.norm_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.activation = {"gelu": F.gelu, "relu": F.relu}[activation]

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``(B, N, D)`` → ``(B, N, D)``."""
        x = self.norm_attention(x + self.dropout(self.attention(x)))
        hidden = self.dropout(self.activation(self.widen(x)))
        return self.norm_forward(x + self.dropout(self.narrow(hidden)))


class MovingAverage(nn.Module):
    """Trend of a series by a centred moving average with replicated ends (Autoformer, section 3.1; DLinear).

    Args:
        window: Odd or even length in steps; an even one looks one step further ahead, as published.
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """``(B, L, C)`` → trend ``(B, L, C)``."""
        before = (self.window - 1) // 2
        padded = F.pad(x.transpose(1, 2), (before, self.window - 1 - before), mode="replicate")
        return F.avg_pool1d(padded, self.window, stride=1).transpose(1, 2)
