"""S-Mamba (Wang et al., "Is Mamba effective for time series forecasting?", Neurocomputing 2025)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.options import require, tunable
from datasets.windows import Batch
from forecasting.forecaster import Architecture, Recipe, Supports, Task
from forecasting.layers import Dropout
from forecasting.variate_tokens import VariateTokenForecaster
from kernels.selective_scan import bidirectional_selective_scan


@dataclass(frozen=True)
class SMambaConfig(Architecture):
    """Options of S-Mamba.

    Args:
        layers: Encoder layers, each with a Mamba block for either direction.
        d_model: Width of a token.
        d_ff: Width of the feed-forward part.
        d_state: States of a channel in the scan; the paper takes 2 for few variates and 16 or 32 for many.
        d_conv: Tokens that the short convolution before the scan spans.
        expand: Channels of the scan, as a multiple of ``d_model``.
        dropout: On embeddings and the feed-forward part.
        activation: Of the feed-forward part.
    """

    layers: int = tunable(2, low=1, high=4)
    d_model: int = tunable(256, choices=(64, 128, 256, 512))
    d_ff: int = tunable(256, choices=(64, 128, 256, 512))
    d_state: int = tunable(2, choices=(2, 8, 16, 32))
    d_conv: int = tunable(2, choices=(2, 3, 4))
    expand: int = tunable(1, choices=(1, 2))
    dropout: float = tunable(0.1, low=0.0, high=0.4)
    activation: Literal["gelu", "relu"] = "gelu"

    def __post_init__(self) -> None:
        require(self.layers >= 1, "architecture.layers", self.layers, "at least 1")
        require(self.d_model >= 1, "architecture.d_model", self.d_model, "at least 1")
        require(self.d_ff >= 1, "architecture.d_ff", self.d_ff, "at least 1")
        require(2 <= self.d_state <= 64, "architecture.d_state", self.d_state, "2 to 64")
        require(2 <= self.d_conv <= 4, "architecture.d_conv", self.d_conv, "2 to 4")
        require(1 <= self.expand <= 4, "architecture.expand", self.expand, "1 to 4")
        require(0 <= self.dropout < 1, "architecture.dropout", self.dropout, "0 to below 1")


class BidirectionalMamba(nn.Module):
    """Two Mamba blocks (Gu & Dao, 2023, section 3.4) over the same tokens, one from either end, summed.

    Each has weights of its own; as both see the same tokens, their projections are one product, and so is the sum of
    their outputs. Stacked parameters have the forward direction first. Initialised as published: A = -(1 … N), D = 1,
    and steps spread log-uniformly over 0.001 to 0.1.

    Args:
        width: D, of a token.
        states: N.
        taps: Tokens that the convolution spans: each and those just before it in the direction of the scan.
        expand: E = ``expand`` · D channels are scanned.
    """

    def __init__(self, width: int, states: int, taps: int, expand: int) -> None:
        super().__init__()
        self.channels, self.states, self.rank = expand * width, states, -(-width // 16)
        both = (2, self.channels)
        self.project_in = nn.Linear(width, 4 * self.channels, bias=False)  # scanned forwards, backwards; their gates
        self.conv_weight, self.conv_bias = nn.Parameter(torch.empty(*both, taps)), nn.Parameter(torch.empty(both))
        self.select = nn.Parameter(torch.empty(2, self.rank + 2 * states, self.channels))
        self.step_weight, self.step_bias = nn.Parameter(torch.empty(*both, self.rank)), nn.Parameter(torch.empty(both))
        self.A_log, self.D = nn.Parameter(torch.empty(*both, states)), nn.Parameter(torch.empty(both))
        self.project_out = nn.Linear(2 * self.channels, width, bias=False)
        self._initialize()

    @torch.no_grad()
    def _initialize(self) -> None:
        taps, channels = self.conv_weight.shape[2], self.channels
        for weight, inputs in (
            (self.conv_weight, taps),
            (self.conv_bias, taps),
            (self.select, channels),
            (self.step_weight, self.rank),
            (self.project_out.weight, channels),  # two maps of E inputs side by side, not one of 2E
        ):
            nn.init.uniform_(weight, -(inputs**-0.5), inputs**-0.5)
        step = torch.exp(torch.empty_like(self.step_bias).uniform_(math.log(1e-3), math.log(1e-1)))
        self.step_bias.copy_(step + torch.log(-torch.expm1(-step)))  # softplus of it is the step
        self.A_log.copy_(torch.arange(1, self.states + 1).log().expand_as(self.A_log))
        nn.init.ones_(self.D)

    def forward(self, x: Tensor, keep: int | None = None) -> Tensor:
        """Tokens ``(B, T, D)`` → ``(B, M, D)``.

        Args:
            keep: M; the number of tokens, from the first, whose output is wanted.
        """
        scanned, gate = self.project_in(x).chunk(2, dim=-1)  # (B, T, 2E)
        u = self._convolve(scanned)
        delta, wide, read = self._selection(u)
        y = bidirectional_selective_scan(
            self._channels_first(u),
            delta,
            -torch.exp(self.A_log),
            wide,
            read,
            self.D,
            self._channels_first(gate),
            self.step_bias,
            delta_softplus=True,
        )
        return self.project_out(y.permute(1, 3, 0, 2).flatten(2)[:, :keep])

    def steps(self, x: Tensor) -> Tensor:
        """Step sizes ``(2, B, T)``, averaged over channels: how far a token's input replaces what is remembered."""
        delta, _, _ = self._selection(self._convolve(self.project_in(x).chunk(2, dim=-1)[0]))
        return F.softplus(delta + self.step_bias[:, None, :, None]).mean(2)

    def _convolve(self, x: Tensor) -> Tensor:
        """Depthwise causal convolution and SiLU, ``(B, T, 2E)``, where causal means "in the direction of the scan"."""
        forwards, backwards = x.chunk(2, dim=-1)
        mixed = torch.addcmul(self.conv_bias.flatten(), x, self.conv_weight[..., -1].flatten())
        for back in range(1, self.conv_weight.shape[2]):
            before = (F.pad(forwards, (0, 0, back, 0))[:, :-back], F.pad(backwards, (0, 0, 0, back))[:, back:])
            mixed = torch.addcmul(mixed, torch.cat(before, dim=-1), self.conv_weight[..., -1 - back].flatten())
        return F.silu(mixed)

    def _selection(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What depends on the token: Δ before bias and softplus ``(2, B, E, T)``, B and C ``(2, B, N, T)``."""
        rows = u.unflatten(-1, (2, -1)).flatten(0, 1).transpose(0, 1)  # (2, B·T, E)
        step, wide, read = torch.bmm(rows, self.select.mT).split([self.rank, self.states, self.states], dim=-1)
        delta, wide, read = (
            part.unflatten(1, u.shape[:2]).mT for part in (torch.bmm(step, self.step_weight.mT), wide, read)
        )
        return delta, wide, read

    def _channels_first(self, x: Tensor) -> Tensor:
        """``(B, T, 2E)`` → a view ``(2, B, E, T)``."""
        return x.unflatten(-1, (2, -1)).permute(2, 0, 3, 1)


class SMambaLayer(nn.Module):
    """Mamba in both directions across variates, then a feed-forward part for time (paper, sections 4.2 and 4.3).

    Each is followed by LayerNorm over its residual sum.
    """

    def __init__(self, options: SMambaConfig) -> None:
        super().__init__()
        width, hidden = options.d_model, options.d_ff
        self.mamba = BidirectionalMamba(width, options.d_state, options.d_conv, options.expand)
        self.widen, self.narrow = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm_mamba, self.norm_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = Dropout(options.dropout)
        self.activation: nn.Module = {"gelu": nn.GELU, "relu": nn.ReLU}[options.activation]()

    def forward(self, x: Tensor, keep: int | None = None) -> Tensor:
        """Tokens ``(B, T, D)`` → ``(B, M, D)``; ``keep`` is M, the number of tokens whose output is wanted."""
        x = self.norm_mamba(x[:, :keep] + self.mamba(x, keep))
        hidden = self.dropout(self.activation(self.widen(x)))
        return self.norm_forward(x + self.dropout(self.narrow(hidden)))


class SMamba(VariateTokenForecaster):
    """Mamba over variates: each variate's whole lookback is one token, and the tokens are scanned from either end.

    Calendar features follow the variates as further tokens of the same embedding, as published; then past covariates
    of the same embedding, future covariates with one of their own over lookback and horizon, and one static token.
    Weights do not depend on the number of variates, so some may train and all be forecast (paper, section 5.8). The
    scan is sequential, though: another order of the variates is another forecast (section 5.5).
    """

    Config = SMambaConfig
    supports = Supports(past=True, future=True, static=True, calendar=True, any_variates=True)
    title = "S-Mamba"

    def __init__(self, task: Task, architecture: SMambaConfig, recipe: Recipe) -> None:
        super().__init__(task, architecture, recipe)
        width = architecture.d_model
        self.encoder = nn.ModuleList(SMambaLayer(architecture) for _ in range(architecture.layers))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, task.horizon * self.head.size)

    @torch.no_grad()
    def steps(self, batch: Batch) -> Tensor:
        """Mean step sizes ``(layers, 2, B, T)`` of both directions; the first C of the T tokens are the variates.

        A token with a large step overwrites what the scan remembers, one with a small step is passed over: this is the
        selection of Mamba, and the nearest that it has to an attention map.
        """
        normalized, _ = self._normalization.normalize(batch)
        tokens, found = self.tokens(normalized), []
        for layer in self.encoder:
            assert isinstance(layer, SMambaLayer)
            found.append(layer.mamba.steps(tokens))
            tokens = layer(tokens)
        return torch.stack(found)
