"""Losses as masked sums: each returns the sum over the scored elements, and the caller divides by their number.

Sums rather than means, so that a step spread over several processes can divide by the number of elements in all of
them.
"""

import math

import torch
from torch import Tensor


def squared(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Sum of squared errors; all tensors ``(B, H, C)``."""
    return (_error(output, target, mask) ** 2).sum()


def absolute(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Sum of absolute errors; all tensors ``(B, H, C)``."""
    return _error(output, target, mask).abs().sum()


def huber(output: Tensor, target: Tensor, mask: Tensor, delta: float) -> Tensor:
    """Sum of Huber losses (Huber, 1964): square below ``delta``, absolute above."""
    error = _error(output, target, mask).abs()
    return torch.where(error <= delta, 0.5 * error**2, delta * (error - 0.5 * delta)).sum()


def pinball(output: Tensor, target: Tensor, mask: Tensor, levels: Tensor) -> Tensor:
    """Sum over elements of the pinball loss averaged over levels (Koenker & Bassett, 1978).

    Args:
        output: Quantiles ``(B, H, C, Q)``.
        target, mask: ``(B, H, C)``.
        levels: ``(Q,)``.
    """
    error = -_error(output, target[..., None], mask[..., None])
    return torch.maximum(levels * error, (levels - 1) * error).mean(-1).sum()


def student_t_mixture(
    log_weights: Tensor, location: Tensor, scale: Tensor, freedom: Tensor, target: Tensor, mask: Tensor
) -> Tensor:
    """Sum of negative log-likelihoods of a mixture of Student-t distributions; parameters ``(B, H, C, K)``."""
    z = _error(location, target[..., None], mask[..., None]) / scale
    log_density = (
        torch.lgamma((freedom + 1) / 2)
        - torch.lgamma(freedom / 2)
        - 0.5 * torch.log(freedom * math.pi)
        - torch.log(scale)
        - (freedom + 1) / 2 * torch.log1p(z**2 / freedom)
    )
    return torch.where(mask, -torch.logsumexp(log_weights + log_density, dim=-1), 0.0).sum()


def _error(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Output less target, 0 where it is not scored."""
    # masked before anything is made of it: an unobserved target may be NaN, and later the gradient would be NaN too
    return torch.where(mask, output - target, 0.0)
