"""What reproductions measured, beside what was published: the summary of a folder of finished runs."""

import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from datasets.files import atomic_path
from forecasting import artifact, models, published
from forecasting.published import Features, Published

REFERENCE = "seasonal_naive"
BANDS = (80, 95)
# scores of a run that a summary averages over seeds, where the run has them
_AVERAGED = ("mse", "mae", "mse_dropped", "mae_dropped", "crps", "scaled_crps", "naive_crps", "naive_scaled_crps")
_COVERED = tuple(f"{name}_{percent}" for percent in BANDS for name in ("coverage", "coverage_error"))


def cell_name(model: str, dataset: str, features: Features, horizon: int, seed: int) -> str:
    """Name of the folder of one run of a published table."""
    return "_".join([model, dataset, *(["S"] if features == "S" else []), str(horizon), str(seed)])


def write(folder: Path, model: str, dataset: str, failures: Mapping[str, str] | None = None) -> Path:
    """Writes the summary of all finished runs of a model on a dataset, as ``<folder>/<model>_<dataset>.json``.

    Args:
        failures: Cells that failed, with the reason; those of earlier calls are kept until the cell is finished.
    """
    path = folder / f"{model}_{dataset}.json"
    before = read(path).get("failures", {}) if path.exists() else {}
    made = summary([folder], model, dataset, {**before, **(failures or {})})
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> dict[str, Any]:
    """A summary that `write` made."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def summary(
    folders: Iterable[Path], model: str, dataset: str, failures: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Published scores beside the mean and standard deviation over seeds, by features and horizon.

    Args:
        folders: Where the folders of the runs are; a run that several of them hold counts once.
        failures: Cells that failed, with the reason.

    Returns:
        ``cells``, one for each horizon and kind of features; ``averages`` over the horizons of a table, where all of
        them are there; ``failures``; ``versions``, ``devices`` and ``commits`` of the runs.
    """
    pattern = re.compile(rf"{re.escape(model)}_{re.escape(dataset)}_(?:(S)_)?(\d+)_(\d+)")
    places = {path.name: path for folder in folders for path in folder.iterdir() if (path / artifact.SUMS).exists()}
    found = [
        (match[1] or "M", int(match[2]), int(match[3]), path)
        for name, path in places.items()
        if (match := pattern.fullmatch(name))
    ]
    rows = [_run(path, model, dataset, features, horizon) for features, horizon, _, path in sorted(found)]
    groups = [list(group) for _, group in groupby(rows, key=lambda row: (row["features"], row["horizon"]))]
    made = [_cell(model, dataset, group) for group in groups]
    finished = {path.name for *_, path in found}
    return {
        "model": model,
        "title": models.find(model).title,
        "dataset": dataset,
        "cells": made,
        "averages": [row for features in ("M", "S") if (row := _average(model, dataset, features, rows)) is not None],
        "failures": {
            name: reason
            for name, reason in (failures or {}).items()
            if pattern.fullmatch(name) and name not in finished
        },
        "devices": sorted({row["device"] for row in rows}),
        "commits": sorted({row["commit"] for row in rows if row["commit"]}),
        "versions": rows[0]["versions"] if rows else {},
    }


def without_incomplete_batch(errors: Sequence[float], size: int) -> float:
    """The mean of the errors of test windows as code reports it that drops the last incomplete batch.

    Args:
        errors: One mean error per window, in the order of the windows.
        size: Windows in a batch.
    """
    kept = len(errors) // size * size
    return statistics.fmean(errors[:kept]) if kept else statistics.fmean(errors)


def _run(folder: Path, model: str, dataset: str, features: Any, horizon: int) -> dict[str, Any]:
    """One finished run: its scores, and what it was made with."""
    known = published.find(model, dataset, horizon, features)
    stored = artifact.load(folder, weights=bool(known and known.dropped))
    metrics, run = stored.metrics, stored.run
    scores, naive, steps = metrics["scores"][model], metrics["scores"][REFERENCE], metrics["by_step"][model]
    row = {
        "features": features,
        "horizon": horizon,
        "lookback": stored.schema["lookback"],
        "seed": run["seed"],
        "run_id": run["run_id"],
        "windows": metrics["windows"]["test"],
        **{name: scores[name] for name in ("mse", "mae", "crps", "scaled_crps")},
        **{f"naive_{name}": naive[name] for name in ("crps", "scaled_crps")},
        "best_epoch": metrics["training"]["best_epoch"],
        "epochs": len(metrics["training"]["epochs"]),
        "seconds": run["seconds"],
        **{name: run.get(name) for name in ("device", "commit", "started", "versions")},
    }
    for percent in BANDS:
        row[f"coverage_{percent}"] = 100 * scores[f"coverage_{percent}"]
        off = [abs(100 * share - percent) for share in steps[f"coverage_{percent}"]]
        row[f"coverage_error_{percent}"] = statistics.fmean(off)
    if known and known.dropped:
        for name in ("mse", "mae"):
            errors = stored.weights[f"evaluation.{model}.{name}"].double().tolist()
            row[f"{name}_dropped"] = without_incomplete_batch(errors, known.dropped)
    return row


def _cell(model: str, dataset: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    first = runs[0]
    known = published.find(model, dataset, first["horizon"], first["features"])
    scores = {name: _over([run[name] for run in runs]) for name in (*_AVERAGED, *_COVERED) if name in first}
    kept = ("seed", "run_id", "mse", "mae", "best_epoch", "epochs", "seconds", "device", "started")
    return {
        **{name: first[name] for name in ("features", "horizon", "lookback", "windows")},
        "published": _published(known),
        "measured": scores,
        "ratio": {name: scores[name]["mean"] / getattr(known, name) for name in ("mse", "mae")} if known else None,
        "seconds": _over([run["seconds"] for run in runs]),
        "runs": [{name: run[name] for name in kept} for run in runs],
    }


def _average(model: str, dataset: str, features: Features, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The mean over all horizons of a table, for each seed, then over the seeds that have all of them."""
    wanted = {cell.horizon for cell in published.scores(model, dataset, features)}
    own = [row for row in rows if row["features"] == features and row["horizon"] in wanted]
    seeds = [
        seed for seed in sorted({row["seed"] for row in own}) if sum(row["seed"] == seed for row in own) == len(wanted)
    ]
    known = published.average(model, dataset, features)
    if not seeds or known is None:
        return None
    names = [name for name in ("mse", "mae", "mse_dropped", "mae_dropped") if name in own[0]]
    scores: dict[str, dict[str, Any]] = {
        name: _over([statistics.fmean(row[name] for row in own if row["seed"] == seed) for seed in seeds])
        for name in names
    }
    return {
        "features": features,
        "horizons": sorted(wanted),
        "seeds": seeds,
        "published": {"mse": known[0], "mae": known[1]},
        "measured": scores,
        "ratio": {name: scores[name]["mean"] / value for name, value in zip(("mse", "mae"), known, strict=True)},
    }


def _published(known: Published | None) -> dict[str, Any] | None:
    names = ("mse", "mae", "source", "origin", "dropped", "note")
    return {name: getattr(known, name) for name in names} if known else None


def _over(values: list[float]) -> dict[str, Any]:
    """Mean and standard deviation; there is none of a single value."""
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "count": len(values),
    }
