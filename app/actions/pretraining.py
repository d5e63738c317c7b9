"""Masked pre-training of a backbone, and the run that it leaves in the store."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.actions.training import check_place, record, resolved
from forecasting.config import RunConfig
from forecasting.pretraining import MaskingOptions

MASKING = MaskingOptions()


@dataclass(frozen=True)
class PretrainResult:
    """A pre-trained backbone."""

    run_id: str
    folder: Path
    model: str
    metrics: dict[str, Any]

    def __str__(self) -> str:
        own, mean = (self.metrics["scores"][name]["masked_mse"] for name in (self.model, "window_mean"))
        windows, training = self.metrics["windows"], self.metrics["training"]
        return "\n".join(
            [
                f"mean squared error on hidden patches of {windows['test']:,} test windows: {own:.4f}, against "
                f"{mean:.4f} for the mean of each window (epoch {training['best_epoch']} of "
                f"{len(training['epochs'])}, {windows['train']:,} training windows)",
                f"run {self.run_id}: {self.folder}",
                f"to train a head on it: foretide train … --training.init_from {self.run_id} "
                "--training.freeze_backbone true; without freeze_backbone the backbone is trained too",
            ]
        )


def pretrain(run: RunConfig, masking: MaskingOptions = MASKING, fresh: bool = False) -> PretrainResult | None:
    """Teaches the backbone of a model to fill in hidden patches; a training can start from the result.

    Args:
        run: The complete configuration, as for the training that follows; a YAML of it is given with --config.
        masking: What is hidden.
        fresh: Start over, even if a broken run with this configuration could be continued.
    """
    from app.artifacts import artifact_folder
    from app.home import COMMAND, home
    from app.runs import RunStore
    from forecasting import pretraining
    from forecasting.artifact import new_run_id

    run_id, store = new_run_id(), RunStore()
    folder, run = artifact_folder(run_id), resolved(run)
    check_place(run, store, folder)
    outcome = pretraining.pretrain(
        run, masking, folder, work=home() / "work", run_id=run_id, command=COMMAND.get(), fresh=fresh
    )
    if outcome is None:
        return None
    record(store, folder, "pretrain")
    return PretrainResult(run_id, folder, run.model, outcome.artifact.metrics)
