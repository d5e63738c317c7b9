"""The selective scan against a loop over single numbers in fp64, closed forms, and transformers' own recurrence."""

import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.selective_scan import bidirectional_selective_scan, naive, selective_scan

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
# (B, D, L, N): one step, odd lengths, one chunk and several, more rows than a block has
SHAPES = [
    pytest.param(*sizes, id="B{}-D{}-L{}-N{}".format(*sizes))
    for sizes in ((2, 3, 1, 2), (3, 5, 7, 4), (1, 1, 63, 2), (2, 4, 33, 64), (5, 70, 21, 60), (2, 2, 1000, 3))
]
REVERSE = pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
KEPT = pytest.mark.parametrize("kept", [True, False], ids=["states kept", "states made again"])


def inputs(B: int, D: int, L: int, N: int, dtype: torch.dtype = torch.float64, grad: bool = True) -> list[Tensor]:
    """Random arguments in the order of `NAMES`; A forgets."""
    shapes = ((B, D, L), (B, D, L), (D, N), (B, N, L), (B, N, L), (D,), (B, D, L), (D,))
    made = [torch.randn(shape, dtype=dtype) for shape in shapes]
    made[2] = -made[2].exp()
    return [tensor.requires_grad_(grad) for tensor in made]


def scan(
    given: Sequence[Tensor], function: Callable[..., Tensor] = selective_scan, softplus: bool = True, **options: Any
) -> Tensor:
    """The function of the first so many arguments in the order of `NAMES`."""
    return function(**dict(zip(NAMES, given, strict=False)), delta_softplus=softplus, **options)


def by_loop(given: Sequence[Tensor], reverse: bool) -> Tensor:
    """The recurrence of the paper, one state vector at a time, with softplus, direct path and gate."""
    u, delta, A, B, C, D, z, bias = given
    steps = range(u.shape[2] - 1, -1, -1) if reverse else range(u.shape[2])
    rows = []
    for b in range(u.shape[0]):
        for d in range(u.shape[1]):
            h, row = torch.zeros_like(A[d]), [u.new_zeros(())] * u.shape[2]
            for t in steps:
                step = torch.log1p(torch.exp(delta[b, d, t] + bias[d]))
                h = torch.exp(step * A[d]) * h + step * B[b, :, t] * u[b, d, t]
                row[t] = (C[b, :, t] @ h + D[d] * u[b, d, t]) * z[b, d, t] / (1 + torch.exp(-z[b, d, t]))
            rows.append(torch.stack(row))
    return torch.stack(rows).view(u.shape)


@pytest.fixture
def few_kept(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """A function that makes short scans keep their states, or go through small chunks of steps and rows."""

    def choose(kept: bool) -> None:
        monkeypatch.setattr(naive, "_KEPT", 2**21 if kept else 0)
        monkeypatch.setattr(naive, "_CHUNK", 2**18 if kept else 2**7)

    return choose


@REVERSE
@KEPT
@pytest.mark.parametrize(("B", "D", "L", "N"), SHAPES)
def test_output_and_every_gradient_against_the_loop(
    B: int, D: int, L: int, N: int, kept: bool, reverse: bool, few_kept: Callable[[bool], None]
) -> None:
    few_kept(kept)
    if L == 1000 or D == 70:
        B, D = min(B, 3), min(D, 2)
    given = inputs(B, D, L, N)
    expected, found = by_loop(given, reverse), scan(given, reverse=reverse)
    torch.testing.assert_close(found, expected, atol=1e-11, rtol=1e-11)
    weight = torch.randn_like(expected)
    theirs, ours = torch.autograd.grad(expected, given, weight), torch.autograd.grad(found, given, weight)
    for name, mine, right in zip(NAMES, ours, theirs, strict=True):
        torch.testing.assert_close(mine, right, atol=1e-10, rtol=1e-10, msg=f"gradient of {name}")


@REVERSE
@KEPT
def test_gradcheck_of_every_input(kept: bool, reverse: bool, few_kept: Callable[[bool], None]) -> None:
    few_kept(kept)
    assert torch.autograd.gradcheck(lambda *x: scan(x, reverse=reverse), inputs(2, 2, 19, 3))
    bare = [tensor.detach().abs().requires_grad_() if i == 1 else tensor for i, tensor in enumerate(inputs(1, 2, 3, 2))]
    assert torch.autograd.gradcheck(lambda *x: scan(x, softplus=False, reverse=reverse), bare[:5])


def test_kept_and_made_again_are_the_same_numbers(few_kept: Callable[[bool], None]) -> None:
    given = inputs(5, 70, 21, 60, torch.float32)
    weight, found = torch.randn(5, 70, 21), []
    for kept in (True, False):
        few_kept(kept)
        y = scan(given)
        found.append((y, *torch.autograd.grad(y, given, weight)))
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-5)


def test_without_forgetting_the_scan_is_a_running_sum() -> None:
    u, delta, _, B, C, *_ = inputs(2, 3, 50, 4, grad=False)
    delta = delta.abs()
    y = selective_scan(u, delta, torch.zeros(3, 4, dtype=u.dtype), B, C)
    written = (delta * u)[:, :, None] * B[:, None]  # (B, D, N, L)
    torch.testing.assert_close(y, (written.cumsum(3) * C[:, None]).sum(2))


def test_a_constant_input_approaches_its_limit() -> None:
    """With constant Δ, A, B and C a geometric series: y → Δ B C u / (1 - exp(Δ A))."""
    one = torch.ones(1, 1, 400, dtype=torch.float64)
    y = selective_scan(3 * one, 0.1 * one, torch.tensor([[-0.5]], dtype=torch.float64), 2 * one, 0.7 * one)
    first = 0.1 * 2 * 0.7 * 3
    assert y[0, 0, 0].item() == pytest.approx(first)
    assert y[0, 0, -1].item() == pytest.approx(first / (1 - math.exp(-0.05)), rel=1e-7)


def test_backwards_is_forwards_of_the_flipped_sequence() -> None:
    u, delta, A, B, C, D, z, bias = inputs(3, 4, 18, 5, torch.float32, grad=False)
    found = selective_scan(u, delta, A, B, C, D, z, bias, delta_softplus=True, reverse=True)
    flipped = (x.flip(2) for x in (u, delta, B, C, z))
    u, delta, B, C, z = flipped
    assert torch.equal(found, selective_scan(u, delta, A, B, C, D, z, bias, delta_softplus=True).flip(2))


@pytest.mark.parametrize("optional", [True, False])
def test_both_directions_at_once_are_two_scans(optional: bool) -> None:
    pair = [inputs(2, 4, 9, 3, torch.float32), inputs(2, 4, 9, 3, torch.float32)]
    if not optional:
        pair = [given[:5] for given in pair]
    stacked = [torch.stack(both).detach().requires_grad_() for both in zip(*pair, strict=True)]
    found = scan(stacked, bidirectional_selective_scan)
    weight = torch.randn_like(found)
    for direction, given in enumerate(pair):
        expected = scan(given, reverse=bool(direction))
        torch.testing.assert_close(found[direction], expected)
        theirs = torch.autograd.grad(expected, given, weight[direction])
        ours = torch.autograd.grad(found, stacked, weight, retain_graph=True)
        for mine, right in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine[direction], right)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    given = inputs(2, 8, 40, 16, dtype)
    exact = [tensor.detach().float().requires_grad_() for tensor in given]
    y, expected = (scan(tensors) for tensors in (given, exact))
    assert y.dtype == dtype and torch.equal(y, expected.to(dtype))
    weight = torch.randn_like(y)
    ours, theirs = torch.autograd.grad(y, given, weight), torch.autograd.grad(expected, exact, weight.float())
    for mine, right in zip(ours, theirs, strict=True):
        assert mine.dtype == dtype and torch.equal(mine, right.to(dtype))


def test_autocast_changes_nothing() -> None:
    given = inputs(2, 8, 40, 16, torch.float32)
    weight, found = torch.randn(2, 8, 40), []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = scan(given)
            found.append((y, *torch.autograd.grad(y, given, weight)))
    for mine, right in zip(*found, strict=True):
        assert mine.dtype == torch.float32 and torch.equal(mine, right)


def test_strides_do_not_matter() -> None:
    given = inputs(3, 4, 11, 5, torch.float32, grad=False)
    turned = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in given]
    spread = [torch.stack([x, x], dim=-1)[..., 0] for x in given]
    expected = scan(given)
    assert not turned[0].is_contiguous() and not spread[0].is_contiguous()
    for other in (turned, spread):
        torch.testing.assert_close(scan(other), expected)


def test_only_what_asks_for_a_gradient_gets_one() -> None:
    given = inputs(2, 3, 6, 2, torch.float32, grad=False)
    given[2].requires_grad_()
    y = scan(given)
    y.sum().backward()
    assert given[2].grad is not None and all(x.grad is None for i, x in enumerate(given) if i != 2)
    with torch.no_grad():
        assert torch.equal(scan(given), y)


def test_a_long_scan_does_not_keep_its_states() -> None:
    given = inputs(2, 64, 640, 64, torch.float32)
    states, kept = 2 * 64 * 640 * 64, []

    def count(tensor: Tensor) -> Tensor:
        kept.append(tensor.untyped_storage())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        y = scan(given)
    held = sum({storage.data_ptr(): storage.nbytes() for storage in kept}.values()) / 4
    assert states > naive._KEPT and held < states / 16 + 10 * given[0].numel()
    y.mean().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in given)


def test_strong_decay_and_large_steps_stay_finite() -> None:
    given = inputs(1, 2, 300, 4, torch.float32)
    with torch.no_grad():
        given[1].mul_(30)
        given[2].mul_(1e3)
    y = scan(given)
    assert y.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.sum(), given))


@REVERSE
@pytest.mark.parametrize("keep", [True, False])
def test_the_operators_are_well_formed(keep: bool, reverse: bool) -> None:
    u, delta, A, B, C, *_ = inputs(2, 3, 20, 4, torch.float32)
    tokens = [x.detach().mT.requires_grad_() for x in (u, delta)]
    rest = [x.detach().mT.contiguous().requires_grad_() for x in (A, B, C)]
    torch.library.opcheck(naive._scan, (*tokens, *rest, reverse, keep))
    _, kept, decay = naive._scan(*tokens, *rest, reverse, keep)
    gradient = torch.randn(2, 20, 3)
    plain = [x.detach() for x in (gradient, *tokens, *rest)]
    torch.library.opcheck(naive._scan_backward, (*plain, reverse, kept.detach(), decay.detach()))


def test_an_exported_scan_takes_any_batch_and_length() -> None:
    class Both(torch.nn.Module):
        def forward(self, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
            return selective_scan(u, delta, A, B, C, delta_softplus=True, reverse=True)

    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    free = {0: batch, 2: length}
    given = inputs(3, 4, 12, 2, torch.float32, grad=False)[:5]
    exported = torch.export.export(Both(), tuple(given), dynamic_shapes=(free, free, {}, free, free)).module()
    for sizes in ((3, 4, 12, 2), (2, 4, 37, 2)):
        other = inputs(*sizes, torch.float32, grad=False)[:5]
        torch.testing.assert_close(exported(*other), Both()(*other))


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("u", torch.zeros(2, 3), r"u has shape \(2, 3\), expected \(B, D, L\)|expected \(B=2, D=3, L\)"),
        ("delta", torch.zeros(2, 3, 6), r"delta has shape \(2, 3, 6\), expected \(B=2, D=3, L=5\)"),
        ("A", torch.zeros(4, 2), r"A has shape \(4, 2\), expected \(D=3, N\)"),
        ("A", torch.zeros(3, 2, dtype=torch.complex64), "A has dtype torch.complex64, expected a real floating"),
        ("B", torch.zeros(2, 5, 2), r"B has shape \(2, 5, 2\), expected \(B=2, N=2, L=5\)"),
        ("C", torch.zeros(3, 2), r"C has shape \(3, 2\), expected \(B=2, N=2, L=5\)"),
        ("D", torch.zeros(3, 1), r"D has shape \(3, 1\), expected \(D=3\)"),
        ("z", torch.zeros(2, 3, 5).long(), "z has dtype torch.int64"),
        ("delta_bias", torch.zeros(2), r"delta_bias has shape \(2,\), expected \(D=3\)"),
    ],
)
def test_a_wrong_argument_is_named(name: str, wrong: Tensor, message: str) -> None:
    given = dict(zip(NAMES, inputs(2, 3, 5, 2, torch.float32, grad=False), strict=True))
    with pytest.raises(ValueError, match=message):
        scan(list({**given, name: wrong}.values()))


def test_nothing_to_scan_is_named_and_so_is_a_missing_direction() -> None:
    with pytest.raises(ValueError, match="found L=0, expected at least 1"):
        scan(inputs(2, 3, 0, 2, grad=False))
    with pytest.raises(ValueError, match=r"u has shape \(2, 3, 5\), expected \(2=2, B, D, L\)|expected \(2"):
        scan(inputs(2, 3, 5, 2, grad=False), bidirectional_selective_scan)


def test_equals_transformers(require: Callable[[str], ModuleType]) -> None:
    theirs = require("transformers.models.mamba.modeling_mamba").mamba_selective_scan
    u, delta, A, B, C, D, z, bias = inputs(3, 8, 13, 4, torch.float32, grad=False)
    expected = theirs(u, delta, A, B, C, D, z, bias, delta_softplus=True)
    ours = selective_scan(u, delta, A, B, C, D, z, bias, delta_softplus=True)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
