"""Parts of Autoformer: decomposition, auto-correlation, layers, embeddings. Letters: B samples, L steps, D width."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from forecasting.layers import Dropout, MovingAverage
from forecasting.models.autoformer.config import AutoformerConfig
from kernels.autocorrelation import aggregate, lag_scores


class Embedding(nn.Module):
    """Values by a circular convolution over three steps, calendar features by a linear map; no positions (section 4).

    Args:
        channels: Values and covariates of a step.
        calendar: F.
    """

    def __init__(self, channels: int, calendar: int, width: int, dropout: float) -> None:
        super().__init__()
        self.values = nn.Conv1d(channels, width, 3, padding=1, padding_mode="circular", bias=False)
        nn.init.kaiming_normal_(self.values.weight, nonlinearity="leaky_relu")
        self.calendar = nn.Linear(calendar, width, bias=False) if calendar else None
        self.dropout = Dropout(dropout)

    def forward(self, values: Tensor, calendar: Tensor) -> Tensor:
        """``(B, L, channels)`` and ``(B, L, F)`` → ``(B, L, D)``."""
        x = self.values(values.transpose(1, 2)).transpose(1, 2)
        return self.dropout(x if self.calendar is None else x + self.calendar(calendar))


class Decomposition(nn.Module):
    """The seasonal part of a series: what is left of it without its moving average (paper, equation 1).

    The average with replicated ends is one matrix for a length, and a product with it several times faster than
    pooling over many channels. The matrix holds whole numbers, exact in every precision.
    """

    counts: Tensor

    def __init__(self, length: int, window: int) -> None:
        super().__init__()
        self.window = window
        average = MovingAverage(window)(torch.eye(length)[None])
        self.register_buffer("counts", (average * window).round(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, L, D)`` → seasonal part ``(B, L, D)``; the rest is the trend."""
        counts = self.counts.to(x.dtype).expand(x.shape[0], -1, -1)
        with torch.autocast(x.device.type, enabled=False):
            return torch.baddbmm(x, counts, x, alpha=-1 / self.window)


class DelayChoice(nn.Module):
    """The best delays by their scores: of the whole batch in training, of each window otherwise (section 3.2).

    Args:
        count: n.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, scores: Tensor, votes: Tensor | None) -> Tensor:
        """Scores ``(B, L)`` and whether a window counts ``(B,)`` → delays, ``(n,)`` in training, else ``(B, n)``."""
        if self.training:
            # the sum ranks as the mean does
            scores = (scores if votes is None else scores * votes[:, None]).sum(0)
            if dist.is_available() and dist.is_initialized():
                dist.all_reduce(scores)
        return scores.topk(self.count, dim=-1).indices


class AutoCorrelation(nn.Module):
    """Auto-correlation of a series, or of it with another one, between linear maps (section 3.2).

    Args:
        width: D.
        count: Number of delays.
    """

    def __init__(self, width: int, heads: int, count: int) -> None:
        super().__init__()
        self.heads = heads
        self.project_in, self.project_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.choose = DelayChoice(count)

    def forward(self, x: Tensor, votes: Tensor | None, memory: Tensor | None = None) -> Tensor:
        """``(B, L, D)`` → ``(B, L, D)``.

        Args:
            memory: ``(B, S, D)``, what keys and values are made of; by default ``x``.
        """
        if memory is None:
            projected = self.project_in(x).chunk(3, dim=-1)
        else:
            width, weight, bias = x.shape[-1], self.project_in.weight, self.project_in.bias
            keys_values = F.linear(memory, weight[width:], bias[width:]).chunk(2, dim=-1)
            projected = (F.linear(x, weight[:width], bias[:width]), *keys_values)
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in projected)
        return self.project_out(aggregate(q, k, v, self.choose(lag_scores(q, k), votes)).flatten(2))


class FeedForward(nn.Module):
    """Two linear maps of each step, without biases as published."""

    def __init__(self, options: AutoformerConfig) -> None:
        super().__init__()
        self.widen = nn.Linear(options.d_model, options.d_ff, bias=False)
        self.narrow = nn.Linear(options.d_ff, options.d_model, bias=False)
        self.activation: nn.Module = {"gelu": nn.GELU, "relu": nn.ReLU}[options.activation]()
        self.dropout = Dropout(options.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, L, D)`` → ``(B, L, D)``."""
        return self.dropout(self.narrow(self.dropout(self.activation(self.widen(x)))))


class EncoderLayer(nn.Module):
    """Auto-correlation and feed-forward, each followed by a residual sum and the loss of the trend (equation 3)."""

    def __init__(self, options: AutoformerConfig, split: Decomposition, count: int) -> None:
        super().__init__()
        self.correlation = AutoCorrelation(options.d_model, options.heads, count)
        self.feed_forward, self.split, self.dropout = FeedForward(options), split, Dropout(options.dropout)

    def forward(self, x: Tensor, votes: Tensor | None) -> Tensor:
        """``(B, L, D)`` → seasonal part ``(B, L, D)``."""
        x = self.split(x + self.dropout(self.correlation(x, votes)))
        return self.split(x + self.feed_forward(x))


class DecoderLayer(nn.Module):
    """As an encoder layer, with a correlation with the encoder in between, and a projection of the trends (equation 4).

    Args:
        variates: C.
    """

    def __init__(self, options: AutoformerConfig, split: Decomposition, count: int, variates: int) -> None:
        super().__init__()
        self.correlation = AutoCorrelation(options.d_model, options.heads, count)
        self.cross = AutoCorrelation(options.d_model, options.heads, count)
        self.feed_forward, self.split, self.dropout = FeedForward(options), split, Dropout(options.dropout)
        self.project = nn.Conv1d(options.d_model, variates, 3, padding=1, padding_mode="circular", bias=False)

    def forward(self, x: Tensor, encoded: Tensor, votes: Tensor | None) -> tuple[Tensor, Tensor]:
        """``(B, L, D)`` and the encoder's ``(B, S, D)`` → seasonal part ``(B, L, D)``, trend ``(B, L, C)``."""
        whole = x + self.dropout(self.correlation(x, votes))
        x = self.split(whole)
        trend = whole - x
        whole = x + self.dropout(self.cross(x, votes, encoded))
        x = self.split(whole)
        trend = trend + (whole - x)
        whole = x + self.feed_forward(x)
        x = self.split(whole)
        trend = trend + (whole - x)
        return x, self.project(trend.transpose(1, 2)).transpose(1, 2)


class SeasonalLayerNorm(nn.Module):
    """LayerNorm less its mean over time, for a seasonal part (published code); a bias would cancel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, L, D)`` → ``(B, L, D)``."""
        normed = self.norm(x)
        return normed - normed.mean(1, keepdim=True)


def fill(values: Tensor, mask: Tensor) -> Tensor:
    """Missing values of a window become the mean of the observed ones; both ``(B, L, C)``."""
    observed = torch.where(mask, values, 0.0)
    return torch.where(mask, values, observed.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1))
