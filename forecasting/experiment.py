"""One complete run: data, training, calibration, scores beside baselines, artifact. What a compute node runs too."""

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.errors import ForetideError
from datasets.options import build, plain
from datasets.scaling import Scaler
from forecasting import artifact, models
from forecasting.artifact import Artifact
from forecasting.bootstrap import block_bootstrap
from forecasting.classical import CLASSICAL, check_classical, classical_scores
from forecasting.config import RunConfig
from forecasting.engine import Fit, fit, predict
from forecasting.evaluate import Scores, evaluate, seasonal_scales, summary
from forecasting.forecaster import Forecaster, Recipe
from forecasting.intervals import LEVEL_TENSOR, Calibration, calibrate
from forecasting.protocol import Prepared, check_model, prepare
from forecasting.record import Stages, data_checksum, digest, run_facts, schema_of
from forecasting.transfer import start

REFERENCE = "seasonal_naive"


@dataclass(frozen=True)
class Trained:
    """A model with what validation taught about its errors."""

    model: Forecaster
    fitted: Fit
    calibration: Calibration


@dataclass(frozen=True)
class Outcome:
    """What a run leaves in memory; the folder holds the same.

    Args:
        artifact: As written.
        prepared: The data, for a forecast or a report right after.
    """

    folder: Path
    artifact: Artifact
    prepared: Prepared
    stages: Stages


def run(
    config: RunConfig,
    folder: Path,
    *,
    work: Path | None = None,
    run_id: str | None = None,
    command: str | None = None,
    visible: bool = True,
    stages: Stages | None = None,
    fresh: bool = False,
) -> Outcome | None:
    """Trains, calibrates, scores on every test window beside baselines, and writes the artifact.

    Args:
        folder: Where the artifact goes; it must not exist yet.
        work: For checkpoints; a broken run with the same configuration and data continues from there.
        command: What a person would type to repeat the run; by default the one that started this process.
        visible: Whether progress is printed.
        fresh: Whether to start over, even if such a broken run is there.

    Returns:
        None in the helper processes of a training on several devices.

    Raises:
        ForetideError: Bad input, before anything is written.
    """
    stages, started = stages or Stages(), time.perf_counter()
    if folder.exists():
        raise ForetideError(f"{folder}: exists already; name another folder")
    with stages.stage("data"):
        prepared = prepare(config)
        check_model(config, prepared)
        check_baselines(config, prepared)
    work = (work or folder.with_name(f".{folder.name}.work")) / f"{digest(config)}-{data_checksum(prepared)[:12]}"
    if fresh:
        shutil.rmtree(work, ignore_errors=True)
    with stages.stage(f"train {config.model}"):
        trained = train_model(config, prepared, work, visible)
    if not trained.fitted.is_main:
        return None
    scales = seasonal_scales(prepared.panel, prepared.training_rows, prepared.season)
    scores = {}
    with stages.stage(f"score {config.model}"):
        scores[config.model] = score(trained, prepared, config, scales)
    for name in config.baselines:
        if name != config.model:
            with stages.stage(f"baseline {name}"):
                scores[name] = (
                    classical_scores(name, prepared, scales, config.classical_origins)
                    if name in CLASSICAL
                    else _baseline(name, config, prepared, scales, work, visible)
                )
    metrics = _metrics(config, prepared, trained, scores)
    if config.training.refit and trained.model.trainable:
        with stages.stage("refit"):
            prepared, trained = refit(config, prepared, trained, work, visible)
    made = Artifact(
        plain(config),
        _tensors(trained, scores),
        prepared.scaler.to_dict(),
        schema_of(config, prepared),
        metrics,
        run_facts(run_id or artifact.new_run_id(), config, command, started, stages),
    )
    artifact.write(folder, made)
    shutil.rmtree(work, ignore_errors=True)
    with suppress(OSError):
        work.parent.rmdir()
    return Outcome(folder, made, prepared, stages)


def build_model(config: RunConfig, prepared: Prepared) -> Forecaster:
    """An untrained model, its weights drawn from the seed of the run or taken from the run that it starts from."""
    kind = models.find(config.model)
    torch.manual_seed(config.training.seed)
    model = kind(
        prepared.task(kind.supports),
        models.architecture(config.model, config.architecture),
        Recipe(config.head, config.normalization, config.training),
    )
    start(model, config)
    return model


def train_model(config: RunConfig, prepared: Prepared, work: Path, visible: bool) -> Trained:
    """Trains on the training part and calibrates on the validation part."""
    model = build_model(config, prepared)
    fitted = fit(model, prepared.windows, config.training, work / config.model, label=model.title, visible=visible)
    if not fitted.is_main:
        return Trained(model, fitted, Calibration(*[torch.empty(0)] * 4))
    calibration = calibrate(
        predict(model, prepared.windows("validation", model.device)),
        config.intervals.trajectories,
        config.training.seed,
        one_series=len(prepared.panel.ids) == 1,
    )
    return Trained(model, fitted, calibration)


def score(trained: Trained, prepared: Prepared, config: RunConfig, scales: torch.Tensor) -> Scores:
    """Scores every test window of the protocol."""
    windows = prepared.windows("test", trained.model.device)
    intervals = trained.calibration.intervals(config.intervals.method, len(prepared.panel.ids))
    levels = LEVEL_TENSOR if config.intervals.method == "head" else None
    return evaluate(
        predict(trained.model, windows, levels=levels), prepared.scaler, intervals, scales, prepared.panel.variates
    )


def refit(
    config: RunConfig, prepared: Prepared, trained: Trained, work: Path, visible: bool
) -> tuple[Prepared, Trained]:
    """Trains anew on all rows, for as many steps as were best; the calibration is kept, in the new scale."""
    every = [(0, n) for n in prepared.panel.ends.tolist()]
    scaler = Scaler.fit(prepared.panel, every, config.scaling)
    final = replace(prepared, scaler=scaler, scaled=scaler.apply(prepared.panel))
    steps = trained.fitted.best_epoch * -(-len(prepared.windows("train")) // config.training.batch_size)
    model = build_model(config, final)
    fitted = fit(
        model,
        lambda part, device: final.windows("everything", device),
        config.training,
        work / "refit",
        label=f"{model.title}, all rows",
        visible=visible,
        validate=False,
        max_steps=steps,
    )
    ratio = (prepared.scaler.scale.mean(0) / scaler.scale.mean(0)).float()
    old = trained.calibration
    moved = Calibration(
        old.residuals * ratio[:, None], old.tracked * ratio[:, None], old.scale * ratio, old.trajectories * ratio
    )
    return final, Trained(model, fitted, moved)


def baseline_config(name: str, config: RunConfig) -> RunConfig:
    """A baseline's configuration under the same protocol: the model's own defaults, a point head, the same seed."""
    defaults = dict(models.find(name).defaults)
    training = replace(
        config.training,
        **{
            "learning_rate": 1e-4,
            "max_epochs": config.training.max_epochs or 10,
            "variate_fraction": 1.0,
            "refit": False,
            "init_from": None,
            "freeze_backbone": False,
            "devices": 1,
            "strategy": "auto",
            **defaults.pop("training", {}),
        },
    )
    intervals = replace(
        config.intervals, method="adaptive" if config.intervals.method == "head" else config.intervals.method
    )
    plain_head = build(type(config.head), {}, "head")
    return config.of(model=name, architecture={}, training=training, intervals=intervals, head=plain_head, **defaults)


def baseline_data(name: str, prepared: Prepared) -> Prepared:
    """The same windows for a baseline; seasonal naive sees a whole season, even where the lookback is shorter."""
    return replace(prepared, lookback=max(prepared.lookback, prepared.season)) if name == REFERENCE else prepared


def check_baselines(config: RunConfig, prepared: Prepared) -> None:
    """Refuses baselines that are unknown, not installed or unfit for the task, before anything is trained."""
    for name in config.baselines:
        if name in CLASSICAL:
            check_classical(name)
        else:
            check_model(baseline_config(name, config), baseline_data(name, prepared))


def _baseline(
    name: str, config: RunConfig, prepared: Prepared, scales: torch.Tensor, work: Path, visible: bool
) -> Scores:
    own, data = baseline_config(name, config), baseline_data(name, prepared)
    return score(train_model(own, data, work, visible), data, own, scales)


def _metrics(config: RunConfig, prepared: Prepared, trained: Trained, scores: dict[str, Scores]) -> dict[str, Any]:
    fitted, panel = trained.fitted, prepared.panel
    made: dict[str, Any] = {"windows": {part: len(prepared.windows(part)) for part in ("train", "validation", "test")}}
    made |= summary(scores, REFERENCE)
    if len(panel.ids) > 1:
        made["by_series"] = {name: model.by_series(panel.ids) for name, model in scores.items()}
    made["comparison"] = compare_scores(scores, config.model, config.horizon, config.training.seed, len(panel.ids) == 1)
    if sampled := [name for name in scores if name in CLASSICAL]:
        made["sampled"] = {name: len(scores[name].origin_mse) for name in sampled}
    made["training"] = {"epochs": fitted.epochs, "best_epoch": fitted.best_epoch, "stopped_early": fitted.stopped_early}
    made["quality"] = prepared.report
    return made


def compare_scores(
    scores: dict[str, Scores], model: str, horizon: int, seed: int, one_series: bool
) -> list[dict[str, Any]]:
    """The difference of each score to each baseline at the same origins, with its block-bootstrap interval.

    Args:
        one_series: Whether neighbouring windows overlap; windows of different series are drawn one by one.
    """
    rows = []
    for name, other in scores.items():
        for metric in ("mse", "mae"):
            mine, theirs = (getattr(s, f"origin_{metric}") for s in (scores[model], other))
            # a sample of origins cannot be paired with all of them
            if name == model or len(mine) != len(theirs):
                continue
            mine, theirs = scored(mine, theirs)
            if len(mine) < 4:
                continue
            found = difference(mine, theirs, horizon, one_series, seed)
            rows.append({"model": model, "baseline": name, "metric": metric, **found})
    return rows


def difference(mine: np.ndarray, theirs: np.ndarray, horizon: int, one_series: bool, seed: int = 0) -> dict[str, Any]:
    """Mean difference of the errors of two models at the same origins, with its block-bootstrap interval.

    Args:
        mine, theirs: ``(W,)`` in the order of the origins.
        horizon: Origins over which horizons overlap.
        one_series: See `compare_scores`.
    """
    block = min(2 * horizon, len(mine) // 2) if one_series else 1
    interval = block_bootstrap(mine - theirs, block, seed=seed)
    return {
        "difference": interval.mean,
        "lower": interval.lower,
        "upper": interval.upper,
        "baseline_score": float(theirs.mean()),
        "verdict": interval.verdict,
    }


def scored(mine: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors of two models without the windows that have none in either, because no target was observed."""
    kept = ~(np.isnan(mine) & np.isnan(theirs))
    return mine[kept], theirs[kept]


def _tensors(trained: Trained, scores: dict[str, Scores]) -> dict[str, torch.Tensor]:
    weights = {f"model.{name}": tensor for name, tensor in trained.model.state_dict().items()}
    for name, model in scores.items():
        # one error per test window: what a later comparison of two runs needs
        weights[f"evaluation.{name}.mse"] = torch.from_numpy(model.origin_mse).float()
        weights[f"evaluation.{name}.mae"] = torch.from_numpy(model.origin_mae).float()
    return weights | {f"calibration.{name}": tensor for name, tensor in trained.calibration.tensors().items()}
