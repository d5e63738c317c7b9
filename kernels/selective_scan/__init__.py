"""Selective state-space scan (Gu & Dao, "Mamba", 2023, section 3.2), over one direction or both at once."""

from torch import Tensor

from kernels.selective_scan import naive

_SHAPES = {
    "u": ("B", "D", "L"),
    "delta": ("B", "D", "L"),
    "A": ("D", "N"),
    "B": ("B", "N", "L"),
    "C": ("B", "N", "L"),
    "D": ("D",),
    "z": ("B", "D", "L"),
    "delta_bias": ("D",),
}


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
) -> Tensor:
    """Runs a diagonal linear recurrence whose step, input and output maps depend on the input.

    Letters: B batch, D channels, L length, N states of a channel; t is a step, with h₀ = 0::

        Δ = delta + delta_bias, then softplus(Δ) if delta_softplus
        h[t] = exp(Δ[t] A) h[t-1] + Δ[t] B[t] u[t]        (D, N)
        y[t] = C[t] · h[t] + D u[t], then y[t] silu(z[t]) where a gate is given

    This is the discretisation of Mamba's code; the exact integral of B over a step, which papers print, differs from
    Δ B in second order. Everything is computed in fp32, or in fp64 for such an input, also under autocast. Any length
    from 1 on and any number of states work; tensors may be views of any strides, and those whose channels are adjacent
    in memory (a transposed ``(B, L, D)``) are the fast ones.

    Args:
        u: ``(B, D, L)`` input.
        delta: ``(B, D, L)`` step size; positive, unless ``delta_softplus`` makes it so.
        A: ``(D, N)`` real; negative values forget.
        B: ``(B, N, L)`` what the input writes into the states, shared by the channels.
        C: ``(B, N, L)`` what is read from them.
        D: ``(D,)`` weight of the direct path from input to output.
        z: ``(B, D, L)`` gate.
        delta_bias: ``(D,)``, added to ``delta``.
        delta_softplus: Whether the step size is the softplus of what is given.
        reverse: Runs from the last step to the first: the same as flipping every input and the output along L.

    Returns:
        y ``(B, D, L)`` in the dtype of ``u``; gradients reach every tensor.

    Raises:
        ValueError: A shape or a dtype does not fit.
    """
    tensors = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias}
    _check(tensors, directions=0)
    D, z, delta_bias = (None if x is None else x[None] for x in (D, z, delta_bias))
    one = (u[None], delta[None], A[None], B[None], C[None])
    return naive.scan(*one, D, z, delta_bias, delta_softplus, (reverse,))[0]


def bidirectional_selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> Tensor:
    """Two independent scans in one call: index 0 of the first axis runs forwards, index 1 from the last step back.

    Every argument is that of `selective_scan` with a leading axis of 2: ``u``, ``delta`` and ``z`` ``(2, B, D, L)``,
    ``A`` ``(2, D, N)``, ``B`` and ``C`` ``(2, B, N, L)``, ``D`` and ``delta_bias`` ``(2, D)``. Inputs and output of
    both directions stand in the order of the sequence; nothing is flipped.

    Returns:
        y ``(2, B, D, L)`` in the dtype of ``u``.

    Raises:
        ValueError: A shape or a dtype does not fit.
    """
    _check({"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias}, directions=2)
    return naive.scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, (False, True))


def _check(tensors: dict[str, Tensor | None], directions: int) -> None:
    """Compares every shape with the letters that the tensors before it have fixed."""
    sizes: dict[str, int] = {"2": 2}
    for name, tensor in tensors.items():
        letters = (("2",) if directions else ()) + _SHAPES[name]
        if tensor is None:
            continue
        if not tensor.is_floating_point():
            raise ValueError(f"selective_scan: {name} has dtype {tensor.dtype}, expected a real floating-point dtype")
        known = {letter: sizes.get(letter, size) for letter, size in zip(letters, tensor.shape, strict=False)}
        if tensor.ndim != len(letters) or tuple(tensor.shape) != tuple(known[letter] for letter in letters):
            wanted = ", ".join(f"{letter}={sizes[letter]}" if letter in sizes else letter for letter in letters)
            raise ValueError(f"selective_scan: {name} has shape {tuple(tensor.shape)}, expected ({wanted})")
        sizes.update(known)
    if 0 in sizes.values():
        empty = next(letter for letter, size in sizes.items() if size == 0)
        raise ValueError(f"selective_scan: found {empty}=0, expected at least 1")
