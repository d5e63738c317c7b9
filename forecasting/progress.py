"""One progress line with the time left, for a whole training run or a long prediction; the history of epochs."""

import math
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from pytorch_lightning import Callback, LightningModule, Trainer

T = TypeVar("T")


def watched(batches: Sequence[T], label: str) -> Iterable[T]:
    """The same batches, with a bar on a terminal once they have taken two seconds."""
    if len(batches) < 2 or not sys.stderr.isatty():
        return batches
    from tqdm import tqdm

    shape = "{desc}  {percentage:3.0f}% {bar}  {remaining} left"
    made: Iterable[T] = tqdm(batches, desc=label, delay=2, leave=False, dynamic_ncols=True, bar_format=shape)
    return made


class Progress(Callback):
    """Records each epoch, and shows a bar over all epochs on a terminal, or a line per epoch elsewhere.

    Args:
        label: What is trained, for the bar.
        visible: Whether anything is printed.
    """

    def __init__(self, label: str, visible: bool) -> None:
        self.label, self.visible = label, visible
        self.epochs: list[dict[str, float]] = []
        self._bar: Any = None
        self._started, self._rate, self._steps = 0.0, 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        """The history, so that a resumed run has all of it."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the history."""
        self.epochs = list(state_dict["epochs"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Learns how many steps there are at most, and opens the bar."""
        self._steps = int(trainer.estimated_stepping_batches)
        if not (self.visible and trainer.is_global_zero and sys.stderr.isatty()):
            return
        from tqdm import tqdm

        self._bar = tqdm(
            total=self._steps,
            initial=trainer.global_step,
            desc=self.label,
            unit="step",
            leave=False,
            dynamic_ncols=True,
            mininterval=0.2,
            bar_format="{desc}  {percentage:3.0f}% {bar} {postfix}  {remaining} left at most",
        )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock of the epoch, and notes its rate: at its end the schedule has set the next one's."""
        self._started, self._rate = time.perf_counter(), float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.update()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Adds the epoch to the history; Lightning has validated by now."""
        metrics = trainer.callback_metrics
        row = {
            "epoch": trainer.current_epoch + 1,
            "train_loss": pl_module.mean_train_loss(),
            "validation_loss": float(metrics.get("validation_loss", float("nan"))),
            "learning_rate": self._rate,
            "seconds": round(time.perf_counter() - self._started, 3),
        }
        self.epochs.append(row)
        epochs = -(-self._steps // int(trainer.num_training_batches))
        text = f"epoch {row['epoch']}/{epochs}  train {row['train_loss']:.4f}"
        if math.isfinite(row["validation_loss"]):
            text += f"  validation {row['validation_loss']:.4f}"
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        elif self.visible and trainer.is_global_zero:
            left = row["seconds"] * (epochs - row["epoch"])
            print(f"{self.label}: {text}  {row['seconds']:.1f} s, at most {left:.0f} s left", flush=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Closes the bar, so that the error stands on a line of its own."""
        self.on_train_end(trainer, pl_module)
