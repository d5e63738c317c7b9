"""Reference of the selective scan: a sequential recurrence, each step of it one operation on all (B, N, D) states.

Inside, channels are innermost, as projections of tokens leave them: inputs are ``(B, L, D)`` and ``(B, L, N)``, states
``(B, L, N, D)``. A short scan keeps its states for the backward pass. A long one goes through chunks of steps and rows
that fit a cache, keeps the states at their borders, and makes the others again: a sixteenth of the memory.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# States that a scan may have, all steps together, if it keeps them: 8 MiB in fp32, and their decay takes as much.
_KEPT = 2**21
# Otherwise, steps of a chunk, and its states on a processor: they and their decay fill a cache of 2 MiB.
_STEPS, _CHUNK = 16, 2**18


def scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    reverse: tuple[bool, ...],
) -> Tensor:
    """G scans at once: every tensor as in `selective_scan` with a leading axis of G = ``len(reverse)``."""
    dtype = torch.promote_types(u.dtype, torch.float32)
    tokens, step, wide, read = (x.to(dtype).permute(1, 3, 0, 2) for x in (u, delta, B, C))  # (B, L, G, ·)
    if delta_bias is not None:
        step = step + delta_bias.to(dtype)
    if delta_softplus:
        step = F.softplus(step)
    # sizes may be symbols while a graph is made, and must not decide anything then
    keep = not torch.compiler.is_compiling() and torch.is_grad_enabled() and u[0].numel() * A.shape[2] <= _KEPT
    parts = (tokens.unbind(2), step.unbind(2), A.to(dtype).mT.contiguous().unbind(0), wide.unbind(2), read.unbind(2))
    y = torch.stack([_scan(*part, keep)[0] for part in zip(*parts, reverse, strict=True)], dim=2)
    if D is not None:
        y = torch.addcmul(y, tokens, D.to(dtype))
    if z is not None:
        y = y * F.silu(z.to(dtype).permute(1, 3, 0, 2))
    return y.permute(2, 0, 3, 1).to(u.dtype)


@torch.library.custom_op("foretide::selective_scan", mutates_args=())
def _scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, reverse: bool, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The recurrence alone, as one operator: an exported graph does not grow with L and leaves it free.

    Args:
        u, delta: ``(B, L, D)``.
        A: ``(N, D)``.
        B, C: ``(B, L, N)``.
        reverse: Whether the state at t + 1 comes before that at t.
        keep: Whether the backward pass is to find all states ready.

    Returns:
        y ``(B, L, D)``; then all states and decays ``(B, L, N, D)``, or the states at the borders of the chunks
        ``(chunks + 1, B, N, D)``, in the order of the sequence, and nothing.
    """
    with torch.autocast(u.device.type, enabled=False):
        if keep:
            states, decay = _states(u, delta, A, B, u.new_zeros(len(u), *A.shape), reverse)
            return _over_states(states, C), states, decay
        y, borders = u.new_empty(u.shape), u.new_zeros(_borders(u), len(u), *A.shape)
        for rows, chunks in _blocks(u, A, reverse):
            for chunk, at in chunks:
                before = borders[chunk + reverse, rows]
                states, _ = _states(u[rows, at], delta[rows, at], A, B[rows, at], before, reverse)
                y[rows, at] = _over_states(states, C[rows, at])
                borders[chunk + (not reverse), rows] = states[:, 0 if reverse else -1]
        return y, borders, u.new_empty(0)


@torch.library.custom_op("foretide::selective_scan_backward", mutates_args=())
def _scan_backward(
    gy: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, reverse: bool, kept: Tensor, decay: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the first five arguments of `_scan`, whose further results are ``kept`` and ``decay``."""
    with torch.autocast(u.device.type, enabled=False):
        if decay.numel():
            zero = u.new_zeros(len(u), *A.shape)
            return _gradients(gy, u, delta, A, B, C, kept, decay, zero, None, reverse)[0]
        g_u, g_delta, g_A, g_B, g_C = (x.new_zeros(x.shape) for x in (u, delta, A, B, C))
        for rows, chunks in _blocks(u, A, not reverse):
            carry = None
            for chunk, steps in chunks:
                at, before = (rows, steps), kept[chunk + reverse, rows]
                states = _states(u[at], delta[at], A, B[at], before, reverse)
                part = (gy[at], u[at], delta[at], A, B[at], C[at], *states, before)
                (g_u[at], g_delta[at], g_part, g_B[at], g_C[at]), carry = _gradients(*part, carry, reverse)
                g_A += g_part
        return g_u, g_delta, g_A, g_B, g_C


@_scan.register_fake
def _(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, reverse: bool, keep: bool) -> tuple[Tensor, ...]:
    if keep:
        return u.new_empty(u.shape), *(u.new_empty(u.shape[0], u.shape[1], *A.shape) for _ in range(2))
    return u.new_empty(u.shape), u.new_empty(_borders(u), u.shape[0], *A.shape), u.new_empty(0)


@_scan_backward.register_fake
def _(gy: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in inputs[:5])


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:5], *output[1:])
    ctx.reverse = inputs[5]
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, gy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if gy is None:
        return (None,) * 7
    *inputs, kept, decay = ctx.saved_tensors
    return *_scan_backward(gy, *inputs, ctx.reverse, kept, decay), None, None


_scan.register_autograd(_backward, setup_context=_save)


def _borders(u: Tensor) -> int:
    return -(-u.shape[1] // _STEPS) + 1


def _blocks(u: Tensor, A: Tensor, backwards: bool) -> Iterator[tuple[slice, list[tuple[int, slice]]]]:
    """Rows of the batch, each with the numbers and steps of all chunks in the order of the work."""
    rows = max(1, _CHUNK // (_STEPS * A.numel())) if u.device.type == "cpu" else len(u)
    chunks = [(at // _STEPS, slice(at, at + _STEPS)) for at in range(0, u.shape[1], _STEPS)]
    for row in range(0, len(u), rows):
        yield slice(row, row + rows), chunks[::-1] if backwards else chunks


def _states(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, before: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """States h[t] = exp(Δ[t] A) h[t-1] + Δ[t] B[t] u[t], and their decay exp(Δ A), each ``(B, T, N, D)``."""
    states, decay = _outer(delta * u, B), u.new_empty(*u.shape[:2], *A.shape)
    torch.mul(delta[:, :, None], A, out=decay).exp_()
    for h, a in zip(_in_order(states, reverse), _in_order(decay, reverse), strict=True):
        before = h.addcmul_(a, before)
    return states, decay


def _gradients(
    gy: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    states: Tensor,
    decay: Tensor,
    before: Tensor,
    carry: Tensor | None,
    reverse: bool,
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Gradients of u, Δ, A, B, C from some steps; and what these steps hand to those before them in the scan.

    The adjoint of the states runs against the scan: g[t] = C[t] dy[t] + exp(Δ[t+1] A) g[t+1], where ``carry`` is the
    second term of the last step. With it, d(Δ B u) = g and d(Δ[t] A) = g[t] exp(Δ[t] A) h[t-1].
    """
    adjoint = _outer(gy, C)
    g, a = _in_order(adjoint, reverse), _in_order(decay, reverse)
    if carry is not None:
        g[-1].add_(carry)
    for t in range(len(g) - 2, -1, -1):
        g[t].addcmul_(a[t + 1], g[t + 1])
    g_input, g_B, g_C = _over_states(adjoint, B), _over_channels(adjoint, delta * u), _over_channels(states, gy)
    g_exponent = adjoint.mul_(decay)
    carry = g[0].clone()
    for part, previous in zip(g, (before, *_in_order(states, reverse)), strict=False):
        part.mul_(previous)
    g_delta = (g_exponent * A).sum(2).addcmul_(g_input, u)
    g_A = g_exponent.mul_(delta[:, :, None]).sum((0, 1))
    return (g_input.mul_(delta), g_delta, g_A, g_B, g_C), carry


def _in_order(x: Tensor, reverse: bool) -> tuple[Tensor, ...]:
    """The steps of ``(B, T, N, D)`` as views, in the order of the scan."""
    return x.unbind(1)[::-1] if reverse else x.unbind(1)


def _outer(x: Tensor, w: Tensor) -> Tensor:
    """``(B, T, D)`` and ``(B, T, N)`` → ``(B, T, N, D)``."""
    return torch.mul(x[:, :, None], w[..., None], out=x.new_empty(*w.shape, x.shape[2]))


def _over_states(states: Tensor, w: Tensor) -> Tensor:
    """Sum over N of ``(B, T, N, D)`` weighted by ``(B, T, N)``, as one product of matrices for each step."""
    return (w.reshape(-1, 1, w.shape[2]) @ states.flatten(0, 1)).view(*w.shape[:2], -1)


def _over_channels(states: Tensor, x: Tensor) -> Tensor:
    """Sum over D of ``(B, T, N, D)`` weighted by ``(B, T, D)``."""
    # a row times a matrix: several times faster here than the matrix times a column
    return (x.reshape(-1, 1, x.shape[2]) @ states.flatten(0, 1).mT).view(*x.shape[:2], -1)
