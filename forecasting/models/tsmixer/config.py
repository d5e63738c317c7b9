"""Options of TSMixer, and whether they fit a task."""

from dataclasses import dataclass
from typing import Literal

from datasets.errors import ForetideError
from datasets.options import require, tunable
from forecasting.forecaster import Architecture, Task


@dataclass(frozen=True)
class TSMixerConfig(Architecture):
    """Options of TSMixer.

    Args:
        backbone: ``independent`` shares all weights between the variates, ``inter_channel`` also mixes them in every
            layer, ``vanilla`` makes one token of the patches of all variates.
        patch_length: Rows of a patch.
        stride: Rows from one patch to the next.
        layers: Mixer layers.
        d_model: Width of a patch's features.
        expansion: Hidden width of each MLP, in multiples of what it mixes.
        dropout: In the mixer layers.
        head_dropout: Before the forecast head.
        gated: Gated attention after each MLP.
        self_attention: Self-attention over patches beside the MLP over patches.
        heads: Heads of that attention; must divide ``d_model``.
        norm: Normalisation of the features before each MLP.
        hierarchy: Patch reconciliation head: forecasts the sum over each patch of the horizon too, and corrects the
            forecast by it.
        cross_channel: Cross-channel reconciliation head: corrects each step of a variate by the forecasts of all
            variates around it.
        context: Steps before and after that the cross-channel head sees.
    """

    backbone: Literal["independent", "inter_channel", "vanilla"] = tunable(
        "independent", choices=("independent", "inter_channel")
    )
    patch_length: int = tunable(8, choices=(8, 16))
    stride: int = 8
    layers: int = tunable(3, low=2, high=8)
    d_model: int = tunable(48, choices=(16, 32, 48, 64))
    expansion: int = tunable(3, low=2, high=5)
    dropout: float = tunable(0.5, low=0.1, high=0.8)
    head_dropout: float = tunable(0.7, low=0.1, high=0.8)
    gated: bool = True
    self_attention: bool = False
    heads: int = 1
    norm: Literal["layer", "batch"] = "layer"
    hierarchy: bool = tunable(False, choices=(False, True))
    cross_channel: bool = tunable(False, choices=(False, True))
    context: int = tunable(1, choices=(0, 1, 3))

    def __post_init__(self) -> None:
        for name in ("patch_length", "stride", "layers", "d_model", "expansion"):
            require(getattr(self, name) >= 1, f"architecture.{name}", getattr(self, name), "at least 1")
        require(
            self.stride <= self.patch_length,
            "architecture.stride",
            self.stride,
            f"at most architecture.patch_length = {self.patch_length}, so that no row is left out",
        )
        require(
            not self.self_attention or (self.heads >= 1 and self.d_model % self.heads == 0),
            "architecture.heads",
            self.heads,
            f"a divisor of architecture.d_model = {self.d_model}",
        )
        for name in ("dropout", "head_dropout"):
            require(0 <= getattr(self, name) < 1, f"architecture.{name}", getattr(self, name), "0 to below 1")
        require(self.context >= 0, "architecture.context", self.context, "0 or more")

    @property
    def binds_variates(self) -> bool:
        """Whether the weights belong to the variates of the training, in their order."""
        return self.backbone != "independent" or self.cross_channel

    def patches(self, lookback: int) -> int:
        """Number of patches of a lookback."""
        return (lookback - self.patch_length) // self.stride + 1

    def check(self, task: Task) -> None:
        """Refuses sizes that do not fit, in words that say what does.

        Raises:
            ForetideError: Patches do not cover the lookback or the horizon, or there is nothing to mix or reconcile.
        """
        length, stride = self.patch_length, self.stride
        spare = task.lookback - length
        if spare < 0 or spare % stride:
            below = length + spare // stride * stride
            near = f"{below} or {below + stride}" if below >= length else f"at least {length}"
            raise ForetideError(
                f"TSMixer: found lookback {task.lookback}, which patches of {length} rows every {stride} do not fill; "
                f"set --lookback {near}, or --architecture.patch_length and --architecture.stride"
            )
        if task.variates == 1 and (self.backbone == "inter_channel" or self.cross_channel):
            option = "backbone inter_channel" if self.backbone == "inter_channel" else "cross_channel true"
            raise ForetideError(
                f"architecture.{option}: found 1 variate, expected at least 2 to mix; set "
                "--architecture.backbone independent and --architecture.cross_channel false"
            )
        if self.cross_channel and 2 * self.context + 1 > task.horizon:
            raise ForetideError(
                f"architecture.context: found {self.context}, a window of {2 * self.context + 1} steps, expected at "
                f"most {(task.horizon - 1) // 2} for the horizon of {task.horizon}"
            )
        if self.hierarchy and task.horizon % length:
            raise ForetideError(
                f"architecture.hierarchy: found horizon {task.horizon}, expected a multiple of "
                f"architecture.patch_length = {length}, whose sums it forecasts"
            )
