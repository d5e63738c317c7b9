"""Auto-correlation against its definition, its gradients against finite differences and the published formulation."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kernels.autocorrelation import aggregate, lag_scores

Operands = tuple[Tensor, Tensor, Tensor]
LENGTHS = pytest.mark.parametrize(("length", "keys"), [(24, 24), (63, 63), (48, 20), (31, 50), (8, 1), (1, 3)], ids=str)


def operands(
    length: int, keys: int, dtype: torch.dtype = torch.float64, batch: int = 3, heads: int = 2
) -> list[Tensor]:
    """q of ``length`` steps, k and v of ``keys``."""
    return [torch.randn(batch, n, heads, 5, dtype=dtype, requires_grad=True) for n in (length, keys, keys)]


def draw(length: int, count: int, batch: int | None = None) -> Tensor:
    """Delays without repetition, for all samples or for each."""
    chosen = [torch.randperm(length)[: min(count, length)] for _ in range(batch or 1)]
    return torch.stack(chosen) if batch else chosen[0]


def resized(x: Tensor, length: int) -> Tensor:
    return torch.cat([x, x.new_zeros(len(x), length, *x.shape[2:])], dim=1)[:, :length]


def correlation(q: Tensor, k: Tensor, lag: int) -> Tensor:
    """``(B,)``, step by step as the definition says."""
    length, k = q.shape[1], resized(k, q.shape[1])
    products = torch.stack([(q[:, (t + lag) % length] * k[:, t]).sum((1, 2)) for t in range(length)])
    return products.sum(0) / (q.shape[2] * q.shape[3])


def by_definition(q: Tensor, k: Tensor, v: Tensor, lags: Tensor) -> Tensor:
    every, v, samples = lags.expand(len(q), -1), resized(v, q.shape[1]), []
    for b, chosen in enumerate(every.tolist()):
        found = torch.stack([correlation(q[b : b + 1], k[b : b + 1], lag)[0] for lag in chosen]).softmax(0)
        rolled = torch.stack([torch.roll(v[b], -lag, 0) for lag in chosen])
        samples.append((found[:, None, None, None] * rolled).sum(0))
    return torch.stack(samples)


def as_published(q: Tensor, k: Tensor, v: Tensor, lags: Tensor) -> Tensor:
    """All correlations of all channels by one transform of each, then the delays; q, k and v of one length."""
    spectrum = torch.fft.rfft(q, dim=1) * torch.fft.rfft(k, dim=1).conj()
    scores = torch.fft.irfft(spectrum, n=q.shape[1], dim=1).mean((2, 3))
    every = lags.expand(len(q), -1)
    weights = scores.gather(1, every).softmax(1)
    steps = (torch.arange(q.shape[1])[:, None] + every[:, None]) % q.shape[1]  # (B, L, n)
    samples = torch.arange(len(q))[:, None, None]
    return (v[samples, steps] * weights[:, None, :, None, None]).sum(2)


@LENGTHS
def test_scores_are_the_mean_correlation_at_every_delay(length: int, keys: int) -> None:
    q, k, _ = operands(length, keys)
    found = lag_scores(q, k)
    assert found.shape == (3, length) and not found.requires_grad
    expected = torch.stack([correlation(q, k, lag) for lag in range(length)], dim=1)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(lag_scores(q.float(), k.float()), expected.float(), atol=1e-5, rtol=1e-5)


@LENGTHS
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "per-sample"])
def test_aggregation_is_the_weighted_sum_of_rolled_values(length: int, keys: int, shared: bool) -> None:
    q, k, v = operands(length, keys)
    lags = draw(length, 4, None if shared else 3)
    expected = by_definition(q, k, v, lags)
    torch.testing.assert_close(aggregate(q, k, v, lags), expected)
    single = aggregate(q.float(), k.float(), v.float(), lags)
    torch.testing.assert_close(single, expected.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("length", "keys"), [(12, 12), (11, 5), (8, 15), (1, 3)], ids=str)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "per-sample"])
def test_gradients_equal_finite_differences(length: int, keys: int, shared: bool) -> None:
    inputs = operands(length, keys, batch=2)
    lags = draw(length, 3, None if shared else 2)
    assert torch.autograd.gradcheck(lambda q, k, v: aggregate(q, k, v, lags), inputs)


@pytest.mark.parametrize("length", [63, 96, 1200])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "per-sample"])
def test_values_and_gradients_equal_the_published_formulation(length: int, shared: bool) -> None:
    q, k, v = operands(length, length, batch=2)
    lags = draw(length, int(3 * math.log(length)), None if shared else 2)
    weight = torch.randn_like(q)
    made = []
    for compute in (aggregate, as_published):
        out = compute(q, k, v, lags)
        made.append((out, *torch.autograd.grad((out * weight).sum(), (q, k, v))))
    for ours, theirs in zip(*made, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_shared_delays_are_the_same_delays_for_every_sample() -> None:
    q, k, v = operands(30, 22, torch.float32)
    lags = draw(30, 5)
    assert torch.equal(aggregate(q, k, v, lags), aggregate(q, k, v, lags.repeat(3, 1)))
    # delays go round, and any integers will do
    torch.testing.assert_close(aggregate(q, k, v, (lags - 60).int()), aggregate(q, k, v, lags))


def test_a_sample_does_not_see_the_others() -> None:
    q, k, v = operands(40, 40, torch.float32)
    lags = draw(40, 5, 3)
    q2, k2, v2 = (torch.cat([x[:1], 1e3 * torch.randn_like(x[1:])]) for x in (q, k, v))
    torch.testing.assert_close(aggregate(q2, k2, v2, lags)[0], aggregate(q, k, v, lags)[0])
    torch.testing.assert_close(lag_scores(q2, k2)[0], lag_scores(q, k)[0])


def test_a_season_scores_best_at_its_multiples() -> None:
    wave = torch.sin(2 * torch.pi * torch.arange(96.0) / 24)[None, :, None, None]
    assert set(lag_scores(wave, wave).topk(4).indices[0].tolist()) == {0, 24, 48, 72}
    # equal weights for equal copies give the series back
    torch.testing.assert_close(aggregate(wave, wave, wave, torch.tensor([0, 24, 48, 72])), wave, atol=1e-5, rtol=1e-5)


class Recorder(TorchDispatchMode):
    """The names of all operators that run, and the shapes that inverse transforms make."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.inverse: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        self.names.append(func.overloadpacket.__name__)
        if self.names[-1] == "_fft_c2r":
            self.inverse.append(tuple(out.shape))
        return out


def test_one_inverse_transform_for_each_sample_and_none_in_the_aggregation() -> None:
    q, k, v = operands(32, 32, torch.float32)
    with Recorder() as scoring:
        lag_scores(q, k)
    assert scoring.inverse == [(3, 32)]
    with Recorder() as aggregation:
        aggregate(q, k, v, draw(32, 4)).sum().backward()
    assert aggregation.names and not [name for name in aggregation.names if "fft" in name]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    q, k, v = (x.detach().to(dtype).requires_grad_() for x in operands(30, 30, torch.float32))
    q32, k32, v32 = (x.detach().float().requires_grad_() for x in (q, k, v))
    lags = draw(30, 5)
    scores, out, expected = lag_scores(q, k), aggregate(q, k, v, lags), aggregate(q32, k32, v32, lags)
    assert scores.dtype == torch.float32 and torch.equal(scores, lag_scores(q32, k32))
    assert out.dtype == dtype and torch.equal(out, expected.to(dtype))
    gradients = torch.autograd.grad(expected.sum(), (q32, k32, v32))
    for ours, theirs in zip(torch.autograd.grad(out.float().sum(), (q, k, v)), gradients, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, theirs.to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(lag_scores(q32, k32), scores)
        inside = aggregate(q32, k32, v32, lags)
        again = torch.autograd.grad(inside.sum(), (q32, k32, v32))
    assert torch.equal(inside, expected) and all(map(torch.equal, again, gradients))


def test_double_precision_stays() -> None:
    q, k, v = operands(6, 6)
    assert lag_scores(q, k).dtype == aggregate(q, k, v, draw(6, 2)).dtype == torch.float64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda q, k, v: lag_scores(q[0], k), r"q: found shape \(6, 2, 5\), expected \(B, L, H, E\)"),
        (lambda q, k, v: lag_scores(q[:, :0], k), "q: found shape"),
        (lambda q, k, v: lag_scores(q, k[:2]), r"k: found shape \(2, 4, 2, 5\), expected \(3, S, 2, 5\) as in q"),
        (lambda q, k, v: lag_scores(q, k[:, :0]), "k: found shape"),
        (lambda q, k, v: aggregate(q, k, v[..., :3], torch.tensor([0])), "v: found shape"),
        (lambda q, k, v: aggregate(q, k, v[:, :3], torch.tensor([0])), "v: found shape .* expected that of k"),
        (lambda q, k, v: aggregate(q, k, v, torch.tensor([0.5])), "lags: found dtype torch.float32, expected integers"),
        (lambda q, k, v: aggregate(q, k, v, torch.tensor([[0], [1]])), r"lags: found shape \(2, 1\)"),
        (lambda q, k, v: aggregate(q, k, v, torch.zeros(0, dtype=torch.long)), "lags: found shape"),
        (lambda q, k, v: aggregate(q, k, v, torch.tensor(1)), "lags: found shape"),
    ],
)
def test_arguments_that_do_not_fit(call: Callable[..., Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(*operands(6, 4))
