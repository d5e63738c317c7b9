"""Blocks that two or more models share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """Dropout with a mask of 16 random bits per element on the CPU, where the library's draws one number at a time.

    The probability is met to within 2⁻¹⁶. On other devices it is the library's own.

    Args:
        probability: Share of the elements that become zero in training.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self._dropped = round(probability * 65536)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; the expectation is kept."""
        if not self.training or not self._dropped:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.probability)
        words = torch.randint(-(2**63), 2**63 - 1, (-(-x.numel() // 4),))
        kept = words.view(torch.int16)[: x.numel()].view(x.shape) >= self._dropped - 32768
        # a product is vectorised in both directions, a choice by a mask in neither
        return x * kept.to(x.dtype).mul_(65536 / (65536 - self._dropped))


def full_attention(q: Tensor, k: Tensor, v: Tensor, dropout: Dropout, causal: bool = False) -> Tensor:
    """Scaled dot-product attention (Vaswani et al., 2017) of queries ``(B, heads, N, E)``; dropout on its weights."""
    if dropout.training and q.device.type == "cpu":
        return dropout(attention_weights(q, k, causal)) @ v
    probability = dropout.probability if dropout.training else 0.0
    return F.scaled_dot_product_attention(q, k, v, dropout_p=probability, is_causal=causal)


def attention_weights(q: Tensor, k: Tensor, causal: bool = False) -> Tensor:
    """Weights ``(B, heads, N, S)`` of that attention; rows sum to 1, over keys up to their own position if causal."""
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return torch.softmax(scores, dim=-1)


class MultiHeadAttention(nn.Module):
    """Full scaled dot-product self-attention (Vaswani et al., 2017), one projection for queries, keys and values.

    Args:
        width: D, the model width; must be a multiple of ``heads``.
        dropout: On the attention weights.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)
        self.dropout = Dropout(dropout)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, E)

    def forward(self, x: Tensor, queries: int | None = None) -> Tensor:
        """Tokens ``(B, N, D)`` → ``(B, M, D)``.

        Args:
            queries: M; only the first so many tokens ask, though all are attended to.
        """
        width = x.shape[-1]
        if queries is None:
            q, k, v = map(self._split, self.project_in(x).chunk(3, dim=-1))
        else:
            weight, bias = self.project_in.weight, self.project_in.bias
            q = self._split(F.linear(x[:, :queries], weight[:width], bias[:width]))
            k, v = map(self._split, F.linear(x, weight[width:], bias[width:]).chunk(2, dim=-1))
        return self.project_out(full_attention(q, k, v, self.dropout).transpose(1, 2).flatten(2))

    def weights(self, x: Tensor) -> Tensor:
        """Attention weights ``(B, heads, N, N)``, rows sum to 1."""
        q, k, _ = map(self._split, self.project_in(x).chunk(3, dim=-1))
        return attention_weights(q, k)


class EncoderLayer(nn.Module):
    """Attention and feed-forward, each followed by a residual sum and LayerNorm (post-norm).

    Args:
        hidden: Width of the feed-forward part.
        activation: ``gelu`` or ``relu``.
    """

    def __init__(self, attention: MultiHeadAttention, width: int, hidden: int, dropout: float, activation: str) -> None:
        super().__init__()
        self.attention = attention
        self.widen, self.narrow = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm_attention, self.norm_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = Dropout(dropout)
        self.activation: nn.Module = {"gelu": nn.GELU, "relu": nn.ReLU}[activation]()

    def forward(self, x: Tensor, keep: int | None = None) -> Tensor:
        """Tokens ``(B, N, D)`` → ``(B, M, D)``.

        Args:
            keep: M; in a last layer, the number of tokens whose output is wanted at all.
        """
        attended = self.attention(x, keep)
        x = self.norm_attention(x[:, :keep] + self.dropout(attended))
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
