"""The two online reconciliation heads (paper, section 3.2): over patches of the horizon, and over variates.

Both add to the forecast what they make of it, and are trained with it. Of a probabilistic head, each output (a
quantile, a parameter) is reconciled by itself, with the same weights.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forecasting.models.tsmixer.backbone import Gate


class PatchReconciliation(nn.Module):
    """Corrects the forecast by one of its sums over patches.

    Each patch of the forecast, with the forecast of its sum appended, goes through one linear map, shared by all
    patches; a residual sum keeps the forecast where the sums are no help.

    Args:
        length: Steps of a patch.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.project = nn.Linear(length + 1, length)

    def forward(self, outputs: Tensor, sums: Tensor) -> Tensor:
        """Forecasts ``(B, C, P, H)`` and patch sums ``(B, C, M)`` → forecasts ``(B, C, P, H)``."""
        patches = outputs.unflatten(-1, (-1, self.length))  # (B, C, P, M, length)
        appended = sums[:, :, None, :, None].expand(*patches.shape[:-1], 1)
        return outputs + self.project(torch.cat([patches, appended], dim=-1)).flatten(-2)


class ChannelReconciliation(nn.Module):
    """Corrects each step of each variate by the forecasts of all variates in a window around it.

    The window of a step, flattened over variates, goes through gated attention and one linear map; beyond the ends of
    the horizon it holds zeros, the mean of the normalised lookback.

    Args:
        variates: C.
        context: Steps on each side.
    """

    def __init__(self, variates: int, context: int) -> None:
        super().__init__()
        self.context = context
        size = variates * (2 * context + 1)
        self.gate = Gate(size)
        self.project = nn.Linear(size, variates)

    def forward(self, outputs: Tensor) -> Tensor:
        """Forecasts ``(B, C, P, H)`` → forecasts ``(B, C, P, H)``."""
        padded = F.pad(outputs, (self.context, self.context))
        windows = padded.unfold(-1, 2 * self.context + 1, 1)  # (B, C, P, H, window)
        flat = windows.permute(0, 2, 3, 1, 4).flatten(3)  # (B, P, H, C · window)
        return outputs + self.project(self.gate(flat)).permute(0, 3, 1, 2)
