"""Losses as masked sums: each returns the sum over the scored elements, and the caller divides by their number.

Sums rather than means, so that a step spread over several processes can divide by the number of elements in all of them.
"""

import math

import torch
from torch import Tensor


def squared(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Sum of squared errors; all tensors ``(B, H, C)``."""
    return _masked_sum((output - target) ** 2, mask)


def absolute(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Sum of absolute errors; all tensors ``(B, H, C)``."""
    return _masked_sum((output - target).abs(), mask)


def huber(output: Tensor, target: Tensor, mask: Tensor, delta: float) -> Tensor:
    """Sum of Huber losses (Huber, 1964): square below ``delta``, absolute above."""
    error = (output - target).abs()
    return _masked_sum(torch.where(error <= delta, 0.5 * error**2, delta * (error - 0.5 * delta)), mask)


def pinball(output: Tensor, target: Tensor, mask: Tensor, levels: Tensor) -> Tensor:
    """Sum over elements of the pinball loss averaged over levels (Koenker & Bassett, 1978).

    Args:
        output: Quantiles ``(B, H, C, Q)``.
        target, mask: ``(B, H, C)``.
        levels: ``(Q,)``.
    """
    error = target[..., None] - output
    return _masked_sum(torch.maximum(levels * error, (levels - 1) * error).mean(-1), mask)


def student_t_mixture(log_weights: Tensor, location: Tensor, scale: Tensor, freedom: Tensor, target: Tensor,
                      mask: Tensor) -> Tensor:
    """Sum of negative log-likelihoods of a mixture of Student-t distributions; parameters ``(B, H, C, K)``."""
    z = (target[..., None] - location) / scale
    log_density = (torch.lgamma((freedom + 1) / 2) - torch.lgamma(freedom / 2) - 0.5 * torch.log(freedom * math.pi)
                   - torch.log(scale) - (freedom + 1) / 2 * torch.log1p(z**2 / freedom))
    return _masked_sum(-torch.logsumexp(log_weights + log_density, dim=-1), mask)


def _masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    # where, not a product: an unobserved target may be NaN, and NaN times 0 is NaN
    return torch.where(mask, values, 0.0).sum()
