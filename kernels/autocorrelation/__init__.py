"""Auto-correlation (Wu et al., NeurIPS 2021, section 3.2): two functions, and between them the choice of delays.

`lag_scores` says how well each delay fits each sample. The caller ranks them, for each sample or by a mean over a batch
that may span processes, and hands the chosen ones to `aggregate`, the only one of the two that is differentiable.
"""

from torch import Tensor

from kernels.autocorrelation import naive

__all__ = ["aggregate", "lag_scores"]


def lag_scores(q: Tensor, k: Tensor) -> Tensor:
    """Mean correlation of queries and keys at every delay (paper, equation 5), for ranking only: no gradient.

    ``scores[b, τ] = 1 / (H·E) · Σ_h Σ_e Σ_t q[b, (t + τ) mod L, h, e] · k[b, t, h, e]``

    Letters: B samples, L queries, S keys, H heads, E channels of a head.

    Args:
        q: ``(B, L, H, E)``.
        k: ``(B, S, H, E)``; cut or padded by zeros to L steps.

    Returns:
        ``(B, L)`` in fp32, or in fp64 for fp64 inputs.

    Raises:
        ValueError: The shapes do not fit.
    """
    _check_pair(q, k, "k")
    return naive.lag_scores(q, k)


def aggregate(q: Tensor, k: Tensor, v: Tensor, lags: Tensor) -> Tensor:
    """Values rolled by the chosen delays, weighted by the softmax of the correlations there (paper, equation 6).

    ``r[b, i] = 1 / (H·E) · Σ_h Σ_e Σ_t q[b, (t + τᵢ) mod L, h, e] · k[b, t, h, e]``, ``w = softmax(r)`` over i, and
    ``out[b, t] = Σ_i w[b, i] · v[b, (t + τᵢ) mod L]``.

    Differentiable in q, k and v at the given delays.

    Args:
        q: ``(B, L, H, E)``.
        k, v: ``(B, S, H, E)``; cut or padded by zeros to L steps.
        lags: Integer delays τ, ``(n,)`` for all samples or ``(B, n)`` for each, modulo L.

    Returns:
        ``(B, L, H, E)`` in the dtype of v.

    Raises:
        ValueError: The shapes do not fit, or the delays are no integers.
    """
    _check_pair(q, k, "k")
    _check_pair(q, v, "v")
    if k.shape != v.shape:
        raise ValueError(f"v: found shape {tuple(v.shape)}, expected that of k, {tuple(k.shape)}")
    if lags.is_floating_point() or lags.is_complex():
        raise ValueError(f"lags: found dtype {lags.dtype}, expected integers")
    batch = q.shape[0]
    if lags.ndim not in (1, 2) or not lags.shape[-1] or (lags.ndim == 2 and lags.shape[0] != batch):
        raise ValueError(f"lags: found shape {tuple(lags.shape)}, expected (n,) or ({batch}, n) with n at least 1")
    return naive.aggregate(q, k, v, lags)


def _check_pair(q: Tensor, other: Tensor, name: str) -> None:
    if q.ndim != 4 or not q.numel():
        raise ValueError(f"q: found shape {tuple(q.shape)}, expected (B, L, H, E) without an empty axis")
    if other.ndim != 4 or other.shape[1] < 1 or (other.shape[0], *other.shape[2:]) != (q.shape[0], *q.shape[2:]):
        raise ValueError(
            f"{name}: found shape {tuple(other.shape)}, expected ({q.shape[0]}, S, {q.shape[2]}, {q.shape[3]}) as in q"
        )
