"""Rolling-origin backtests of a stored model: with or without training anew, every forecast kept as a frame."""

import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from datasets import catalog
from datasets.errors import ForetideError, ForetideWarning
from datasets.panel import Panel
from datasets.splits import Borders
from datasets.windows import Windows
from forecasting.artifact import Artifact
from forecasting.bootstrap import block_bootstrap
from forecasting.config import RunConfig
from forecasting.engine import Prediction, predict
from forecasting.evaluate import Scores, Sink, evaluate, seasonal_scales, summary
from forecasting.experiment import (
    REFERENCE,
    Trained,
    baseline_config,
    baseline_data,
    compare_scores,
    scored,
    train_model,
)
from forecasting.intervals import BANDS, LEVEL_TENSOR, Intervals, band
from forecasting.predictor import Predictor
from forecasting.protocol import Prepared, Series, prepare_series

if TYPE_CHECKING:
    import polars


def evaluate_stored(predictor: Predictor, series: Series, data: str) -> dict[str, Any]:
    """Scores of a stored model on every test window, beside seasonal naive.

    Args:
        series: Canonical data; the split is that of the model's training.
        data: Its name.
    """
    prepared = _prepared(predictor, series, data, anew=False)
    metrics, _ = _scored(predictor, prepared, stride=1, origins=None, refits=0, keep=False)
    return metrics


def rolling_backtest(predictor: Predictor, series: Series, data: str, *, stride: int = 1, origins: int | None = None,
                     refits: int = 0) -> "tuple[dict[str, Any], polars.DataFrame]":
    """Forecasts from rolling origins over the test part.

    Args:
        stride: Rows between two origins; the last origin is always the last possible one.
        origins: Only the last so many, of each series.
        refits: Number of equal shares of the origins before each of which the model is trained anew, on all rows before it.

    Returns:
        Scores as in ``metrics.json``, and a frame with one row per origin, step and variate: ``unique_id``, ``variate``, ``cutoff``
        (last known time stamp), ``ds``, ``step``, ``y``, ``forecast`` and the ends of the intervals, in original units.
    """
    if stride < 1 or (origins is not None and origins < 1) or refits < 0:
        raise ForetideError(f"backtest: found stride {stride}, origins {origins}, refits {refits}; expected at least 1, 1 and 0")
    prepared = _prepared(predictor, series, data, anew=refits > 0)
    metrics, frame = _scored(predictor, prepared, stride=stride, origins=origins, refits=refits, keep=True)
    assert frame is not None
    return metrics, frame


def difference_rows(stored: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """The difference of each run to the first one at the same test windows, with its block-bootstrap interval.

    Args:
        stored: Runs of one dataset and horizon, by the name to print.
    """
    (first, base), *others = stored.items()
    rows = []
    for name, other in others:
        for metric in ("mse", "mae"):
            mine, theirs = (a.weights[f"evaluation.{a.config['model']}.{metric}"].double().numpy() for a in (other, base))
            if len(mine) != len(theirs) or len(mine) < 4:
                raise ForetideError(f"{name}: found {len(mine)} test windows, {first} has {len(theirs)}; expected the same split")
            mine, theirs = scored(mine, theirs)
            block = min(2 * int(base.schema["horizon"]), len(mine) // 2) if base.schema["series"] == 1 else 1
            interval = block_bootstrap(mine - theirs, block)
            rows.append({"model": name, "baseline": first, "metric": metric, "difference": interval.mean, "lower": interval.lower,
                         "upper": interval.upper, "verdict": interval.verdict})
    return rows


def _prepared(predictor: Predictor, series: Series, data: str, *, anew: bool) -> Prepared:
    """The data under the protocol of the training: in the scale of the stored model, unless models are trained anew."""
    prepared = prepare_series(predictor.config.of(data=data), predictor.check(series), {}, catalog.known(data))
    if anew:
        return prepared
    if predictor.config.training.refit:
        warnings.warn(f"run {predictor.run_id}: its model was trained anew on all rows, the test part included, so that "
                      "these scores are too good; those stored with the run were made before", ForetideWarning, stacklevel=3)
    scaler = predictor.scaler.match(prepared.panel)
    return replace(prepared, scaler=scaler, scaled=scaler.apply(prepared.panel))


def _scored(predictor: Predictor, prepared: Prepared, *, stride: int, origins: int | None, refits: int,
            keep: bool) -> "tuple[dict[str, Any], polars.DataFrame | None]":
    config, panel = predictor.config, prepared.panel
    ranges = _origin_ranges(prepared, stride, origins)
    scales = seasonal_scales(panel, prepared.training_rows, prepared.season)
    frames = _Frames(panel) if keep else None
    scores: dict[str, Scores] = {}
    if refits:
        scores[config.model] = _refitted(config, prepared, ranges, stride, refits, scales, frames)
    else:
        intervals = predictor.calibration.intervals(config.intervals.method, len(panel.ids), stride)
        scores[config.model] = _run(predictor.model, config, prepared, ranges, stride, intervals, scales, frames)
    if config.model != REFERENCE:
        data = baseline_data(REFERENCE, prepared)
        with tempfile.TemporaryDirectory() as work:
            naive = train_model(baseline_config(REFERENCE, config), data, Path(work), visible=False)
        intervals = naive.calibration.intervals("adaptive", len(panel.ids), stride)
        scores[REFERENCE] = _run(naive.model, config, data, ranges, stride, intervals, scales, None)
    metrics = summary(scores, REFERENCE) | {"windows": {"test": len(scores[config.model].origin_mse)}}
    metrics["comparison"] = compare_scores(scores, config.model, -(-config.horizon // stride), config.training.seed, len(panel.ids) == 1)
    return metrics, frames.frame() if frames else None


def _origin_ranges(prepared: Prepared, stride: int, origins: int | None) -> list[tuple[int, int]]:
    """Half-open ranges of origins, counted back from the last possible one."""
    ranges = []
    for border, length in zip(prepared.borders, prepared.panel.ends.tolist(), strict=True):
        low, end = border.rows("test", prepared.min_history)
        first, last = max(low + prepared.min_history, border.test[0]), min(end, length) - prepared.horizon
        count = (last - first) // stride + 1
        kept = min(count, origins) if origins else count
        ranges.append((last - (kept - 1) * stride, last + 1))
    return ranges


def _run(model: Any, config: RunConfig, prepared: Prepared, ranges: list[tuple[int, int]], stride: int, intervals: Intervals,
         scales: Tensor, sink: Sink | None) -> Scores:
    windows = Windows(prepared.scaled.to(model.device), prepared.lookback, prepared.horizon, ranges, stride)
    levels = LEVEL_TENSOR if config.intervals.method == "head" and model.head.size > 1 else None
    return evaluate(predict(model, windows, levels=levels), prepared.scaler, intervals, scales, prepared.panel.variates, sink)


def _refitted(config: RunConfig, prepared: Prepared, ranges: list[tuple[int, int]], stride: int, refits: int, scales: Tensor,
              sink: Sink | None) -> Scores:
    """Trains before each share of the origins, on all rows before it; the last rows of those select, as in the first training."""
    if len(ranges) > 1:
        raise ForetideError("backtest --refits: is for one table of variates; a panel of many series is scored without training anew")
    (first, end), border = ranges[0], prepared.borders[0]
    count, held_out = (end - 1 - first) // stride + 1, border.validation[1] - border.validation[0]
    if refits > count:
        raise ForetideError(f"backtest --refits: found {refits}, expected at most the {count} origins")
    edges = np.linspace(0, count, refits + 1).astype(int)
    parts = []
    for left, right in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        start = first + left * stride
        moved = Borders((0, start - held_out), (start - held_out, start), border.test, border.overlap)
        # one scale for all shares, that of the training rows, so that their errors can be compared and averaged
        fold = replace(prepared, borders=[moved])
        with tempfile.TemporaryDirectory() as work:
            trained: Trained = train_model(config, fold, Path(work), visible=True)
        intervals = trained.calibration.intervals(config.intervals.method, 1, stride)
        share = [(start, first + (right - 1) * stride + 1)]
        parts.append(_run(trained.model, config, fold, share, stride, intervals, scales, sink))
    return _joined(parts)


def _joined(parts: list[Scores]) -> Scores:
    first = parts[0]
    return Scores(first.variates, {name: sum((p.sums[name] for p in parts[1:]), first.sums[name]) for name in first.sums},
                  sum((p.counts for p in parts[1:]), first.counts), first.series_sums,
                  sum((p.series_counts for p in parts[1:]), first.series_counts),
                  np.concatenate([p.origin_mse for p in parts]), np.concatenate([p.origin_mae for p in parts]))


class _Frames:
    """Collects every forecast of a backtest, as arrays until the end."""

    def __init__(self, panel: Panel) -> None:
        self._panel, self._offsets = panel, panel.offsets.numpy()
        self._columns: dict[str, list[np.ndarray]] = {}

    def __call__(self, prediction: Prediction, actual: Tensor, point: Tensor, quantiles: Tensor) -> None:
        """One batch in original units."""
        assert prediction.batch.future_mask is not None
        series, origin = prediction.batch.series.cpu().numpy(), prediction.batch.origin.cpu().numpy()
        batch, horizon, variates = point.shape
        steps = np.arange(horizon)
        rows = (self._offsets[series] + origin)[:, None] + steps  # (B, H)
        self._add("unique_id", np.broadcast_to(series[:, None, None].astype(np.int32), point.shape))
        self._add("variate", np.broadcast_to(np.arange(variates, dtype=np.int32), point.shape))
        self._add("cutoff", np.broadcast_to(self._panel.times[rows[:, :1] - 1][..., None], point.shape))
        self._add("ds", np.broadcast_to(self._panel.times[rows][..., None], point.shape))
        self._add("step", np.broadcast_to((steps + 1).astype(np.int32)[None, :, None], point.shape))
        self._add("y", torch.where(prediction.batch.future_mask, actual, torch.nan).cpu().numpy())
        self._add("forecast", point.cpu().numpy())
        for percent in reversed(BANDS):
            lower, upper = band(quantiles, percent)
            self._add(f"lower_{percent}", lower.cpu().numpy())
            self._add(f"upper_{percent}", upper.cpu().numpy())

    def frame(self) -> "polars.DataFrame":
        """All of it, one row per origin, step and variate."""
        import polars as pl

        columns = {name: np.concatenate(parts) for name, parts in self._columns.items()}
        names = {"unique_id": self._panel.ids, "variate": self._panel.variates}
        return pl.DataFrame(columns).with_columns(
            *[pl.Series(list(known), dtype=pl.String).gather(columns[name]).alias(name) for name, known in names.items()])

    def _add(self, name: str, values: np.ndarray) -> None:
        flat = values.reshape(-1)
        self._columns.setdefault(name, []).append(flat.astype("datetime64[us]") if flat.dtype.kind == "M" else flat)

