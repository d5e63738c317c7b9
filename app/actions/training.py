"""Training a model and putting the run into the store."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forecasting.config import RunConfig

if TYPE_CHECKING:
    from forecasting.experiment import Outcome, Stages


@dataclass(frozen=True)
class TrainResult:
    """A finished run."""

    run_id: str
    folder: Path
    project: str
    metrics: dict[str, Any]
    sentence: str
    version: int | None = None

    def __str__(self) -> str:
        from app.tables import score_table

        windows = self.metrics["windows"]
        lines = [score_table(self.metrics["scores"], titles(self.metrics["scores"])),
                 f"on {windows['test']:,} test windows ({windows['train']:,} trained, {windows['validation']:,} selected)",
                 *[f"{name}: on a sample of {count} origins only" for name, count in self.metrics.get("sampled", {}).items()],
                 self.sentence,
                 f"run {self.run_id} of project {self.project}: {self.folder}"]
        lines.append(f"registered as version {self.version}" if self.version else
                     f"to register it: foretide models register {self.run_id} --promote true")
        return "\n".join(lines)


def train(run: RunConfig, register: bool = False, promote: bool = False, fresh: bool = False) -> TrainResult | None:
    """Trains a model, scores it on every test window beside the baselines, and stores the run.

    A run that was broken off continues from its last epoch when the same command is given again.

    Args:
        run: The complete configuration; a YAML of it is given with --config.
        register: Make the run a version of its project's model.
        promote: Also make it the project's champion.
        fresh: Start over, even if a broken run with this configuration could be continued.
    """
    outcome = train_and_log(run, fresh=fresh)
    if outcome is None:
        return None
    version = register_run(outcome, promote) if register or promote else None
    return result_of(outcome, version)


def train_and_log(run: RunConfig, *, fresh: bool = False, visible: bool = True, stages: "Stages | None" = None) -> "Outcome | None":
    """Trains into the home folder and records the run; None in the helper processes of a training on several devices."""
    from app.artifacts import artifact_folder
    from app.home import home
    from app.runs import RunStore
    from datasets.files import ensure_writable
    from forecasting import experiment
    from forecasting.artifact import new_run_id

    run_id = new_run_id()
    folder, work = artifact_folder(run_id), home() / "work"
    ensure_writable(folder)
    if fresh:
        shutil.rmtree(work, ignore_errors=True)
    outcome = experiment.run(run, folder, work=work, run_id=run_id, visible=visible, stages=stages)
    if outcome is not None:
        RunStore().log(folder)
    return outcome


def register_run(outcome: "Outcome", promote: bool) -> int:
    """Registers a finished run under its project, and returns its version."""
    from app.runs import RunStore

    store, project = RunStore(), project_of(outcome)
    version = store.register(project, outcome.artifact.run["run_id"])
    if promote:
        store.promote(project, version)
    return version


def result_of(outcome: "Outcome", version: int | None = None) -> TrainResult:
    """What there is to say about a finished run."""
    metrics = outcome.artifact.metrics
    return TrainResult(outcome.artifact.run["run_id"], outcome.folder, project_of(outcome), metrics, verdict(metrics), version)


def project_of(outcome: "Outcome") -> str:
    """The project of a finished run."""
    return str(outcome.artifact.schema["project"])


def titles(names: Any) -> dict[str, str]:
    """How models are called in print."""
    from forecasting import models

    known = models.names()
    return {name: models.find(name).title for name in names if name in known}


def verdict(metrics: dict[str, Any], baseline: str = "seasonal_naive", metric: str = "mse") -> str:
    """One plain sentence: is the model better than the baseline, by a paired block bootstrap?"""
    row = next((r for r in metrics["comparison"] if r["baseline"] == baseline and r["metric"] == metric), None)
    if row is None:
        return "There is no seasonal naive beside it, or too few windows, so that no comparison can be made."
    name = titles([row["model"], baseline])
    model, other = name.get(row["model"], row["model"]), name.get(baseline, baseline).lower()
    share = [100 * value / row["baseline_score"] for value in (row["difference"], row["lower"], row["upper"])]
    interval = f"95 % interval of the difference {share[1]:+.1f} to {share[2]:+.1f} %"
    if row["verdict"] == "better":
        return f"{model} is better than {other}: its mean squared error is {-share[0]:.1f} % lower ({interval})."
    if row["verdict"] == "worse":
        return f"{model} is worse than {other}: its mean squared error is {share[0]:.1f} % higher ({interval})."
    return f"There is no clear difference between {model} and {other}: mean squared error {share[0]:+.1f} % ({interval})."
