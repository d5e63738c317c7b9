"""The one base class of all forecasters: everything but the architecture."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
import torch.distributed as dist
from pytorch_lightning import LightningModule
from torch import Tensor

from datasets.errors import ForetideError
from datasets.windows import Batch
from forecasting.config import HeadOptions, TrainingOptions
from forecasting.heads import make_head
from forecasting.normalization import make_normalization


@dataclass(frozen=True)
class Task:
    """What is to be forecast from what: the sizes that a model is built for.

    Letters as in `Batch`: L lookback, H horizon, C variates, F calendar features, P, K, J covariates.
    """

    lookback: int
    horizon: int
    variates: int
    calendar: int = 0
    past: int = 0
    future: int = 0
    static: int = 0
    season: int = 1


@dataclass(frozen=True)
class Supports:
    """What a model can take; asking for more is an error before training.

    Args:
        past, future, static: Covariates by what is known at the origin; unsupported ones are ignored with a warning.
        calendar: Whether calendar features are used.
        missing: Whether masked values in the lookback are handled.
        any_variates: Whether one set of weights serves any number of variates.
        probabilistic: Whether heads with more than one output per step fit.
    """

    past: bool = False
    future: bool = False
    static: bool = False
    calendar: bool = False
    missing: bool = True
    any_variates: bool = False
    probabilistic: bool = True
    longest_lookback: int | None = None

    def task(
        self,
        lookback: int,
        horizon: int,
        season: int,
        *,
        variates: int,
        calendar: int,
        past: int,
        future: int,
        static: int,
    ) -> Task:
        """The sizes for a model, restricted to the inputs that it uses; counts as in `Task`."""
        return Task(
            lookback,
            horizon,
            variates,
            calendar if self.calendar else 0,
            past if self.past else 0,
            future if self.future else 0,
            static if self.static else 0,
            season,
        )


@dataclass(frozen=True)
class Architecture:
    """Options of a model without any; the others derive from it and carry tuning ranges in their fields."""


@dataclass(frozen=True)
class Recipe:
    """Everything about a model that is not its architecture."""

    head: HeadOptions = field(default_factory=HeadOptions)
    normalization: str = "instance"
    training: TrainingOptions = field(default_factory=TrainingOptions)


class Forecaster(LightningModule):
    """Base of all forecasters: loss, head, normalisation, optimiser, schedule.

    A subclass declares `Config`, `supports`, `title` and, in `defaults`, the run options (`config.RunConfig`) that
    suit it; it builds its layers in ``__init__`` after ``super().__init__``, and maps a normalised batch to head
    outputs in ``forward``.

    Args:
        task: Sizes of the problem.
        architecture: An instance of the subclass's `Config`.
        recipe: Head, normalisation and training options.
    """

    Config: ClassVar[type[Architecture]] = Architecture
    supports: Supports = Supports()
    title: ClassVar[str] = ""
    trainable: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, task: Task, architecture: Architecture, recipe: Recipe) -> None:
        super().__init__()
        self.task, self.architecture, self.recipe = task, architecture, recipe
        self.head = make_head(recipe.head)
        self._normalization = make_normalization(recipe.normalization)
        self._training: list[Any] = [0.0, 0]
        self._validation = [0.0, 0.0]
        self._processes = 1
        self.check(task, recipe)
        self.check_architecture(task, architecture)
        self.supports = self.supported(architecture)
        _check_fraction(self.title, self.supports, recipe)

    @classmethod
    def check(cls, task: Task, recipe: Recipe) -> None:
        """Refuses what the model does not support, before anything is built."""
        longest = cls.supports.longest_lookback
        if longest is not None and task.lookback > longest:
            raise ForetideError(f"{cls.title}: found lookback {task.lookback}, expected at most {longest}")
        if recipe.head.kind != "point" and not cls.supports.probabilistic:
            raise ForetideError(
                f"{cls.title}: found head.kind {recipe.head.kind}, expected point; the model has no probabilistic head"
            )
        _check_fraction(cls.title, cls.supports, recipe)

    @classmethod
    def supported(cls, architecture: Any) -> Supports:
        """What the model supports with these options; `supports` of the class is what any of them allow."""
        return cls.supports

    @classmethod
    def check_architecture(cls, task: Task, architecture: Any) -> None:
        """Refuses options of the model that do not fit the sizes of the task, before anything is built."""

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Normalised windows → head outputs ``(B, H, C, P)``, in normalised units."""

    def outputs(self, batch: Batch) -> Tensor:
        """Head outputs ``(B, H, C, P)`` in the units of the batch: normalise, forward, undo the normalisation."""
        normalized, (location, scale) = self._normalization.normalize(batch)
        return self.head.affine(self(normalized), location, scale)

    def train(self, mode: bool = True) -> Self:
        """Switches to training; a frozen backbone stays as it is in evaluation, without dropout."""
        super().train(mode)
        backbone = getattr(self, "backbone", None)
        if backbone is not None and self.recipe.training.freeze_backbone:
            backbone.eval()
        return self

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Mean loss over the observed targets, over all processes."""
        if self.recipe.training.variate_fraction < 1:
            batch = batch.variates(self._draw_variates(batch.past.shape[2]))
        total, count = self._loss(batch)
        if self._processes > 1:
            # DDP averages gradients, so each process divides by the mean count: the step equals that of one process
            dist.all_reduce(count)
            count = count / self._processes
        loss = total / count.clamp(min=1)
        if not torch.isfinite(loss):
            self._stop_on_nonfinite(batch, index)
        self._training[0] += loss.detach() * len(batch)
        self._training[1] += len(batch)
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        """Adds to the validation loss: a sum over windows, so that it does not depend on the batch size."""
        total, count = self._loss(batch)
        self._validation[0] += float(total)
        self._validation[1] += float(count)

    def on_fit_start(self) -> None:
        """Learns over how many processes a step is spread."""
        self._processes = self.trainer.world_size

    def on_validation_epoch_start(self) -> None:
        """Empties the sums."""
        self._validation = [0.0, 0.0]

    def on_validation_epoch_end(self) -> None:
        """Logs the loss over all windows of all processes."""
        sums = torch.tensor(self._validation, dtype=torch.float64, device=self.device)
        if self._processes > 1:
            dist.all_reduce(sums)
        self.log("validation_loss", (sums[0] / sums[1].clamp(min=1)).float())

    def on_train_epoch_start(self) -> None:
        """Seeds dropout by the epoch, so that a resumed run draws what an unbroken one would have drawn."""
        self._training = [0.0, 0]
        torch.manual_seed(self.recipe.training.seed + 7919 * (self.current_epoch + 1) + self.global_rank)

    def mean_train_loss(self) -> float:
        """Mean loss of the epoch so far, over all processes; logging each step would cost as much as a small model."""
        sums = torch.tensor([float(self._training[0]), self._training[1]], dtype=torch.float64, device=self.device)
        if self._processes > 1:
            dist.all_reduce(sums)
        return float(sums[0] / sums[1].clamp(min=1))

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Batches are made on the device; anything else is moved."""
        return batch if batch.past.device == device else batch.to(device)

    def configure_optimizers(self) -> Any:
        """Adam or AdamW, with the schedule of the recipe stepped after each epoch."""
        options = self.recipe.training
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[options.optimizer]
        # Lightning refuses to clip what a fused optimizer would unscale itself
        fused = options.precision == "32-true" or options.gradient_clip is None
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = kind(trained, lr=options.learning_rate, weight_decay=options.weight_decay, fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: rate_factor(options, epoch))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        assert batch.future is not None and batch.future_mask is not None
        total = self.head.loss(self.outputs(batch), batch.future, batch.future_mask)
        return total, batch.future_mask.sum().to(total.dtype)

    def _draw_variates(self, variates: int) -> Tensor:
        keep = max(1, round(variates * self.recipe.training.variate_fraction))
        return torch.randperm(variates, device="cpu")[:keep].sort().values.to(self.device)

    def _stop_on_nonfinite(self, batch: Batch, index: int) -> None:
        finite = torch.isfinite(batch.past).all(1).all(0)
        named = f", variate {int((~finite).nonzero()[0])} has non-finite inputs" if not finite.all() else ""
        raise ForetideError(
            f"training: the loss is not finite in epoch {self.current_epoch + 1}, batch {index + 1} (first window: "
            f"series {int(batch.series[0])}, row {int(batch.origin[0])}{named}); lower --training.learning_rate, set "
            "--training.gradient_clip, or use --training.precision 32-true. The last good checkpoint is kept"
        )


def _check_fraction(title: str, supports: Supports, recipe: Recipe) -> None:
    if recipe.training.variate_fraction < 1 and not supports.any_variates:
        raise ForetideError(
            f"{title}: found training.variate_fraction {recipe.training.variate_fraction}, expected 1; "
            "the model is bound to its variates"
        )


def rate_factor(options: TrainingOptions, epoch: int) -> float:
    """Factor of the learning rate in an epoch, counted from 0."""
    if options.schedule == "halving":
        return float(0.5 ** max(0, epoch - 1))
    if options.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(epoch, options.max_epochs) / options.max_epochs))
    return 1.0
