"""Masked pre-training: a backbone learns to fill in hidden patches of the lookback; no targets are needed.

A run that starts from the result (``training.init_from``) trains a head on it, with the backbone frozen or not.
"""

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from datasets.errors import ForetideError
from datasets.options import build, plain, require
from datasets.windows import Batch, Windows
from forecasting import artifact, losses, models
from forecasting.artifact import Artifact
from forecasting.config import HeadOptions, RunConfig, config_of, read_yaml
from forecasting.engine import Fit, fit
from forecasting.experiment import Outcome, build_model
from forecasting.forecaster import Forecaster, Supports
from forecasting.protocol import Prepared, check_model, prepare
from forecasting.record import Stages, data_checksum, digest, run_facts, schema_of
from forecasting.transfer import BACKBONE

_BATCH = 256


@dataclass(frozen=True)
class MaskingOptions:
    """What masked pre-training hides.

    Args:
        ratio: Share of the patches of each window that are hidden.
        together: Hide the same patches of all variates, so that none can be read off another.
    """

    ratio: float = 0.4
    together: bool = True

    def __post_init__(self) -> None:
        require(0 < self.ratio < 1, "masking.ratio", self.ratio, "a number between 0 and 1")


class Pretrainable(Protocol):
    """What a forecaster must have to be pre-trained.

    Attributes:
        backbone: Maps tokens ``(B, R, N, S)`` to features ``(B, R, N, D)``; its ``tokens`` makes them of ``(B, L, C)``.
    """

    backbone: nn.Module

    def reconstruction(self) -> nn.Module:
        """A new head from features ``(B, R, N, D)`` back to tokens ``(B, R, N, S)``."""


class MaskedPretraining(Forecaster):
    """The backbone of a forecaster with a head that reconstructs patches (Ekambaram et al., KDD 2023, section 3).

    It is a forecaster by its training alone: the loss is the mean squared error, in units of each window's own scale,
    over the observed rows of the hidden patches, which the backbone sees as zeros.

    Args:
        model: Whose backbone learns.
    """

    supports = Supports(any_variates=True)
    title = "Masked pre-training"

    def __init__(self, model: Forecaster, masking: MaskingOptions) -> None:
        super().__init__(model.task, model.architecture, replace(model.recipe, head=HeadOptions()))
        own = cast(Pretrainable, model)
        self.backbone, self.reconstruct, self.masking = own.backbone, own.reconstruction(), masking
        patches = self._tokens(torch.zeros(1, model.task.lookback, model.task.variates)).shape[2]
        self._kept = int(patches * (1 - masking.ratio))
        require(
            0 < self._kept < patches, "masking.ratio", masking.ratio, f"a share that hides some of {patches} patches"
        )
        self._generator = torch.Generator()

    def forward(self, batch: Batch) -> Tensor:
        """Normalised windows → the rows of every patch ``(B, R, N, S)``, with nothing hidden."""
        return self._filled(self._tokens(batch.past))

    def outputs(self, batch: Batch) -> Tensor:
        """See `forward`; the units stay those of the normalised windows."""
        return self(self._normalization.normalize(batch)[0])

    def errors(self, batch: Batch, zero: bool = False) -> tuple[Tensor, Tensor]:
        """Sum of squared errors over what is hidden and observed, and its number of rows.

        Args:
            zero: Score the mean of the window, which is zero here, in place of the reconstruction.
        """
        tokens, observed = self._tokens(self._normalization.normalize(batch)[0].past), self._tokens(batch.past_mask)
        hidden = self._hidden(tokens)
        filled = torch.zeros_like(tokens) if zero else self._filled(tokens.masked_fill(hidden, 0.0))
        scored = hidden & observed
        return losses.squared(filled.float(), tokens, scored), scored.sum()

    def on_validation_epoch_start(self) -> None:
        """Hides the same patches in every epoch, so that losses can be compared."""
        super().on_validation_epoch_start()
        self.hide_anew()

    def hide_anew(self) -> None:
        """Lets the sequence of masks outside training begin again."""
        self._generator.manual_seed(self.recipe.training.seed + (self.global_rank if self._processes > 1 else 0))

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        total, count = self.errors(batch)
        return total, count.to(total.dtype)

    def _tokens(self, past: Tensor) -> Tensor:
        tokens: Tensor = self.backbone.tokens(past)  # type: ignore[operator]
        return tokens

    def _filled(self, tokens: Tensor) -> Tensor:
        filled: Tensor = self.reconstruct(self.backbone(tokens))
        return filled

    def _hidden(self, tokens: Tensor) -> Tensor:
        """Which patches are hidden, ``(B, R, N, 1)``: as many in every window."""
        count, rows, patches, _ = tokens.shape
        shape = (count, 1 if self.masking.together else rows, patches)
        if self.training:
            noise = torch.rand(shape, device=tokens.device)
        else:
            noise = torch.rand(shape, generator=self._generator).to(tokens.device)
        hidden = noise.argsort(-1).argsort(-1) >= self._kept
        return hidden.expand(count, rows, patches)[..., None]


def read_pretraining(path: Path) -> tuple[RunConfig, MaskingOptions]:
    """A run from a YAML file that may also hold the group ``masking``; see `config.read_config`."""
    values = read_yaml(path)
    masking = build(MaskingOptions, values.pop("masking", {}), f"{path}: masking")
    return config_of(values, str(path)), masking


def pretrain(
    config: RunConfig,
    masking: MaskingOptions,
    folder: Path,
    *,
    work: Path | None = None,
    run_id: str | None = None,
    command: str | None = None,
    visible: bool = True,
    fresh: bool = False,
) -> Outcome | None:
    """Pre-trains the backbone of a model on the lookbacks of the training part, and writes it as an artifact.

    Validation chooses the epoch; the scores are the error on hidden patches of the test part, beside that of the mean
    of each window. Options of the forecast, such as the baselines, are not used.

    Args:
        folder, work, run_id, command, visible, fresh: See `experiment.run`.

    Returns:
        None in the helper processes of a training on several devices.

    Raises:
        ForetideError: Bad input, before anything is written.
    """
    stages, started = Stages(), time.perf_counter()
    if folder.exists():
        raise ForetideError(f"{folder}: exists already; name another folder")
    if not hasattr(models.find(config.model), "reconstruction"):
        able = [name for name in models.names() if hasattr(models.find(name), "reconstruction")]
        raise ForetideError(
            f"--model: {config.model} has no backbone that can be pre-trained, expected one of {', '.join(able)}"
        )
    if config.training.freeze_backbone:
        raise ForetideError("training.freeze_backbone: found true, but pre-training trains the backbone; leave it out")
    with stages.stage("data"):
        prepared = prepare(config)
        check_model(config, prepared)
    module = MaskedPretraining(build_model(config, prepared), masking)
    name = f"{digest({**plain(config), 'masking': plain(masking)})}-{data_checksum(prepared)[:12]}"
    work = (work or folder.with_name(f".{folder.name}.work")) / name
    if fresh:
        shutil.rmtree(work, ignore_errors=True)
    label = f"{models.find(config.model).title}, masked"
    with stages.stage(f"pretrain {config.model}"):
        fitted = fit(module, prepared.windows, config.training, work / "pretraining", label=label, visible=visible)
    if not fitted.is_main:
        return None
    with stages.stage(f"score {config.model}"):
        windows = prepared.windows("test", module.device)
        scores = {config.model: _score(module, windows), "window_mean": _score(module, windows, zero=True)}
    made = Artifact(
        plain(config),
        {f"model.{name}": tensor for name, tensor in module.state_dict().items()},
        prepared.scaler.to_dict(),
        {**schema_of(config, prepared), "holds": BACKBONE, "masking": plain(masking)},
        _metrics(prepared, fitted, scores),
        run_facts(run_id or artifact.new_run_id(), config, command, started, stages),
    )
    artifact.write(folder, made)
    shutil.rmtree(work, ignore_errors=True)
    with suppress(OSError):
        work.parent.rmdir()
    return Outcome(folder, made, prepared, stages)


def _metrics(prepared: Prepared, fitted: Fit, scores: dict[str, dict[str, float]]) -> dict[str, Any]:
    return {
        "windows": {part: len(prepared.windows(part)) for part in ("train", "validation", "test")},
        "scores": scores,
        "comparison": [],
        "training": {"epochs": fitted.epochs, "best_epoch": fitted.best_epoch, "stopped_early": fitted.stopped_early},
        "quality": prepared.report,
    }


@torch.inference_mode()
def _score(module: MaskedPretraining, windows: Windows, *, zero: bool = False) -> dict[str, float]:
    """Mean squared error on hidden patches of all windows, with the same patches hidden in every call."""
    module.eval().hide_anew()
    total, count = 0.0, 0.0
    for indices in torch.arange(len(windows), device=windows.device).split(_BATCH):
        errors, rows = module.errors(windows.batch(indices), zero)
        total, count = total + float(errors), count + float(rows)
    return {"masked_mse": total / max(count, 1.0)}
