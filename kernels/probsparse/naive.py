"""Reference of ProbSparse attention. Letters as in the package.

The sampled keys are the same for all heads of all samples. Up to some thousand keys, a plain product of all queries
and keys, from which the sampled scores are picked, is faster than gathering keys; beyond, rows of keys are gathered.
Either way the work is cut into blocks that fit a cache, and memory does not grow with L·U·E.
"""

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

# Elements of a block: what fits the cache of a core, or a small part of a GPU's memory.
_CPU_BLOCK, _GPU_BLOCK = 2**18, 2**26
# A score costs so much less in a plain product than from a gathered key.
_GATHER_COST = 48


def _precise(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Runs a function of tensors outside autocast, in fp32 at least."""

    @functools.wraps(function)
    def wrapper(*arguments: Any) -> Tensor:
        half = (torch.float16, torch.bfloat16)
        values = [x.float() if isinstance(x, Tensor) and x.dtype in half else x for x in arguments]
        device = values[0].device.type
        with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext():
            return function(*values)

    return wrapper


@_precise
def sparsity(q: Tensor, k: Tensor, sample: Tensor) -> Tensor:
    """See `kernels.probsparse.sparsity`."""
    queries, keys = q.detach().flatten(0, 1), k.detach().flatten(0, 1)  # (B·H, L, E), (B·H, S, E)
    dense = keys.shape[1] <= _GATHER_COST * sample.shape[1]
    width = keys.shape[1] if dense else sample.shape[1] * keys.shape[2]
    measure = queries.new_empty(queries.shape[:2])
    for heads, rows in _blocks(queries, width):
        scores = (_picked if dense else _gathered)(queries[heads, rows], keys[heads], sample[rows])
        measure[heads, rows] = scores.amax(-1) - scores.sum(-1) / keys.shape[1]
    return measure.view(q.shape[:3])


def _blocks(queries: Tensor, width: int) -> Iterator[tuple[slice, slice]]:
    """Slices of heads and of queries whose intermediate tensor, of ``width`` elements a query, is one block."""
    if torch.compiler.is_compiling():
        # a graph has no use for loops, which would also fix its batch size
        yield slice(None), slice(None)
        return
    heads, rows = queries.shape[:2]
    room = max(1, (_GPU_BLOCK if queries.is_cuda else _CPU_BLOCK) // width)
    some_rows = min(rows, room)
    some_heads = max(1, room // some_rows)
    for head in range(0, heads, some_heads):
        for row in range(0, rows, some_rows):
            yield slice(head, head + some_heads), slice(row, row + some_rows)


def _picked(q: Tensor, k: Tensor, sample: Tensor) -> Tensor:
    """Sampled scores ``(N, L, U)`` out of all scores of ``q (N, L, E)`` and ``k (N, S, E)``."""
    return (q @ k.transpose(1, 2)).gather(2, sample.expand(q.shape[0], -1, -1))


def _gathered(q: Tensor, k: Tensor, sample: Tensor) -> Tensor:
    """The same from gathered keys: L·U instead of L·S products."""
    chosen = k.index_select(1, sample.flatten()).unflatten(1, sample.shape)  # (N, L, U, E)
    return (chosen @ q[..., None])[..., 0]


def active_queries(q: Tensor, k: Tensor, sample: Tensor, top: int) -> Tensor:
    """See `kernels.probsparse.active_queries`."""
    return sparsity(q, k, sample).topk(top).indices


@_precise
def active_weights(q: Tensor, k: Tensor, active: Tensor, causal: bool, scale: float) -> Tensor:
    """See `kernels.probsparse.active_weights`."""
    asking = q.gather(2, _rows(active, q.shape[3]))
    scores = (asking @ k.transpose(2, 3)) * scale
    if causal:
        positions = torch.arange(k.shape[2], device=k.device)
        scores = scores.masked_fill(positions > active[..., None], -math.inf)
    return scores.softmax(-1)


def attend(q: Tensor, k: Tensor, v: Tensor, active: Tensor, causal: bool, scale: float) -> Tensor:
    """See `kernels.probsparse.attend`."""
    return _attend(q, k, v, active, causal, scale).to(q.dtype)


@_precise
def _attend(q: Tensor, k: Tensor, v: Tensor, active: Tensor, causal: bool, scale: float) -> Tensor:
    attended = active_weights(q, k, active, causal, scale) @ v
    context = v.cumsum(2) if causal else v.mean(2, keepdim=True).expand(-1, -1, q.shape[2], -1)
    return context.scatter(2, _rows(active, v.shape[3]), attended)


def _rows(active: Tensor, width: int) -> Tensor:
    """Positions ``(B, H, T)`` as an index of whole rows ``(B, H, T, width)``."""
    return active[..., None].expand(-1, -1, -1, width)
