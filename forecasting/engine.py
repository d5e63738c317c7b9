"""Fit through Lightning; predict without it.

Training resumes from the checkpoint of the last epoch. Prediction is a plain loop: a Trainer built for each call costs
more than the model.
"""

import json
import logging
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from datasets.errors import ForetideError
from datasets.files import atomic_path
from datasets.windows import Batch, Windows
from forecasting.config import TrainingOptions
from forecasting.conformal import LEVELS
from forecasting.forecaster import Forecaster
from forecasting.loading import WindowModule
from forecasting.progress import Progress, watched
from forecasting.threads import threads_for

FINISHED = "fit.json"


@dataclass(frozen=True)
class Fit:
    """What a training run leaves besides the weights.

    Args:
        epochs: One row per epoch: losses, learning rate, seconds.
        best_epoch: Counted from 1; the epoch whose weights are kept.
        is_main: False in the helper processes of a run on several devices, which have nothing left to do.
    """

    epochs: list[dict[str, float]]
    best_epoch: int
    stopped_early: bool
    is_main: bool = True


def fit(
    model: Forecaster,
    make_windows: Callable[[str, torch.device], Windows],
    options: TrainingOptions,
    folder: Path,
    *,
    label: str = "training",
    visible: bool = True,
    validate: bool = True,
    max_steps: int = -1,
) -> Fit:
    """Trains a model in place and leaves it with the weights of the best epoch.

    Args:
        make_windows: ``part, device → Windows`` in scaled units.
        folder: For checkpoints, and kept: the caller removes it once the model is stored. If it holds the last
            checkpoint of a broken run, that run is continued; after a kill at most one epoch is lost, and on the CPU
            the final weights equal those of an unbroken run bit for bit. A finished training is taken from it as it is.
        validate: False for a refit: the weights of the last step are kept.
        max_steps: Ends training after so many steps, whatever the number of epochs.
    """
    if not model.trainable or options.max_epochs == 0:
        return Fit([], 0, False)
    kept, finished = folder / ("best.ckpt" if validate else "last.ckpt"), folder / FINISHED
    if finished.exists():
        _restore(model, kept)
        return Fit(**json.loads(finished.read_text(encoding="utf-8")))
    progress = Progress(label, visible)
    module = WindowModule(make_windows, options.batch_size, options.seed, validate=validate)
    last = folder / "last.ckpt"
    resumed = last if last.exists() else None
    if resumed and visible:
        print(f"{label}: continuing from {resumed}", flush=True)
    with warnings.catch_warnings(), _deterministic_flag():
        warnings.simplefilter("ignore")
        trainer = _trainer(options, folder, progress, validate, max_steps)
        with _interruptible(trainer), _threads(model, make_windows, options):
            trainer.fit(model, datamodule=module, ckpt_path=resumed, weights_only=True)
    losses = [row["validation_loss"] for row in progress.epochs]
    best_epoch = 1 + min(range(len(losses)), key=losses.__getitem__) if validate else len(losses)
    fitted = Fit(progress.epochs, best_epoch, validate and len(losses) < options.max_epochs, trainer.is_global_zero)
    if fitted.is_main:
        _restore(model, kept)
        with atomic_path(finished) as temporary:
            temporary.write_text(json.dumps(asdict(fitted)), encoding="utf-8")
    return fitted


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that a kill cannot cut off.

    Lightning's own way goes through the temporary folder, from which a file on another disk is copied, not renamed.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes beside the target and renames."""
        # through a file of Python's, because torch's own says of a full disk no more than "unexpected pos"
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)


class Patience(EarlyStopping):
    """Early stopping that also stops a run which is continued after its last epoch."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at what the checkpoint brought."""
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


def _threads(
    model: Forecaster, make_windows: Callable[[str, torch.device], Windows], options: TrainingOptions
) -> AbstractContextManager[None]:
    """The number of threads that suits the training; processes of a launcher have theirs from it."""
    if _accelerator(options) == "gpu" or options.devices > 1:
        return nullcontext()
    windows = make_windows("train", torch.device("cpu"))
    return threads_for(model, windows.batch(torch.arange(min(options.batch_size, len(windows)))))


@contextmanager
def _interruptible(trainer: Trainer) -> Iterator[None]:
    """Passes Ctrl-C on: Lightning would end the process with 1, and leave the key without effect."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, before)
        raise KeyboardInterrupt from error


@contextmanager
def _deterministic_flag() -> Iterator[None]:
    """Gives torch's switch back as it was: Lightning leaves it to the whole process."""
    before = torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _restore(model: Forecaster, checkpoint: Path) -> None:
    model.load_state_dict(torch.load(checkpoint, map_location=model.device, weights_only=True)["state_dict"])


def _trainer(options: TrainingOptions, folder: Path, progress: Progress, validate: bool, max_steps: int) -> Trainer:
    """A quiet Trainer with checkpoints of the best and of the last epoch."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    accelerator = _accelerator(options)
    strategy = options.strategy if options.devices == 1 or options.strategy != "auto" else "ddp"
    # two of them: the "last" of Lightning's own pair is written only when the best one is
    each: dict[str, Any] = {"enable_version_counter": False, "save_on_train_epoch_end": True}
    callbacks: list[Any] = [progress]
    if validate:
        callbacks.append(ModelCheckpoint(folder, "best", monitor="validation_loss", **each))
    callbacks.append(ModelCheckpoint(folder, "last", **each))
    if validate and options.patience:
        callbacks.append(Patience("validation_loss", patience=options.patience, check_on_train_epoch_end=True))
    return Trainer(
        accelerator=accelerator,
        devices=options.devices,
        strategy=strategy,
        precision=options.precision,
        max_epochs=options.max_epochs if max_steps < 0 else -1,
        max_steps=max_steps,
        gradient_clip_val=options.gradient_clip,
        deterministic=options.deterministic,
        callbacks=callbacks,
        plugins=[WholeFiles()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=10**9,
        default_root_dir=folder,
    )


def _accelerator(options: TrainingOptions) -> str:
    count = torch.cuda.device_count()
    if options.accelerator == "gpu" and not count:
        raise ForetideError("--training.accelerator gpu: no GPU is visible; use cpu, or look at 'foretide doctor'")
    on_gpu = count > 0 and options.accelerator != "cpu"
    if on_gpu and options.devices > count:
        raise ForetideError(
            f"--training.devices: found {options.devices}, expected at most the {count} GPUs that are visible"
        )
    if options.precision == "16-mixed" and not on_gpu:
        raise ForetideError("--training.precision 16-mixed: needs a GPU; use bf16-mixed or 32-true on the CPU")
    return "gpu" if on_gpu else "cpu"


@dataclass(frozen=True)
class Prediction:
    """Forecasts of one batch of windows, in scaled units.

    Args:
        point: ``(B, H, C)``.
        quantiles: ``(B, H, C, Q)`` from a probabilistic head, else None.
    """

    batch: Batch
    point: Tensor
    quantiles: Tensor | None


@torch.inference_mode()
def predict(
    model: Forecaster, windows: Windows, *, batch_size: int | None = None, levels: Tensor | None = None
) -> Iterator[Prediction]:
    """Forecasts of all windows in order, a batch at a time, in memory that does not grow with their number.

    Args:
        batch_size: Windows at once; by default as many as keep a table of their quantiles below 32 MB.
        levels: Quantile levels wanted from a probabilistic head.
    """
    model.eval()
    if batch_size is None:
        batch_size = max(1, min(256, 2**23 // (windows.horizon * len(windows.panel.variates) * len(LEVELS))))
    for indices in watched(torch.arange(len(windows), device=windows.device).split(batch_size), model.title):
        batch = windows.batch(indices)
        output = model.outputs(batch).float()
        quantiles = None if levels is None else model.head.quantiles(output, levels.to(output.device))
        yield Prediction(batch, model.head.point(output), quantiles)
