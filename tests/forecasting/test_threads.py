"""Small steps get one thread, large ones keep theirs, and the number is given back."""

from collections.abc import Iterator

import pytest
import torch

from datasets.windows import Batch
from forecasting import models
from forecasting.forecaster import Recipe, Task
from forecasting.threads import threads_for


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _batch(windows: int, lookback: int, horizon: int, variates: int) -> Batch:
    past = torch.randn(windows, lookback, variates)
    marks = torch.zeros(windows, lookback + horizon, 0)
    index = torch.zeros(windows, dtype=torch.long)
    return Batch(past, torch.ones_like(past, dtype=torch.bool), marks[:, :lookback], marks[:, lookback:], index, index)


@pytest.mark.parametrize(("width", "expected"), [(256, 1), (1024, 2)], ids=["small", "large"])
def test_threads_follow_the_size_of_a_step(width: int, expected: int, two_threads: None) -> None:
    architecture = models.architecture("itransformer", {"d_model": width, "d_ff": width})
    model = models.find("itransformer")(Task(96, 96, 7), architecture, Recipe())
    with threads_for(model, _batch(32, 96, 96, 7)):
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == 2
    assert model.training


def test_threads_are_given_back_after_an_error(two_threads: None) -> None:
    model = models.find("dlinear")(Task(24, 12, 2), models.architecture("dlinear", {}), Recipe())
    with pytest.raises(RuntimeError, match="broken off"), threads_for(model, _batch(4, 24, 12, 2)):
        raise RuntimeError("broken off")
    assert torch.get_num_threads() == 2
