"""Instance normalisation: an invertible wrapper that gives each window zero mean and unit scale."""

import torch
from torch import Tensor

from datasets.windows import Batch

State = tuple[Tensor, Tensor]


class InstanceNormalization:
    """Removes mean and standard deviation of each window's observed lookback, per variate.

    Non-stationary Transformer (Liu et al., NeurIPS 2022), series stationarization without learned parameters: what
    iTransformer, S-Mamba and RevIN without its affine part use.

    Args:
        epsilon: Added to the variance, as in the published code.
    """

    def __init__(self, epsilon: float = 1e-5) -> None:
        self.epsilon = epsilon

    def normalize(self, batch: Batch) -> tuple[Batch, State]:
        """The normalised batch, and the state ``(location, scale)``, each ``(B, 1, C)``."""
        mask = batch.past_mask
        count = mask.sum(1, keepdim=True).clamp(min=1)
        location = torch.where(mask, batch.past, 0.0).sum(1, keepdim=True) / count
        centered = torch.where(mask, batch.past - location, 0.0)
        scale = torch.sqrt((centered**2).sum(1, keepdim=True) / count + self.epsilon)
        return batch.replace(past=centered / scale), (location, scale)


class NoNormalization:
    """Leaves windows as they are."""

    def normalize(self, batch: Batch) -> tuple[Batch, State]:
        """The same batch, with location 0 and scale 1."""
        one = torch.ones_like(batch.past[:, :1])
        return batch, (torch.zeros_like(one), one)


def make_normalization(kind: str) -> InstanceNormalization | NoNormalization:
    """The wrapper with this name."""
    return InstanceNormalization() if kind == "instance" else NoNormalization()
