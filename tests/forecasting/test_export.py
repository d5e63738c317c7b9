"""`torch.export` of the forward pass of every model that is trained: one graph, the same outputs."""

from typing import Any

import pytest
import torch
import torch.utils._pytree as pytree
from torch import Tensor

from datasets.windows import Batch
from forecasting import models
from forecasting.config import HeadOptions
from forecasting.forecaster import Forecaster, Recipe, Task

L, H, C, F = 48, 12, 3, 4
TRAINED = [name for name in models.names() if models.find(name).trainable]
# what keeps a model small, by the names that architectures use for it; each takes those that it has
SMALL = {"d_model": 16, "d_ff": 16, "heads": 2, "layers": 2, "decoder_layers": 1}


def make(name: str, **recipe: Any) -> Forecaster:
    """A model at toy size with random weights, in evaluation mode."""
    kind = models.find(name)
    own = {key: value for key, value in SMALL.items() if key in kind.Config.__dataclass_fields__}
    task = Task(L, H, C, calendar=F if kind.supports.calendar else 0, season=24)
    made = kind(task, models.architecture(name, own), Recipe(**recipe)).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made


def batch(count: int = 4, missing: bool = False, **more: Tensor) -> Batch:
    past = torch.randn(count, L, C).cumsum(1)
    mask = torch.rand(count, L, C) > 0.2 if missing else torch.ones(count, L, C, dtype=torch.bool)
    return Batch(
        past=torch.where(mask, past, 0.0),
        past_mask=mask,
        past_calendar=torch.rand(count, L, F) - 0.5,
        future_calendar=torch.rand(count, H, F) - 0.5,
        series=torch.zeros(count, dtype=torch.long),
        origin=torch.arange(count),
        **more,
    )


@pytest.mark.parametrize("name", TRAINED)
@torch.inference_mode()
def test_the_exported_forward_pass_gives_the_same_outputs(name: str) -> None:
    model = make(name)
    exported = torch.export.export(model, (batch(),)).module()
    for given in (batch(), batch(missing=True)):
        expected = model(given)
        assert expected.shape == (4, H, C, 1)
        torch.testing.assert_close(exported(given), expected, rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_a_head_of_several_outputs_is_exported_too() -> None:
    model, given = make("dlinear", head=HeadOptions(kind="quantile")), batch()
    torch.testing.assert_close(torch.export.export(model, (batch(),)).module()(given), model(given))


def test_a_batch_is_a_tree_of_the_tensors_that_it_holds() -> None:
    given = batch(future=torch.ones(4, H, C), static=torch.ones(4, 2))
    leaves, spec = pytree.tree_flatten(given)
    assert [leaf.shape for leaf in leaves] == [
        t.shape
        for t in (given.past, given.past_mask, given.past_calendar, given.future_calendar, given.series, given.origin)
    ] + [(4, H, C), (4, 2)]
    again = pytree.tree_unflatten(leaves, spec)
    assert again.static is given.static and again.future_mask is None and len(again) == 4
    doubled = pytree.tree_map(lambda tensor: 2 * tensor, given)
    assert torch.equal(doubled.past, 2 * given.past) and doubled.past_covariates is None
