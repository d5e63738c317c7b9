"""The forecaster: backbone, forecast head, reconciliation heads, and the loss of the hierarchy."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from datasets.options import require
from datasets.windows import Batch
from forecasting.forecaster import Forecaster, Recipe, Supports, Task
from forecasting.heads import PointHead
from forecasting.layers import Dropout
from forecasting.models.tsmixer.backbone import Backbone, Gate
from forecasting.models.tsmixer.config import TSMixerConfig
from forecasting.models.tsmixer.reconciliation import ChannelReconciliation, PatchReconciliation


class TSMixer(Forecaster):
    """An MLP-Mixer over patches (Ekambaram et al., KDD 2023), PatchTSMixer in the authors' own release.

    The backbone is the part that masked pre-training learns. With ``independent`` it serves any number of variates;
    ``inter_channel``, ``vanilla`` and the cross-channel head are bound to those of the training. The independent
    backbone with the cross-channel head is the paper's hybrid.
    """

    Config = TSMixerConfig
    supports = Supports(any_variates=True)
    title = "TSMixer"
    defaults: ClassVar[Mapping[str, Any]] = {
        "lookback": 512,
        "training": {"schedule": "constant", "max_epochs": 100, "patience": 5},
    }

    def __init__(self, task: Task, architecture: TSMixerConfig, recipe: Recipe) -> None:
        super().__init__(task, architecture, recipe)
        self.options = architecture
        self.backbone = Backbone(task.lookback, task.variates, architecture)
        features = architecture.patches(task.lookback) * architecture.d_model
        together = task.variates if architecture.backbone == "vanilla" else 1
        self.dropout = Dropout(architecture.head_dropout)
        self.project = nn.Linear(features, together * self.head.size * task.horizon)
        self.sums: nn.Linear | None = None
        self.patch_reconciliation: PatchReconciliation | None = None
        self.channel_reconciliation: ChannelReconciliation | None = None
        if architecture.hierarchy:
            self.sums = nn.Linear(features, together * (task.horizon // architecture.patch_length))
            self.patch_reconciliation = PatchReconciliation(architecture.patch_length)
        if architecture.cross_channel:
            self.channel_reconciliation = ChannelReconciliation(task.variates, architecture.context)

    @classmethod
    def supported(cls, architecture: TSMixerConfig) -> Supports:
        """Any number of variates only where nothing mixes them."""
        return Supports(any_variates=not architecture.binds_variates)

    @classmethod
    def check_architecture(cls, task: Task, architecture: TSMixerConfig) -> None:
        """Refuses patches and windows that do not fit the task."""
        architecture.check(task)

    def forward(self, batch: Batch) -> Tensor:
        """See `Forecaster.forward`."""
        return self._forecast(batch)[0]

    def reconstruction(self) -> nn.Module:
        """A new head that predicts the rows of a patch from its features, for masked pre-training.

        Raises:
            ForetideError: Patches overlap, so that hidden rows could be read off their neighbours.
        """
        require(
            self.options.stride == self.options.patch_length,
            "architecture.stride",
            self.options.stride,
            f"architecture.patch_length = {self.options.patch_length} for masked pre-training",
        )
        return nn.Sequential(Dropout(self.options.head_dropout), nn.Linear(self.options.d_model, self.backbone.token))

    @torch.no_grad()
    def gates(self, batch: Batch) -> dict[str, Tensor]:
        """The weights of every gate by its name, as they are applied; the last axis is what is gated and sums to 1."""
        found: dict[str, Tensor] = {}
        named = {name: module for name, module in self.named_modules() if isinstance(module, Gate)}

        def note(name: str) -> Any:
            return lambda gate, inputs, output: found.__setitem__(name, gate.weights(inputs[0]))

        hooks = [gate.register_forward_hook(note(name)) for name, gate in named.items()]
        try:
            self.outputs(batch)
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def _forecast(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Head outputs ``(B, H, C, P)`` and, with the hierarchy, forecasts ``(B, M, C)`` of the sums over M patches."""
        count, _, variates = batch.past.shape
        features = self.dropout(self.backbone(self.backbone.tokens(batch.past)).flatten(2))  # (B, R, N · D)
        outputs = self.project(features).reshape(count, variates, self.head.size, self.task.horizon)
        sums = None
        if self.channel_reconciliation is not None:
            outputs = self.channel_reconciliation(outputs)
        if self.sums is not None and self.patch_reconciliation is not None:
            sums = self.sums(features).reshape(count, variates, -1)
            outputs = self.patch_reconciliation(outputs, sums)
            sums = sums.transpose(1, 2)
        return outputs.permute(0, 3, 1, 2), sums

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """In training the hierarchy has two terms more, one for each way to forecast a patch sum.

        With the MSE: L(Y, Ŷ) + (L(H, Ĥ) + L(H, BU(Ŷ))) / s², where H sums Y over patches of s steps, Ĥ is the forecast
        of the sums and BU(Ŷ) the sum of the forecasts. The last two are the MSE of patch means, and with another loss
        they are that loss of patch means. Validation selects by the forecast alone, as with every other model.
        """
        if self.sums is None or not self.training:
            return super()._loss(batch)
        assert batch.future is not None and batch.future_mask is not None
        normalized, (location, scale) = self._normalization.normalize(batch)
        outputs, sums = self._forecast(normalized)
        assert sums is not None
        outputs = self.head.affine(outputs, location, scale)
        total = self.head.loss(outputs, batch.future, batch.future_mask)
        length = self.options.patch_length
        loss = PointHead(self.recipe.head.loss, self.recipe.head.huber_delta)
        observed = batch.future_mask.unflatten(1, (-1, length)).all(2)  # (B, M, C)
        actual = torch.where(batch.future_mask, batch.future, 0.0).unflatten(1, (-1, length)).mean(2)
        for means in (
            sums / length * scale + location,
            self.head.point(outputs).unflatten(1, (-1, length)).mean(2),
        ):
            # a mean over patches weighs as much as one over steps, of which there are more
            total = total + length * loss.loss(means[..., None], actual, observed)
        return total, batch.future_mask.sum().to(total.dtype)
