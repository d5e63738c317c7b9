"""Blocks of Informer. Letters beside those of `Batch`: D width, N steps of the decoder, S steps of the memory."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forecasting.layers import Dropout, EncoderLayer, MultiHeadAttention, attention_weights, full_attention
from forecasting.models.informer.config import InformerConfig
from kernels.probsparse import active_queries, active_weights, probsparse_attention

# positions of queries, and their weights over all keys
Attended = tuple[Tensor, Tensor]


class CircularConvolution(nn.Linear):
    """Convolution over time with kernel 3 and circular padding: a linear map of each step and its two neighbours.

    The weights ``(outputs, 3 · inputs)`` are those of the step before, the step, and the step after, in this order.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(3 * inputs, outputs)

    def forward(self, input: Tensor) -> Tensor:
        """``(B, L, inputs)`` → ``(B, L, outputs)``."""
        return super().forward(torch.cat([input.roll(1, 1), input, input.roll(-1, 1)], dim=2))


class Embedding(nn.Module):
    """Values by a convolution, plus fixed sines of the position, plus a linear map of calendar features (appendix B).

    Args:
        channels, calendar, length: Numbers of values, of calendar features, and of steps.
    """

    positions: Tensor

    def __init__(self, channels: int, calendar: int, length: int, options: InformerConfig) -> None:
        super().__init__()
        self.values = CircularConvolution(channels, options.d_model)
        nn.init.kaiming_normal_(self.values.weight, nonlinearity="leaky_relu")
        self.calendar = nn.Linear(calendar, options.d_model) if calendar else None
        self.register_buffer("positions", sines(length, options.d_model), persistent=False)
        self.dropout = Dropout(options.dropout)

    def forward(self, values: Tensor, calendar: Tensor) -> Tensor:
        """``(B, L, channels)``, ``(B, L, F)`` → ``(B, L, D)``."""
        embedded = self.values(values) + self.positions
        return self.dropout(embedded if self.calendar is None else embedded + self.calendar(calendar))


def sines(length: int, width: int) -> Tensor:
    """Fixed positional encoding ``(length, width)`` (Vaswani et al., 2017, section 3.5)."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width]


class SelfAttention(MultiHeadAttention):
    """ProbSparse or full self-attention over a fixed number of steps (paper, section 3.1).

    Args:
        length: L, the number of steps.
        layer, seed: What the keys that are sampled in evaluation depend on, beside the length.
        causal: Whether a step sees itself and earlier ones only: the masked attention of the decoder.
    """

    sample: Tensor

    def __init__(self, length: int, layer: int, seed: int, options: InformerConfig, *, causal: bool = False) -> None:
        super().__init__(options.d_model, options.heads, options.dropout)
        self.causal, self.mix = causal, options.mix and causal
        self.sparse = options.attention == "probsparse"
        self.top = min(length, options.factor * math.ceil(math.log(length)))
        if self.sparse:
            self.register_buffer("sample", fixed_sample(seed, layer, length, length, self.top), persistent=False)

    def forward(self, x: Tensor, queries: int | None = None) -> Tensor:
        """Steps ``(B, L, D)`` → ``(B, M, D)``.

        Args:
            queries: M; how many of the first steps are wanted.
        """
        q, k, v = map(self._split, self.project_in(x).chunk(3, dim=-1))
        if self.sparse:
            mixed = probsparse_attention(q, k, v, self._keys(), self.top, self.causal)
        else:
            mixed = full_attention(q, k, v, self.dropout, self.causal)
        steps = mixed.reshape(x.shape) if self.mix else mixed.transpose(1, 2).flatten(2)
        return self.project_out(steps[:, :queries])

    def active(self, x: Tensor) -> Attended:
        """Positions ``(B, heads, T)`` of the steps that attend, and their weights ``(B, heads, T, L)``."""
        q, k, _ = map(self._split, self.project_in(x).chunk(3, dim=-1))
        if not self.sparse:
            return everyone(q), attention_weights(q, k, self.causal)
        found = active_queries(q, k, self._keys(), self.top)
        return found, active_weights(q, k, found, self.causal)

    def _keys(self) -> Tensor:
        """The sampled keys: new ones for each training step, the same for every forecast."""
        if not self.training:
            return self.sample
        return torch.randint(len(self.sample), self.sample.shape, device=self.sample.device)


def fixed_sample(seed: int, layer: int, queries: int, keys: int, count: int) -> Tensor:
    """Key positions ``(queries, count)`` that depend on these numbers alone, not on any call before."""
    entropy = np.random.SeedSequence((seed, layer, queries, keys)).generate_state(1, np.uint64)
    return torch.randint(keys, (queries, count), generator=torch.Generator().manual_seed(int(entropy[0])))


def everyone(q: Tensor) -> Tensor:
    """Positions ``(B, heads, N)`` of all queries ``(B, heads, N, E)``."""
    return torch.arange(q.shape[2], device=q.device).expand(q.shape[:3])


class CrossAttention(nn.Module):
    """Full attention from the steps of the decoder to those of the encoder, without a mask (paper, figure 2)."""

    def __init__(self, options: InformerConfig) -> None:
        super().__init__()
        self.heads = options.heads
        self.project_query = nn.Linear(options.d_model, options.d_model)
        self.project_memory = nn.Linear(options.d_model, 2 * options.d_model)
        self.project_out = nn.Linear(options.d_model, options.d_model)
        self.dropout = Dropout(options.dropout)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """``(B, N, D)``, ``(B, S, D)`` → ``(B, N, D)``."""
        k, v = map(self._split, self.project_memory(memory).chunk(2, dim=-1))
        mixed = full_attention(self._split(self.project_query(x)), k, v, self.dropout)
        return self.project_out(mixed.transpose(1, 2).flatten(2))

    def active(self, x: Tensor, memory: Tensor) -> Attended:
        """Positions ``(B, heads, N)`` of all steps, and their weights ``(B, heads, N, S)``."""
        q = self._split(self.project_query(x))
        k = self._split(self.project_memory(memory).chunk(2, dim=-1)[0])
        return everyone(q), attention_weights(q, k)


class Distilling(nn.Module):
    """Convolution, batch normalisation, ELU and max-pooling, which halve the sequence (paper, equation 5)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolve = CircularConvolution(width, width)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, L, D)`` → ``(B, ⌈L/2⌉, D)``."""
        convolved = self.convolve(x)
        activated = F.elu(self.norm(convolved.flatten(0, 1))).view_as(convolved)
        return F.max_pool1d(activated.transpose(1, 2), kernel_size=3, stride=2, padding=1).transpose(1, 2)


class Encoder(nn.Module):
    """Layers of self-attention with distilling between them (paper, section 3.2).

    Args:
        lengths: Steps that each layer sees.
        first: Number of the first layer, among all of the model.
    """

    def __init__(self, lengths: list[int], first: int, seed: int, options: InformerConfig) -> None:
        super().__init__()
        self.length = lengths[0]
        self.layers = nn.ModuleList(
            EncoderLayer(
                SelfAttention(length, first + number, seed, options),
                options.d_model,
                options.d_ff,
                options.dropout,
                options.activation,
            )
            for number, length in enumerate(lengths)
        )
        between = len(lengths) - 1 if options.distil else 0
        self.distil = nn.ModuleList(Distilling(options.d_model) for _ in range(between))
        self.norm = nn.LayerNorm(options.d_model)

    def states(self, x: Tensor) -> list[Tensor]:
        """Steps ``(B, L, D)`` → what each layer sees, and the output of the last."""
        states = [x[:, -self.length :]]
        for number, layer in enumerate(self.layers):
            x = layer(states[-1])
            states.append(self.distil[number](x) if number < len(self.distil) else x)
        return states

    def forward(self, x: Tensor) -> Tensor:
        """Steps ``(B, L, D)`` → ``(B, S, D)``."""
        return self.norm(self.states(x)[-1])


class DecoderLayer(nn.Module):
    """Masked self-attention, attention to the encoder, feed-forward; each with a residual sum and LayerNorm."""

    def __init__(self, length: int, layer: int, seed: int, options: InformerConfig) -> None:
        super().__init__()
        width = options.d_model
        self.attention = SelfAttention(length, layer, seed, options, causal=True)
        self.cross = CrossAttention(options)
        self.widen, self.narrow = nn.Linear(width, options.d_ff), nn.Linear(options.d_ff, width)
        self.norm_attention, self.norm_cross, self.norm_forward = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = Dropout(options.dropout)
        self.activation: nn.Module = {"gelu": nn.GELU, "relu": nn.ReLU}[options.activation]()

    def ask(self, x: Tensor) -> Tensor:
        """What the steps ``(B, N, D)`` ask the encoder."""
        return self.norm_attention(x + self.dropout(self.attention(x)))

    def forward(self, x: Tensor, memory: Tensor, keep: int = 0) -> Tensor:
        """``(B, N, D)``, ``(B, S, D)`` → ``(B, N, D)``, or the last ``keep`` steps where only they are wanted."""
        x = self.ask(x)[:, -keep:]
        x = self.norm_cross(x + self.dropout(self.cross(x, memory)))
        hidden = self.dropout(self.activation(self.widen(x)))
        return self.norm_forward(x + self.dropout(self.narrow(hidden)))
