"""ProbSparse attention (Zhou et al., "Informer", AAAI 2021, section 3.1): few queries attend, the others take a mean.

Letters: B batch, H heads, L queries, S keys, E width of a query and key, V width of a value, U sampled keys of a query,
T active queries. The steps are public one by one, because the selection is discontinuous: outputs and gradients are
compared at given active queries, the measure by itself.
"""

import torch
from torch import Tensor

from kernels.probsparse import naive


def probsparse_attention(
    q: Tensor, k: Tensor, v: Tensor, sample: Tensor, top: int, causal: bool = False, scale: float | None = None
) -> Tensor:
    """Attention of the ``top`` queries with the largest sparsity measure; a mean of values for all others.

    With M of `sparsity` and the set A of the T = ``top`` queries of each head whose M is largest::

        out[i] = Σ_j softmax_j(scale · q[i]·k[j]) v[j]    for i in A, over j ≤ i where causal
        out[i] = Σ_j v[j] / S                             for other i
        out[i] = Σ_{j ≤ i} v[j]                           for other i where causal: a sum, as in the published code

    In the paper T = min(L, c ⌈ln L⌉) and U = min(S, c ⌈ln S⌉) with a constant c. Which queries are active is decided
    without a gradient, and in the causal case from keys of all positions, as published.

    Computed in fp32, or in fp64 for such inputs, also under autocast; tensors may be views of any strides.

    Args:
        q: ``(B, H, L, E)`` queries.
        k: ``(B, H, S, E)`` keys.
        v: ``(B, H, S, V)`` values.
        sample: ``(L, U)`` int64, the keys 0 to S - 1 that each query is measured on, shared by batch and heads; a key
            may occur more than once.
        top: T, 1 to L.
        causal: Whether a query sees keys up to its own position only; needs L = S.
        scale: Of the scores; by default 1/√E.

    Returns:
        ``(B, H, L, V)`` in the dtype of ``q``; gradients reach ``q``, ``k`` and ``v``.

    Raises:
        ValueError: A shape, a dtype or ``top`` does not fit.
    """
    _check(q, k, v=v, sample=sample, top=top, causal=causal)
    # both steps want rows of one head beside each other
    q, k = q.contiguous(), k.contiguous()
    return naive.attend(q, k, v, naive.active_queries(q, k, sample, top), causal, _scale(q, scale))


def sparsity(q: Tensor, k: Tensor, sample: Tensor) -> Tensor:
    """How far a query's scores are from uniform, measured on its sampled keys (equation 4, with a sum over the sample).

    ::

        M[i] = max_u q[i]·k[sample[i, u]] - Σ_u q[i]·k[sample[i, u]] / S

    The paper's 1/√E is left out: it does not change the order. The expanded ``(B, H, L, U, E)`` keys of the published
    code are never made.

    Args:
        q, k, sample: As in `probsparse_attention`.

    Returns:
        M ``(B, H, L)``, at least fp32, without a gradient.

    Raises:
        ValueError: A shape or a dtype does not fit.
    """
    _check(q, k, sample=sample)
    return naive.sparsity(q, k, sample)


def active_queries(q: Tensor, k: Tensor, sample: Tensor, top: int) -> Tensor:
    """Positions ``(B, H, T)`` of the queries with the largest sparsity measure, the largest first.

    Args:
        q, k, sample, top: As in `probsparse_attention`.

    Raises:
        ValueError: A shape, a dtype or ``top`` does not fit.
    """
    _check(q, k, sample=sample, top=top)
    return naive.active_queries(q, k, sample, top)


def active_weights(q: Tensor, k: Tensor, active: Tensor, causal: bool = False, scale: float | None = None) -> Tensor:
    """Attention weights ``(B, H, T, S)`` of given active queries; rows sum to 1.

    Args:
        active: ``(B, H, T)`` int64 positions.
        q, k, causal, scale: As in `probsparse_attention`.

    Raises:
        ValueError: A shape or a dtype does not fit.
    """
    _check(q, k, active=active, causal=causal)
    return naive.active_weights(q, k, active, causal, _scale(q, scale))


def attend(q: Tensor, k: Tensor, v: Tensor, active: Tensor, causal: bool = False, scale: float | None = None) -> Tensor:
    """`probsparse_attention` at given active queries: everything that is differentiable.

    Args:
        active: ``(B, H, T)`` int64 positions, none twice in a head.
        q, k, v, causal, scale: As in `probsparse_attention`.

    Raises:
        ValueError: A shape or a dtype does not fit.
    """
    _check(q, k, v=v, active=active, causal=causal)
    return naive.attend(q, k, v, active, causal, _scale(q, scale))


def _scale(q: Tensor, scale: float | None) -> float:
    return q.shape[-1] ** -0.5 if scale is None else scale


def _check(
    q: Tensor,
    k: Tensor,
    *,
    v: Tensor | None = None,
    sample: Tensor | None = None,
    active: Tensor | None = None,
    top: int = 1,
    causal: bool = False,
) -> None:
    if q.ndim != 4 or 0 in q.shape:
        raise ValueError(f"probsparse: q has shape {tuple(q.shape)}, expected (B, H, L, E)")
    batch, heads, queries, width = q.shape
    if k.ndim != 4 or k.shape[2] == 0 or (*k.shape[:2], k.shape[3]) != (batch, heads, width):
        raise ValueError(f"probsparse: k has shape {tuple(k.shape)}, expected ({batch}, {heads}, S, {width})")
    if v is not None and (v.ndim != 4 or v.shape[:3] != k.shape[:3]):
        raise ValueError(f"probsparse: v has shape {tuple(v.shape)}, expected {(*k.shape[:3], 'V')}")
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor is not None and not (tensor.is_floating_point() and tensor.dtype == q.dtype):
            raise ValueError(f"probsparse: {name} has dtype {tensor.dtype}, expected one floating-point dtype for all")
    for name, positions in (("sample", sample), ("active", active)):
        if positions is not None and positions.dtype != torch.int64:
            raise ValueError(f"probsparse: {name} has dtype {positions.dtype}, expected int64")
    if sample is not None and (sample.ndim != 2 or sample.shape[0] != queries or sample.shape[1] == 0):
        raise ValueError(f"probsparse: sample has shape {tuple(sample.shape)}, expected ({queries}, U)")
    if active is not None and (active.ndim != 3 or active.shape[:2] != q.shape[:2]):
        raise ValueError(f"probsparse: active has shape {tuple(active.shape)}, expected ({batch}, {heads}, T)")
    if not 1 <= top <= queries:
        raise ValueError(f"probsparse: top is {top}, expected 1 to the {queries} queries")
    if causal and queries != k.shape[2]:
        raise ValueError(f"probsparse: found {queries} queries and {k.shape[2]} keys, expected as many where causal")
