"""How many threads a training on the processor uses: one where the step is small.

Threads that meet at the end of every small operation gain little, and where anything else runs on those cores they wait
for each other many times longer than they compute. A step above a few GFLOP scales with its threads, and keeps them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.flop_counter import FlopCounterMode

from datasets.windows import Batch
from forecasting.forecaster import Forecaster

SMALL_STEP = 1_000_000_000


@contextmanager
def threads_for(model: Forecaster, batch: Batch) -> Iterator[None]:
    """Limits torch to one thread within the block if a forward pass of the batch is small.

    The choice depends on sizes alone, never on a clock, so that a repeated run adds up in the same order.

    Args:
        batch: One training batch, on the processor.
    """
    before = torch.get_num_threads()
    if before > 1 and _operations(model, batch) < SMALL_STEP:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _operations(model: Forecaster, batch: Batch) -> int:
    """Floating-point operations of the products in a forward pass."""
    training = model.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval().outputs(batch)
    model.train(training)
    return counter.get_total_flops()
