"""The model: encoders over the lookback, and a decoder that fills the horizon in one pass."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.windows import Batch
from forecasting.forecaster import Forecaster, Recipe, Supports, Task
from forecasting.models.informer.blocks import Attended, DecoderLayer, Embedding, Encoder
from forecasting.models.informer.config import InformerConfig, check


class Informer(Forecaster):
    """Encoder over the lookback; decoder over a start token of known rows and zeros in place of the horizon's.

    The decoder sees the calendar of the horizon and fills all of its rows in one pass (paper, section 3.3). Covariates
    are further channels of both inputs: past ones are zero over the horizon, future ones known there, static ones
    constant. The keys that decide which queries attend are drawn anew in each training step; in evaluation they
    depend on the seed, the layer and the length only.
    """

    Config = InformerConfig
    supports = Supports(past=True, future=True, static=True, calendar=True)
    title = "Informer"
    defaults: ClassVar[Mapping[str, Any]] = {"normalization": "none", "training": {"max_epochs": 6}}

    def __init__(self, task: Task, architecture: InformerConfig, recipe: Recipe) -> None:
        super().__init__(task, architecture, recipe)
        label, seed = architecture.label(task.lookback), recipe.training.seed
        self.start, length = task.lookback - label, label + task.horizon
        channels = task.variates + task.past + task.future + task.static
        self.embed = Embedding(channels, task.calendar, task.lookback, architecture)
        self.embed_decoder = Embedding(channels, task.calendar, length, architecture)
        self.encoders, count = nn.ModuleList(), 0
        for layers in (architecture.layers, *architecture.stack):
            self.encoders.append(Encoder(architecture.lengths(task.lookback, layers), count, seed, architecture))
            count += layers
        self.decoder = nn.ModuleList(
            DecoderLayer(length, count + number, seed, architecture) for number in range(architecture.decoder_layers)
        )
        self.norm = nn.LayerNorm(architecture.d_model)
        self.project = nn.Linear(architecture.d_model, task.variates * self.head.size)

    @classmethod
    def check_architecture(cls, task: Task, architecture: Any) -> None:
        """Refuses a start token longer than the lookback, and a lookback that distilling would use up."""
        check(task, architecture)

    def forward(self, batch: Batch) -> Tensor:
        """See `Forecaster.forward`."""
        values, calendar = self._inputs(batch)
        memory, x = self._memory(values, calendar), self._query(values, calendar)
        for layer in self.decoder[:-1]:
            x = layer(x, memory)
        # the start token's rows are not read after the last self-attention
        x = self.decoder[-1](x, memory, self.task.horizon)
        return self.project(self.norm(x)).unflatten(2, (self.task.variates, self.head.size))

    @torch.no_grad()
    def attention(self, batch: Batch) -> dict[str, Attended]:
        """Who attends to what, by layer.

        Returns:
            For each attention the positions ``(B, heads, T)`` of its active queries, the most active first, and their
            weights ``(B, heads, T, S)`` over all keys, which are steps of what the layer sees: rows of the lookback,
            rows after distilling, or rows of start token and horizon.
        """
        normalized, _ = self._normalization.normalize(batch)
        values, calendar = self._inputs(normalized)
        x, found = self.embed(values[:, : self.task.lookback], calendar[:, : self.task.lookback]), {}
        for number, encoder in enumerate(self.encoders, 1):
            assert isinstance(encoder, Encoder)
            for depth, (layer, seen) in enumerate(zip(encoder.layers, encoder.states(x), strict=False), 1):
                found[f"encoder {number}, layer {depth}"] = layer.attention.active(seen)  # type: ignore[union-attr, operator]
        memory, x = self._memory(values, calendar), self._query(values, calendar)
        for depth, layer in enumerate(self.decoder, 1):
            assert isinstance(layer, DecoderLayer)
            found[f"decoder, layer {depth}"] = layer.attention.active(x)
            found[f"decoder to encoder, layer {depth}"] = layer.cross.active(layer.ask(x), memory)
            x = layer(x, memory)
        return found

    def _inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Channels ``(B, L + H, C + P + K + J)``, zero where unknown, and calendar features ``(B, L + H, F)``."""
        rows, task = self.task.lookback + self.task.horizon, self.task
        columns = [F.pad(batch.past, (0, 0, 0, task.horizon))]
        if batch.past_covariates is not None and task.past:
            columns.append(F.pad(batch.past_covariates, (0, 0, 0, task.horizon)))
        if batch.future_covariates is not None and task.future:
            columns.append(batch.future_covariates)
        if batch.static is not None and task.static:
            columns.append(batch.static[:, None].expand(-1, rows, -1))
        return torch.cat(columns, dim=2), torch.cat([batch.past_calendar, batch.future_calendar], dim=1)

    def _memory(self, values: Tensor, calendar: Tensor) -> Tensor:
        """What the encoders make of the lookback, one after the other: ``(B, S, D)``."""
        x = self.embed(values[:, : self.task.lookback], calendar[:, : self.task.lookback])
        return torch.cat([encoder(x) for encoder in self.encoders], dim=1)

    def _query(self, values: Tensor, calendar: Tensor) -> Tensor:
        """Start token and placeholders, embedded."""
        return self.embed_decoder(values[:, self.start :], calendar[:, self.start :])
