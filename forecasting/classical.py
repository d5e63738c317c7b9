"""AutoETS and Theta in a leaderboard: fitted anew at a declared sample of origins, because all would take hours."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from datasets.windows import Windows
from forecasting.baselines import classical, classical_model
from forecasting.conformal import residual_quantiles
from forecasting.engine import Prediction
from forecasting.evaluate import Scores, evaluate
from forecasting.intervals import FixedIntervals
from forecasting.protocol import Prepared

CLASSICAL = ("auto_ets", "theta")
LONGEST_HISTORY = 2000


def check_classical(name: str) -> None:
    """Refuses a method whose library is not installed."""
    classical_model(name, 1)


def classical_scores(name: str, prepared: Prepared, scales: Tensor, origins: int) -> Scores:
    """Scores a classical method at evenly spaced origins of the test part; its bands come from as many of validation.

    Args:
        name: ``auto_ets`` or ``theta``.
        scales: ``(S, C)``, the denominator of MASE.
        origins: Size of the sample.
    """
    learned = list(_predictions(name, prepared, "validation", origins))
    residuals = torch.cat([p.batch.future - p.point for p in learned if p.batch.future is not None])
    mask = torch.cat([p.batch.future_mask for p in learned if p.batch.future_mask is not None])
    intervals = FixedIntervals(torch.nan_to_num(residual_quantiles(residuals, mask)))
    return evaluate(
        _predictions(name, prepared, "test", origins), prepared.scaler, intervals, scales, prepared.panel.variates
    )


def _predictions(name: str, prepared: Prepared, part: str, origins: int) -> Iterator[Prediction]:
    windows: Windows = prepared.windows(part)
    sample = torch.from_numpy(np.unique(np.linspace(0, len(windows) - 1, origins).round().astype(np.int64)))
    panel = prepared.scaled
    for index in sample.split(1):
        batch = windows.batch(index)
        start = int(panel.offsets[batch.series[0]])
        end = start + int(batch.origin[0])
        rows = slice(max(start, end - LONGEST_HISTORY), end)
        history = torch.where(panel.observed[rows], panel.value[rows], torch.nan).double().numpy()
        point = classical(name, history, prepared.horizon, prepared.season)  # type: ignore[arg-type]
        yield Prediction(batch, torch.from_numpy(point).float()[None], None)
