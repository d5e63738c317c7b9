"""Reference of auto-correlation in plain torch, in at least fp32.

Heads and channels are one axis D = H·E here, because the mean over both commutes with everything else: with the inverse
transform, so that a sample needs one of it rather than D; and with the products of the backward, where the correlation
has a gradient at the chosen delays only.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# beyond, all inner products of two sequences cost more than those at the chosen delays one by one
_LONGEST_DENSE = 1024


@torch.no_grad()
def lag_scores(q: Tensor, k: Tensor) -> Tensor:
    """See `kernels.autocorrelation.lag_scores`."""
    length, dtype = q.shape[1], _dtype(q)
    with torch.autocast(q.device.type, enabled=False):
        spectrum_q = torch.fft.rfft(_flat(q, dtype), dim=1)  # (B, L//2 + 1, D)
        spectrum_k = torch.fft.rfft(_flat(k, dtype), n=length, dim=1)
        cross = (spectrum_q * spectrum_k.conj()).mean(2)
        return torch.fft.irfft(cross, n=length, dim=1)


def aggregate(q: Tensor, k: Tensor, v: Tensor, lags: Tensor) -> Tensor:
    """See `kernels.autocorrelation.aggregate`."""
    length, dtype = q.shape[1], _dtype(q)
    flat = (_flat(q, dtype), _fit(_flat(k, dtype), length), _fit(_flat(v, dtype), length))
    every = lags.long().expand(q.shape[0], -1)
    with torch.autocast(q.device.type, enabled=False):
        return _Aggregate.apply(*flat, every).to(v.dtype).unflatten(2, q.shape[2:])


class _Aggregate(torch.autograd.Function):
    """All operands ``(B, L, D)``, delays ``(B, n)``."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, lags: Tensor) -> Tensor:
        weights = torch.softmax(_inner_products(q, k, lags) / q.shape[2], dim=1)
        ctx.save_for_backward(q, k, v, lags, weights)
        return _weighted_rolls(v, weights, lags)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, lags, weights = ctx.saved_tensors
        (out,) = gradients
        with torch.autocast(q.device.type, enabled=False):
            d_weights = _inner_products(v, out, lags)
            d_correlations = weights * (d_weights - (weights * d_weights).sum(1, keepdim=True)) / q.shape[2]
            d_q = _weighted_rolls(k, d_correlations, -lags)
            d_k = _weighted_rolls(q, d_correlations, lags)
            return d_q, d_k, _weighted_rolls(out, weights, -lags), None


def _inner_products(a: Tensor, b: Tensor, lags: Tensor) -> Tensor:
    """``Σ_t ⟨a[t + τᵢ], b[t]⟩``: ``(B, n)``."""
    steps = _shifted(lags, a.shape[1])
    if a.shape[1] <= _LONGEST_DENSE:
        return (b @ a.transpose(1, 2)).gather(2, steps).sum(1)
    # one delay of one sample at a time stays in the cache, where a rolled copy of everything does not
    found = [
        torch.dot(x.index_select(0, step).flatten(), y.flatten())
        for x, y, of_sample in zip(a, b.contiguous(), steps, strict=True)
        for step in of_sample.unbind(1)
    ]
    return torch.stack(found).view(lags.shape)


def _weighted_rolls(x: Tensor, weights: Tensor, lags: Tensor) -> Tensor:
    """``Σ_i weights[b, i] · x[b, t + τᵢ]``: ``(B, L, D)``, without a rolled copy."""
    batch, length, width = x.shape
    first = torch.arange(batch, device=x.device)[:, None, None] * length
    rows = (first + _shifted(lags, length)).flatten(0, 1)  # (B·L, n)
    share = weights[:, None].expand(-1, length, -1).flatten(0, 1)
    summed = F.embedding_bag(rows, x.reshape(-1, width), mode="sum", per_sample_weights=share)
    return summed.view(batch, length, width)


def _shifted(lags: Tensor, length: int) -> Tensor:
    """``(t + τ) mod L``: ``(B, L, n)``."""
    return (torch.arange(length, device=lags.device)[:, None] + lags[:, None]) % length


def _dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _flat(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.flatten(2).to(dtype)


def _fit(x: Tensor, length: int) -> Tensor:
    """Cut, or padded by zeros, to a number of steps."""
    return x[:, :length] if x.shape[1] >= length else F.pad(x, (0, 0, 0, length - x.shape[1]))
