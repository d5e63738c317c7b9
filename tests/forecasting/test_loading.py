"""The order in which windows are fed: fixed by seed and epoch, complete, and shared fairly between processes."""

from itertools import chain

import numpy as np
import pytest
import torch

from datasets import panel as panels
from datasets import schema
from datasets.windows import Windows
from forecasting.loading import WindowLoader


def windows(count: int) -> Windows:
    stamps = np.datetime64("2024-01-01") + np.arange(count + 9) * np.timedelta64(1, "h")
    panel = panels.from_series(schema.series(np.arange(count + 9.0)[:, None], stamps, ["a"]))
    return Windows(panel, 6, 4, [(6, count + 6)])


def origins(loader: WindowLoader, scored: bool = False) -> list[list[int]]:
    """Origins of each batch; only of windows with a scored target, if asked for."""
    made = []
    for batch in loader:
        assert batch.future_mask is not None
        kept = batch.future_mask.any(2).any(1) if scored else torch.ones(len(batch), dtype=torch.bool)
        made.append(batch.origin[kept].tolist())
    return made


@pytest.mark.parametrize(("count", "size"), [(100, 32), (96, 32), (5, 32), (33, 32)])
def test_every_window_comes_once_an_epoch(count: int, size: int) -> None:
    for shuffle in (False, True):
        loader = WindowLoader(windows(count), size, shuffle=shuffle, seed=1)
        batches = origins(loader)
        assert len(batches) == len(loader) == -(-count // size)
        assert sorted(chain(*batches)) == list(range(6, count + 6))
        assert (list(chain(*batches)) == sorted(chain(*batches))) is not shuffle


def test_the_order_follows_seed_and_epoch_and_nothing_else() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        loader = WindowLoader(windows(60), 16, shuffle=True, seed=seed)
        loader.set_epoch(epoch)
        torch.rand(int(torch.randint(1, 50, ())))
        return origins(loader)

    assert order(1, 0) == order(1, 0) and order(1, 3) == order(1, 3)
    assert len({str(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1, 2)}) == 6


@pytest.mark.parametrize("world", [2, 3, 5])
@pytest.mark.parametrize("count", [64, 61, 33])
def test_processes_share_each_global_batch(world: int, count: int) -> None:
    whole = origins(WindowLoader(windows(count), 16, shuffle=True, seed=1))
    shares = [
        origins(WindowLoader(windows(count), 16, shuffle=True, seed=1, rank=rank, world=world), scored=True)
        for rank in range(world)
    ]
    assert {len(share) for share in shares} == {len(whole)}
    for number, batch in enumerate(whole):
        together = [share[number] for share in shares]
        assert sorted(chain(*together)) == sorted(batch)
        assert max(map(len, together)) - min(map(len, together)) <= 1


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_sum_over_processes_does_not_depend_on_their_number(world: int) -> None:
    def total(rank: int) -> float:
        loader, found = WindowLoader(windows(100), 7, shuffle=False, seed=0, rank=rank, world=world), 0.0
        for batch in loader:
            assert batch.future is not None and batch.future_mask is not None
            found += float(batch.future[batch.future_mask].sum())
        return found

    one = WindowLoader(windows(100), 100, shuffle=False, seed=0)
    expected = next(iter(one)).future
    assert expected is not None
    assert sum(total(rank) for rank in range(world)) == float(expected.sum())
