"""The model: an encoder of seasonal parts, and a decoder that adds up trends."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.windows import Batch
from forecasting.forecaster import Forecaster, Recipe, Supports, Task
from forecasting.models.autoformer.blocks import (
    AutoCorrelation,
    DecoderLayer,
    Decomposition,
    Embedding,
    EncoderLayer,
    SeasonalLayerNorm,
    fill,
)
from forecasting.models.autoformer.config import AutoformerConfig, check


class Autoformer(Forecaster):
    """Encoder and decoder that split off a trend after every block; the decoder adds the trends up (paper, section 3).

    The decoder's seasonal part goes through the head; its trend, one number for each step and variate, moves the
    head's outputs as a location does, so that a point forecast is the published sum of the two. Covariates are
    further channels of the value embeddings: past ones in the encoder, future and static ones in both. Missing values
    take the mean of the window's observed ones.

    In training the delays are common to the batch, and to all processes of a step; otherwise each window has its own.
    """

    Config = AutoformerConfig
    supports = Supports(past=True, future=True, static=True, calendar=True)
    title = "Autoformer"
    # no instance normalisation, as published
    defaults: ClassVar[Mapping[str, Any]] = {"normalization": "none"}

    def __init__(self, task: Task, architecture: AutoformerConfig, recipe: Recipe) -> None:
        super().__init__(task, architecture, recipe)
        self.label, width = architecture.label(task.lookback), architecture.d_model
        lengths = (task.lookback, self.label + task.horizon)
        splits = [Decomposition(length, architecture.window) for length in lengths]
        delays = [architecture.delays(length) for length in lengths]
        shared = task.variates + task.future + task.static
        self.split = splits[0]
        self.embed_past = Embedding(shared + task.past, task.calendar, width, architecture.dropout)
        self.embed_future = Embedding(shared, task.calendar, width, architecture.dropout)
        self.encoder = nn.ModuleList(
            EncoderLayer(architecture, splits[0], delays[0]) for _ in range(architecture.layers)
        )
        self.decoder = nn.ModuleList(
            DecoderLayer(architecture, splits[1], delays[1], task.variates) for _ in range(architecture.decoder_layers)
        )
        self.norm_encoder, self.norm_decoder = SeasonalLayerNorm(width), SeasonalLayerNorm(width)
        self.project = nn.Linear(width, task.variates * self.head.size)

    @classmethod
    def check_architecture(cls, task: Task, architecture: Any) -> None:
        """Refuses a start longer than the lookback, and a factor that leaves no delay."""
        check(task, architecture)

    def forward(self, batch: Batch) -> Tensor:
        """See `Forecaster.forward`."""
        seasonal, trend = self._parts(batch)
        return self.head.affine(seasonal, trend, torch.ones_like(trend))

    @torch.no_grad()
    def parts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Seasonal and trend part of the forecast, each ``(B, H, C)``; they add up to it, in the units of the batch."""
        normalized, (location, scale) = self._normalization.normalize(batch)
        seasonal, trend = self._parts(normalized)
        return self.head.point(seasonal) * scale, trend * scale + location

    @torch.no_grad()
    def periods(self, batch: Batch, step: float = 1.0) -> dict[str, tuple[Tensor, Tensor]]:
        """The delays that each auto-correlation chose, best first, and their weights, each ``(B, n)``.

        Args:
            step: Length of a row in the wanted unit: 1 for periods in rows, 0.25 for hours at 15 minutes.
        """
        normalized, _ = self._normalization.normalize(batch)
        found: dict[str, tuple[Tensor, Tensor]] = {}

        def note(name: str, _: nn.Module, inputs: tuple[Tensor, ...], lags: Tensor) -> None:
            every = lags.expand(len(batch), -1)
            found[name] = (every * step, inputs[0].gather(1, every).softmax(1))

        choices = {name: m.choose for name, m in self.named_modules() if isinstance(m, AutoCorrelation)}
        hooks = [choose.register_forward_hook(partial(note, name)) for name, choose in choices.items()]
        try:
            self._parts(normalized)
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def _parts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Head outputs of the seasonal part ``(B, H, C, P)``, and the trend ``(B, H, C)``."""
        first, horizon = self.task.lookback - self.label, self.task.horizon
        # a window that is not scored has no say in the delays of its batch
        votes = None if batch.future_mask is None else batch.future_mask.any(2).any(1)
        past = fill(batch.past, batch.past_mask)
        known = [past] if batch.past_covariates is None or not self.task.past else [past, batch.past_covariates]
        encoded = self.embed_past(self._channels(batch, known, 0), batch.past_calendar)
        for layer in self.encoder:
            encoded = layer(encoded, votes)
        encoded = self.norm_encoder(encoded)
        start = F.pad(self.split(past)[:, first:], (0, 0, 0, horizon))
        calendar = torch.cat([batch.past_calendar[:, first:], batch.future_calendar], dim=1)
        x = self.embed_future(self._channels(batch, [start], first), calendar)
        # the published trend also starts with that of the label's rows, which is never read
        trend = past.mean(1, keepdim=True).expand(-1, horizon, -1)
        for layer in self.decoder:
            x, added = layer(x, encoded, votes)
            trend = trend + added[:, -horizon:]
        outputs = self.project(self.norm_decoder(x)[:, -horizon:])  # (B, H, C·P)
        return outputs.unflatten(-1, (self.task.variates, self.head.size)), trend

    def _channels(self, batch: Batch, columns: list[Tensor], first: int) -> Tensor:
        """Columns, and the covariates known over their steps, of which the first is step ``first`` of the window."""
        steps = columns[0].shape[1]
        if batch.future_covariates is not None and self.task.future:
            columns = [*columns, batch.future_covariates[:, first : first + steps]]
        if batch.static is not None and self.task.static:
            columns = [*columns, batch.static[:, None].expand(-1, steps, -1)]
        return torch.cat(columns, dim=2) if len(columns) > 1 else columns[0]
