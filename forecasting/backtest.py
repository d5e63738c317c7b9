"""Rolling-origin backtests of a stored model: with or without training anew, every forecast kept as a frame."""

import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from forecasting.config import RunConfig
from forecasting.engine import Prediction, predict
from forecasting.evaluate import Scores, Sink, evaluate, seasonal_scales, summary
from forecasting.experiment import (
    REFERENCE,
    Trained,
    baseline_config,
    baseline_data,
    compare_scores,
    difference,
    scored,
    train_model,
)
from forecasting.intervals import BANDS, LEVEL_TENSOR, Calibration, band
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
    return _scored(predictor, prepared, _Plan(_origin_ranges(prepared, 1, None)), None)


def rolling_backtest(
    predictor: Predictor,
    series: Series,
    data: str,
    *,
    stride: int = 1,
    origins: int | None = None,
    refits: int = 0,
    intervals: bool = True,
    baseline: bool = True,
) -> "tuple[dict[str, Any], polars.DataFrame]":
    """Forecasts from rolling origins over the test part.

    Args:
        stride: Rows between two origins; the last origin is always the last possible one.
        origins: Only the last so many, of each series.
        refits: Number of equal shares of the origins before each of which the model is trained anew, on all rows
            before it.
        intervals: Whether intervals are made and scored.
        baseline: Whether seasonal naive is scored beside the model.

    Returns:
        Scores as in ``metrics.json``, and a frame with one row per origin, step and variate: ``unique_id``,
        ``variate``, ``cutoff`` (last known time stamp), ``ds``, ``step``, ``y``, ``forecast`` and the ends of the
        intervals, in original units.
    """
    if stride < 1 or (origins is not None and origins < 1) or refits < 0:
        raise ForetideError(
            f"backtest: found stride {stride}, origins {origins}, refits {refits}; expected at least 1, 1 and 0"
        )
    prepared = _prepared(predictor, series, data, anew=refits > 0)
    frames = _Frames(prepared.panel)
    plan = _Plan(_origin_ranges(prepared, stride, origins), stride, refits, intervals, baseline)
    return _scored(predictor, prepared, plan, frames), frames.frame()


def difference_rows(stored: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """The difference of each run to the first one at the same test windows, with its block-bootstrap interval.

    Args:
        stored: Runs of one dataset and horizon, by the name to print.
    """
    (first, base), *others = stored.items()
    rows = []
    for name, other in others:
        for metric in ("mse", "mae"):
            mine, theirs = (
                a.weights[f"evaluation.{a.config['model']}.{metric}"].double().numpy() for a in (other, base)
            )
            if len(mine) != len(theirs) or len(mine) < 4:
                raise ForetideError(
                    f"{name}: found {len(mine)} test windows, {first} has {len(theirs)}; expected the same split"
                )
            mine, theirs = scored(mine, theirs)
            found = difference(mine, theirs, int(base.schema["horizon"]), base.schema["series"] == 1)
            rows.append({"model": name, "baseline": first, "metric": metric, **found})
    return rows


def _prepared(predictor: Predictor, series: Series, data: str, *, anew: bool) -> Prepared:
    """The data under the protocol of the training: in the scale of the stored model, unless models are trained anew."""
    prepared = prepare_series(predictor.config.of(data=data), predictor.check(series), {}, catalog.known(data))
    if anew:
        return prepared
    if predictor.config.training.refit:
        warnings.warn(
            f"run {predictor.run_id}: its model was trained anew on all rows, the test part included, so that "
            "these scores are too good; those stored with the run were made before",
            ForetideWarning,
            stacklevel=3,
        )
    scaler = predictor.scaler.match(prepared.panel)
    return replace(prepared, scaler=scaler, scaled=scaler.apply(prepared.panel))


@dataclass(frozen=True)
class _Plan:
    """What is forecast: ranges of origins for each series, and with what beside it."""

    ranges: list[tuple[int, int]]
    stride: int = 1
    refits: int = 0
    intervals: bool = True
    baseline: bool = True


def _scored(predictor: Predictor, prepared: Prepared, plan: _Plan, sink: Sink | None) -> dict[str, Any]:
    config, panel = predictor.config, prepared.panel
    scales = seasonal_scales(panel, prepared.training_rows, prepared.season)
    if plan.refits:
        own = _refitted(config, prepared, plan, scales, sink)
    else:
        own = _run(predictor.model, predictor.calibration, config, prepared, plan, scales, sink)
    scores = {config.model: own}
    if plan.baseline and config.model != REFERENCE:
        data, chosen = baseline_data(REFERENCE, prepared), baseline_config(REFERENCE, config)
        with tempfile.TemporaryDirectory() as work:
            naive = train_model(chosen, data, Path(work), visible=False)
        scores[REFERENCE] = _run(naive.model, naive.calibration, chosen, data, plan, scales, None)
    metrics = summary(scores, REFERENCE) | {"windows": {"test": len(own.origin_mse)}}
    metrics["comparison"] = compare_scores(
        scores, config.model, -(-config.horizon // plan.stride), config.training.seed, len(panel.ids) == 1
    )
    return metrics


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


def _run(
    model: Any,
    calibration: Calibration,
    config: RunConfig,
    prepared: Prepared,
    plan: _Plan,
    scales: Tensor,
    sink: Sink | None,
) -> Scores:
    windows = Windows(prepared.scaled.to(model.device), prepared.lookback, prepared.horizon, plan.ranges, plan.stride)
    levels = LEVEL_TENSOR if config.intervals.method == "head" else None
    made = (
        calibration.intervals(config.intervals.method, len(prepared.panel.ids), plan.stride) if plan.intervals else None
    )
    return evaluate(
        predict(model, windows, levels=levels), prepared.scaler, made, scales, prepared.panel.variates, sink
    )


def _refitted(config: RunConfig, prepared: Prepared, plan: _Plan, scales: Tensor, sink: Sink | None) -> Scores:
    """Trains before each share of the origins, on all rows before it; the last of those select, as in the first run."""
    stride, refits = plan.stride, plan.refits
    if len(plan.ranges) > 1:
        raise ForetideError(
            "backtest --refits: is for one table of variates; a panel of many series is scored without training anew"
        )
    (first, end), border = plan.ranges[0], prepared.borders[0]
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
        share = replace(plan, ranges=[(start, first + (right - 1) * stride + 1)])
        parts.append(_run(trained.model, trained.calibration, config, fold, share, scales, sink))
    return _joined(parts)


def _joined(parts: list[Scores]) -> Scores:
    first = parts[0]
    return Scores(
        first.variates,
        {name: sum((p.sums[name] for p in parts[1:]), first.sums[name]) for name in first.sums},
        sum((p.counts for p in parts[1:]), first.counts),
        first.series_sums,
        sum((p.series_counts for p in parts[1:]), first.series_counts),
        np.concatenate([p.origin_mse for p in parts]),
        np.concatenate([p.origin_mae for p in parts]),
    )


class _Frames:
    """Collects every forecast of a backtest, as arrays until the end."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._parts: dict[str, list[np.ndarray]] = {}

    def __call__(self, prediction: Prediction, actual: Tensor, point: Tensor, quantiles: Tensor | None) -> None:
        """One batch in original units."""
        mask = prediction.batch.future_mask
        assert mask is not None
        self._add("series", prediction.batch.series)
        self._add("origin", prediction.batch.origin)
        self._add("y", torch.where(mask, actual, torch.nan))
        self._add("forecast", point)
        if quantiles is not None:
            for percent in reversed(BANDS):
                for name, end in zip(("lower", "upper"), band(quantiles, percent), strict=True):
                    self._add(f"{name}_{percent}", end)

    def frame(self) -> "polars.DataFrame":
        """All of it, one row per origin, step and variate."""
        import polars as pl

        found = {name: np.concatenate(parts) for name, parts in self._parts.items()}
        series, origin = found.pop("series"), found.pop("origin")
        shape = found["y"].shape  # (W, H, C)
        times, steps = self._panel.times.astype("datetime64[us]"), np.arange(shape[1])
        rows = (self._panel.offsets.numpy()[series] + origin)[:, None] + steps  # (W, H)

        def spread(values: np.ndarray) -> np.ndarray:
            return np.broadcast_to(values, shape).reshape(-1)

        columns = {
            "unique_id": _named(spread(series.astype(np.uint32)[:, None, None]), self._panel.ids),
            "variate": _named(spread(np.arange(shape[2], dtype=np.uint32)), self._panel.variates),
            "cutoff": spread(times[rows[:, :1] - 1][..., None]),
            "ds": spread(times[rows][..., None]),
            "step": spread((steps + 1).astype(np.int32)[:, None]),
        }
        return pl.DataFrame(columns | {name: values.reshape(-1) for name, values in found.items()})

    def _add(self, name: str, values: Tensor) -> None:
        self._parts.setdefault(name, []).append(values.cpu().numpy())


def _named(codes: np.ndarray, names: tuple[str, ...]) -> "polars.Series":
    """Names for codes as an enumeration: a few bytes for each row, not a string."""
    import polars as pl

    return pl.Series(codes).cat.to(pl.Enum(list(names)))
