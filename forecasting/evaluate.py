"""Scores of a model over all windows of a part: streamed, so that memory does not grow with their number."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.panel import Panel
from datasets.scaling import Scaler
from forecasting import metrics
from forecasting.engine import Prediction
from forecasting.intervals import BANDS, LEVEL_TENSOR, Intervals, band

Sink = Callable[[Prediction, Tensor, Tensor, Tensor | None], None]


@dataclass
class Scores:
    """Sums of errors per horizon step and variate, from which every table and plot is made.

    Args:
        variates: C names.
        sums: Metric → ``(H, C)`` sums over scored elements.
        counts: ``(H, C)`` scored elements.
        by_series: Metric → ``(S,)`` sums, for panels.
        origin_mse, origin_mae: One mean per window, on scaled data, in the order of the windows.
    """

    variates: tuple[str, ...]
    sums: dict[str, Tensor]
    counts: Tensor
    series_sums: dict[str, Tensor]
    series_counts: Tensor
    origin_mse: np.ndarray = field(default_factory=lambda: np.empty(0))
    origin_mae: np.ndarray = field(default_factory=lambda: np.empty(0))

    def overall(self) -> dict[str, float]:
        """Each metric over all windows, steps and variates; sMAPE in percent."""
        total = self.counts.sum().clamp(min=1)
        return {name: float(table.sum() / total) for name, table in self.sums.items()}

    def by_step(self) -> dict[str, list[float]]:
        """Each metric per horizon step."""
        total = self.counts.sum(1).clamp(min=1)
        return {name: (table.sum(1) / total).tolist() for name, table in self.sums.items()}

    def by_variate(self) -> dict[str, dict[str, float]]:
        """Each metric per variate."""
        total = self.counts.sum(0).clamp(min=1)
        return {
            name: dict(zip(self.variates, (table.sum(0) / total).tolist(), strict=True))
            for name, table in self.sums.items()
        }

    def by_series(self, ids: Iterable[str]) -> dict[str, dict[str, float]]:
        """Mean absolute scaled error and the like per series of a panel."""
        total = self.series_counts.clamp(min=1)
        return {name: dict(zip(ids, (row / total).tolist(), strict=True)) for name, row in self.series_sums.items()}


def seasonal_scales(panel: Panel, rows: list[tuple[int, int]], season: int) -> Tensor:
    """Mean absolute seasonal difference of the training rows in original units, ``(S, C)``: the denominator of MASE."""
    scales = []
    for series, (first, end) in enumerate(rows):
        start = int(panel.offsets[series])
        span = slice(start + first, start + end)
        scales.append(metrics.seasonal_scale(panel.value[span], panel.observed[span], season))
    return torch.stack(scales)


def evaluate(
    predictions: Iterable[Prediction],
    scaler: Scaler,
    intervals: Intervals | None,
    scales: Tensor,
    variates: tuple[str, ...],
    sink: Sink | None = None,
) -> Scores:
    """Scores every window.

    MSE and MAE are on scaled data, as published; MASE, sMAPE, CRPS and coverage in original units. The scaled CRPS is
    divided by the denominator of MASE, so that variates of different units can be averaged.

    Args:
        predictions: In the order of the windows; see `engine.predict`.
        intervals: None leaves out CRPS and coverage.
        scales: ``(S, C)`` from `seasonal_scales`.
        sink: Called with each prediction and its actual values, point forecast and quantiles in original units.
    """
    totals: _Totals | None = None
    origin_mse, origin_mae = [], []
    for prediction in predictions:
        batch = prediction.batch
        assert batch.future is not None and batch.future_mask is not None
        actual = scaler.inverse(batch.future, batch.series)
        point = scaler.inverse(prediction.point, batch.series)
        # (B, H, C, Q), original units
        quantiles = None if intervals is None else scaler.inverse(intervals.quantiles(prediction), batch.series)
        mask = batch.future_mask
        values = _errors(
            batch.future, prediction.point, actual, point, quantiles, scales.to(actual)[batch.series][:, None]
        )
        totals = totals or _Totals(list(values), mask.shape[1:], len(scales), mask.device)
        totals.add(values, mask, batch.series)
        origin_mse.append(metrics.masked_mean(values["mse"], mask, (1, 2)).cpu())
        origin_mae.append(metrics.masked_mean(values["mae"], mask, (1, 2)).cpu())
        if sink:
            sink(prediction, actual, point, quantiles)
    assert totals is not None
    return Scores(
        variates,
        {k: v.cpu() for k, v in totals.sums.items()},
        totals.counts.cpu(),
        {k: v.cpu() for k, v in totals.series_sums.items()},
        totals.series_counts.cpu(),
        torch.cat(origin_mse).double().numpy(),
        torch.cat(origin_mae).double().numpy(),
    )


def summary(scores: dict[str, Scores], reference: str = "seasonal_naive") -> dict[str, Any]:
    """Scores of several models as plain data, with the skill of each against the reference.

    Skill is 1 − error / error of the reference: on MASE for the point forecast, on scaled CRPS for the distribution.
    There is none beside a reference without error, as on a series that repeats itself exactly.
    """
    table = {name: model.overall() for name, model in scores.items()}
    base = table.get(reference)
    for row in table.values():
        for skill, metric in (("skill_mae", "mase"), ("skill_crps", "scaled_crps")):
            if base and base.get(metric) and metric in row:
                row[skill] = 1 - row[metric] / base[metric]
    return {
        "scores": table,
        "by_step": {name: model.by_step() for name, model in scores.items()},
        "by_variate": {name: model.by_variate() for name, model in scores.items()},
    }


def _errors(
    future: Tensor, forecast: Tensor, actual: Tensor, point: Tensor, quantiles: Tensor | None, scale: Tensor
) -> dict[str, Tensor]:
    absolute = metrics.absolute_error(actual, point)
    values = {
        "mse": metrics.squared_error(future, forecast),
        "mae": metrics.absolute_error(future, forecast),
        "mae_original": absolute,
        "mase": absolute / scale,
        "smape": metrics.symmetric_percentage_error(actual, point),
    }
    if quantiles is None:
        return values
    crps = metrics.crps_from_quantiles(actual, quantiles, LEVEL_TENSOR.to(quantiles))
    values |= {"crps": crps, "scaled_crps": crps / scale}
    for percent in BANDS:
        lower, upper = band(quantiles, percent)
        values[f"coverage_{percent}"] = metrics.coverage(actual, lower, upper).float()
        values[f"width_{percent}"] = upper - lower
    return values


class _Totals:
    """Running sums in fp64 on the device."""

    def __init__(self, names: list[str], shape: torch.Size, series: int, device: torch.device) -> None:
        # a single multivariate series has nothing to add per series
        per_series = names if series > 1 else []
        self.sums = {name: torch.zeros(shape, dtype=torch.float64, device=device) for name in names}
        self.counts = torch.zeros(shape, dtype=torch.float64, device=device)
        self.series_sums = {name: torch.zeros(series, dtype=torch.float64, device=device) for name in per_series}
        self.series_counts = torch.zeros(series, dtype=torch.float64, device=device)

    def add(self, values: dict[str, Tensor], mask: Tensor, series: Tensor) -> None:
        """Adds one batch; elements outside the mask do not count."""
        for name, value in values.items():
            kept = torch.where(mask, value, 0.0)
            self.sums[name] += kept.sum(0, dtype=torch.float64)
            if name in self.series_sums:
                self.series_sums[name].index_add_(0, series, kept.double().sum((1, 2)))
        self.counts += mask.sum(0)
        self.series_counts.index_add_(0, series, mask.sum((1, 2)).double())
