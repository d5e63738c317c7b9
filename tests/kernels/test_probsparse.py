"""ProbSparse attention against loops written from the paper, against full attention, and against transformers."""

import math
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kernels import probsparse
from kernels.probsparse import active_queries, active_weights, attend, probsparse_attention, sparsity

# (B, H, L, S, E, V, U): odd sizes, more blocks than one, and (the last two) so many keys that they are gathered
SHAPES = [
    pytest.param(*sizes, id="B{}-H{}-L{}-S{}-E{}-V{}-U{}".format(*sizes))
    for sizes in (
        (2, 3, 17, 17, 4, 4, 7),
        (1, 2, 63, 41, 5, 3, 20),
        (3, 1, 1, 1, 2, 2, 1),
        (1, 2, 600, 700, 3, 2, 15),
        (2, 1, 63, 200, 4, 5, 3),
        (1, 1, 50, 6000, 60, 8, 100),
    )
]
CAUSAL = pytest.mark.parametrize("causal", [False, True], ids=["seen", "causal"])


def inputs(B: int, H: int, L: int, S: int, E: int, V: int, U: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """q, k, v and a sample."""
    sizes = ((L, E), (S, E), (S, V))
    return [*(torch.randn(B, H, *size, dtype=dtype) for size in sizes), torch.randint(S, (L, U))]


def measure_by_loop(q: Tensor, k: Tensor, sample: Tensor) -> Tensor:
    """Equation 4 over the sampled keys, one query at a time."""
    measure = torch.empty(q.shape[:3], dtype=torch.float64)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i, positions in enumerate(sample.tolist()):
                scores = [float(q[b, h, i].detach() @ k[b, h, j].detach()) for j in positions]
                measure[b, h, i] = max(scores) - sum(scores) / k.shape[2]
    return measure


def attention_by_loop(q: Tensor, k: Tensor, v: Tensor, measure: Tensor, top: int, causal: bool) -> Tensor:
    """Section 3.1: the most active queries attend; a mean of the values, or their sum so far, for the others."""
    heads = []
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            order = sorted(range(q.shape[2]), key=lambda i: -float(measure[b, h, i]))
            rows = []
            for i in range(q.shape[2]):
                seen = i + 1 if causal else k.shape[2]
                if i in order[:top]:
                    weights = torch.exp(q[b, h, i] @ k[b, h, :seen].T / math.sqrt(q.shape[3]))
                    rows.append(weights @ v[b, h, :seen] / weights.sum())
                else:
                    rows.append(v[b, h, :seen].sum(0) / (1 if causal else k.shape[2]))
            heads.append(torch.stack(rows))
    return torch.stack(heads).view(*q.shape[:3], v.shape[3])


@pytest.mark.parametrize(("B", "H", "L", "S", "E", "V", "U"), SHAPES)
def test_the_measure_equals_a_loop(B: int, H: int, L: int, S: int, E: int, V: int, U: int) -> None:
    q, k, _, sample = inputs(B, H, L, S, E, V, U)
    expected = measure_by_loop(q, k, sample)
    torch.testing.assert_close(sparsity(q, k, sample), expected, atol=1e-12, rtol=1e-12)
    # what plain fp32 scores of the sampled keys miss the truth by
    plain = torch.einsum("bhie,bhiue->bhiu", q.float(), k.float()[:, :, sample])
    allowed = 2 * (plain.amax(-1) - plain.sum(-1) / S - expected).abs().max() + 1e-6
    assert (sparsity(q.float(), k.float(), sample) - expected).abs().max() <= allowed


def test_a_key_that_is_sampled_twice_counts_twice() -> None:
    q, k = torch.ones(1, 1, 2, 1), torch.tensor([3.0, -1.0, 2.0, 0.0]).view(1, 1, 4, 1)
    sample = torch.tensor([[0, 0, 1], [1, 3, 3]])
    assert sparsity(q, k, sample).flatten().tolist() == [3 - 5 / 4, 0 + 1 / 4]
    assert active_queries(q, k, sample, 1).item() == 0


@CAUSAL
@pytest.mark.parametrize("top", [1, 5, 17])
def test_it_equals_a_loop(causal: bool, top: int) -> None:
    q, k, v, sample = inputs(2, 3, 17, 17, 4, 6, 7)
    expected = attention_by_loop(q, k, v, measure_by_loop(q, k, sample), top, causal)
    torch.testing.assert_close(probsparse_attention(q, k, v, sample, top, causal), expected, atol=1e-12, rtol=1e-12)


def test_queries_and_keys_may_differ_in_number() -> None:
    q, k, v, sample = inputs(2, 2, 31, 12, 4, 3, 5)
    expected = attention_by_loop(q, k, v, measure_by_loop(q, k, sample), 9, causal=False)
    torch.testing.assert_close(probsparse_attention(q, k, v, sample, 9), expected, atol=1e-12, rtol=1e-12)


@CAUSAL
def test_gradients_equal_those_of_the_loop(causal: bool) -> None:
    q, k, v, sample = inputs(2, 2, 9, 9, 3, 2, 4)
    tensors = [tensor.requires_grad_() for tensor in (q, k, v)]
    upstream = torch.randn(2, 2, 9, 2, dtype=torch.float64)
    ours = torch.autograd.grad(probsparse_attention(q, k, v, sample, 4, causal), tensors, upstream)
    measure = measure_by_loop(q, k, sample)
    expected = torch.autograd.grad(attention_by_loop(q, k, v, measure, 4, causal), tensors, upstream)
    for mine, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-12, rtol=1e-12)
    # no gradient flows through the measure: what is not active has none
    idle = torch.ones(2, 2, 9, dtype=torch.bool).scatter(2, active_queries(q, k, sample, 4), False)
    assert (ours[0][idle] == 0).all() and (ours[0][~idle] != 0).any(-1).sum() >= 15


@CAUSAL
def test_gradients_by_finite_differences(causal: bool) -> None:
    q, k, v, _ = inputs(1, 2, 6, 6, 3, 2, 1)
    active = torch.tensor([[[4, 0, 2], [1, 5, 3]]])
    tensors = [tensor.requires_grad_() for tensor in (q, k, v)]
    assert torch.autograd.gradcheck(lambda q, k, v: attend(q, k, v, active, causal, 0.7), tensors)


@CAUSAL
def test_with_all_queries_active_it_is_full_attention(causal: bool) -> None:
    q, k, v, sample = inputs(2, 3, 63, 63, 8, 8, 4)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    torch.testing.assert_close(probsparse_attention(q, k, v, sample, 63, causal), expected, atol=1e-12, rtol=1e-12)


def test_a_causal_query_sees_nothing_later() -> None:
    q, k, v, sample = inputs(1, 2, 12, 12, 4, 4, 3)
    active = active_queries(q, k, sample, 5)
    before = attend(q, k, v, active, causal=True)
    k, v = (torch.cat([x[:, :, :7], torch.randn_like(x[:, :, 7:])], dim=2) for x in (k, v))
    after = attend(q, k, v, active, causal=True)
    assert torch.equal(before[:, :, :7], after[:, :, :7]) and not torch.allclose(before[:, :, 7:], after[:, :, 7:])


@CAUSAL
def test_weights_of_the_active_queries_are_those_of_the_output(causal: bool) -> None:
    q, k, v, sample = inputs(2, 2, 20, 20, 4, 3, 6)
    active = active_queries(q, k, sample, 7)
    weights = active_weights(q, k, active, causal)
    assert weights.shape == (2, 2, 7, 20) and (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 7, dtype=torch.float64))
    out = probsparse_attention(q, k, v, sample, 7, causal).gather(2, active[..., None].expand(-1, -1, -1, 3))
    torch.testing.assert_close(weights @ v, out)
    largest = sparsity(q, k, sample).gather(2, active)
    assert (largest.diff(dim=-1) <= 0).all()


@CAUSAL
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_fp32(dtype: torch.dtype, causal: bool) -> None:
    q, k, v, sample = inputs(2, 2, 63, 63, 8, 8, 9, dtype)
    expected = probsparse_attention(q.float(), k.float(), v.float(), sample, 11, causal)
    assert torch.equal(probsparse_attention(q, k, v, sample, 11, causal), expected.to(dtype))
    assert sparsity(q, k, sample).dtype == torch.float32
    q, k, v = (x.float().requires_grad_() for x in (q, k, v))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = probsparse_attention(q, k, v, sample, 11, causal)
        weights = active_weights(q, k, active_queries(q, k, sample, 11), causal)
    assert torch.equal(cast, expected) and weights.dtype == torch.float32
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(cast.sum(), (q, k, v)))


@CAUSAL
def test_views_of_any_strides(causal: bool) -> None:
    q, k, v, sample = inputs(2, 3, 25, 25, 4, 4, 6)
    expected = probsparse_attention(q, k, v, sample, 8, causal)
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v))
    assert not q.is_contiguous() and torch.equal(probsparse_attention(q, k, v, sample, 8, causal), expected)


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        stored = [x.untyped_storage().nbytes() // x.element_size() for x in tree_leaves(made) if isinstance(x, Tensor)]
        self.elements = max(self.elements, *stored)
        return made


@pytest.mark.parametrize(("length", "count"), [(500, 35), (3000, 10)])
def test_the_expanded_keys_are_never_made(length: int, count: int) -> None:
    q, k, v, sample = inputs(2, 4, length, length, 16, 16, count, torch.float32)
    with Largest() as seen:
        probsparse_attention(q.requires_grad_(), k.requires_grad_(), v, sample, count).sum().backward()
    # inputs, a block of scores, or the scores of the active queries; not B·H·L·U·E, nor B·H·L·S
    assert seen.elements <= max(q.numel(), 2**18, 2 * 4 * count * length) < q.numel() * count // 2


@CAUSAL
def test_export_with_any_batch_size(causal: bool) -> None:
    class Attention(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, sample: Tensor) -> Tensor:
            return probsparse_attention(q, k, v, sample, 6, causal)

    q, k, v, sample = inputs(2, 2, 20, 20, 4, 4, 5)
    batch = {0: torch.export.Dim("batch")}
    shapes = {"q": batch, "k": batch, "v": batch, "sample": None}
    exported = torch.export.export(Attention(), (q, k, v, sample), dynamic_shapes=shapes).module()
    for size in (2, 5):
        q, k, v, sample = inputs(size, 2, 20, 20, 4, 4, 5)
        expected = probsparse_attention(q, k, v, sample, 6, causal)
        torch.testing.assert_close(exported(q, k, v, sample), expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("decoder", [False, True])
def test_one_sample_for_all_queries_is_what_transformers_does(
    decoder: bool, require: Callable[[str], ModuleType]
) -> None:
    require("transformers")
    from transformers.models.informer.modeling_informer import InformerProbSparseAttention

    length, heads, width, factor = 30, 2, 8, 2
    theirs = InformerProbSparseAttention(heads * width, heads, is_decoder=decoder, sampling_factor=factor).eval()
    x = torch.randn(3, length, heads * width)
    parts = (theirs.q_proj(x), theirs.k_proj(x), theirs.v_proj(x))
    q, k, v = (part.view(3, length, heads, width).transpose(1, 2) for part in parts)
    # theirs draws as many keys as there are, and takes log(1 + L)
    count = factor * math.ceil(math.log1p(length))
    torch.manual_seed(0)
    sample = torch.randint(0, length, (length,)).expand(length, -1)
    mask = torch.full((length, length), -torch.inf).triu(1).expand(3, 1, -1, -1) if decoder else None
    torch.manual_seed(0)
    expected = theirs(x, attention_mask=mask)[0]
    ours = probsparse_attention(q, k, v, sample, count, causal=decoder)
    torch.testing.assert_close(theirs.out_proj(ours.transpose(1, 2).flatten(2)), expected, atol=1e-5, rtol=1e-5)


def test_wrong_arguments_are_named() -> None:
    q, k, v, sample = inputs(2, 3, 8, 6, 4, 5, 3)
    wrong: list[tuple[str, Callable[[], Tensor]]] = [
        (r"q has shape \(3, 8, 4\)", lambda: sparsity(q[0], k, sample)),
        (r"k has shape \(2, 3, 6, 3\), expected \(2, 3, S, 4\)", lambda: sparsity(q, k[..., :3], sample)),
        (r"v has shape \(2, 3, 5, 5\)", lambda: probsparse_attention(q, k, v[:, :, 1:], sample, 2)),
        (r"k has dtype torch.float32", lambda: sparsity(q, k.float(), sample)),
        (r"sample has dtype torch.float64, expected int64", lambda: sparsity(q, k, sample.double())),
        (r"sample has shape \(7, 3\), expected \(8, U\)", lambda: sparsity(q, k, sample[1:])),
        (r"active has shape \(2, 4\), expected \(2, 3, T\)", lambda: attend(q, k, v, sample[:2].repeat(1, 2)[:, :4])),
        (r"top is 9, expected 1 to the 8 queries", lambda: active_queries(q, k, sample, 9)),
        (r"top is 0", lambda: probsparse_attention(q, k, v, sample, 0)),
        (r"8 queries and 6 keys", lambda: probsparse_attention(q, k, v, sample, 2, causal=True)),
    ]
    for message, call in wrong:
        with pytest.raises(ValueError, match=message):
            call()
    assert probsparse.__doc__ and "AAAI 2021" in probsparse.__doc__
