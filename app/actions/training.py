"""Training a model and putting the run into the store."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.errors import ForetideError
from forecasting.config import RunConfig

if TYPE_CHECKING:
    from app.runs import RunStore
    from forecasting.experiment import Outcome
    from forecasting.record import Stages


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
        from app.tables import SCORE_NOTE, score_table

        windows, sampled = self.metrics["windows"], self.metrics.get("sampled", {})
        lines = [
            score_table(self.metrics["scores"], titles(self.metrics["scores"])),
            SCORE_NOTE,
            "",
            f"on {windows['test']:,} test windows (trained on {windows['train']:,}, selected on "
            f"{windows['validation']:,})",
            *[f"{name}: on a sample of {count} origins only" for name, count in sampled.items()],
            self.sentence,
            f"run {self.run_id} of project {self.project}: {self.folder}",
        ]
        lines.append(
            f"registered as version {self.version}"
            if self.version
            else f"to make it the champion: foretide models register {self.run_id} --promote"
        )
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


def train_and_log(
    run: RunConfig, *, fresh: bool = False, visible: bool = True, stages: "Stages | None" = None
) -> "Outcome | None":
    """Trains into the home folder and records the run; None in the helper processes of one on several devices."""
    from app.artifacts import artifact_folder
    from app.home import COMMAND, home
    from app.runs import RunStore
    from forecasting import experiment
    from forecasting.artifact import new_run_id

    run_id, store = new_run_id(), RunStore()
    folder, run = artifact_folder(run_id), resolved(run)
    check_place(run, store, folder)
    outcome = experiment.run(
        run,
        folder,
        work=home() / "work",
        run_id=run_id,
        visible=visible,
        stages=stages,
        fresh=fresh,
        command=COMMAND.get(),
    )
    if outcome is not None:
        record(store, folder, "train")
    return outcome


def record(store: "RunStore", folder: Path, kind: str) -> None:
    """Puts a finished run into the store.

    Raises:
        ForetideError: The store is locked or damaged; says how to record the run later.
    """
    try:
        store.log(folder, kind)
    except ForetideError as error:
        raise ForetideError(
            f"{error}; the run itself is finished: when that is mended, 'foretide runs import {folder}' records it"
        ) from error


def resolved(run: RunConfig) -> RunConfig:
    """The run with the folder of the run that it starts from in place of its name."""
    from app.references import find_model

    if run.training.init_from is None:
        return run
    try:
        folder = find_model(run.training.init_from).folder
    except ForetideError as error:
        raise ForetideError(str(error).replace("--model", "--training.init_from", 1)) from error
    return run.of(training=replace(run.training, init_from=str(folder)))


def check_place(run: RunConfig, store: "RunStore", folder: Path) -> None:
    """Finds out before a long training whether its result can be stored, and writes nothing."""
    import torch

    from app.registry import check_project
    from datasets.files import ensure_writable

    if run.project is not None:
        check_project(run.project)
    if run.training.accelerator == "gpu" and not torch.cuda.is_available():
        raise ForetideError(
            "training.accelerator: found 'gpu', but no GPU is visible; use auto or cpu, or see 'foretide doctor'"
        )
    ensure_writable(folder)
    if not store.store.is_empty:
        with store.store.writing():
            pass


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
    metrics, run_id = outcome.artifact.metrics, outcome.artifact.run["run_id"]
    return TrainResult(run_id, outcome.folder, project_of(outcome), metrics, verdict(metrics), version)


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
    if not row["baseline_score"]:
        return f"There is nothing to improve: {other} makes no error at all on this series."
    share = [100 * value / row["baseline_score"] for value in (row["difference"], row["lower"], row["upper"])]
    interval = f"95 % interval of the difference {share[1]:+.1f} to {share[2]:+.1f} %"
    if row["verdict"] == "better":
        return f"{model} is better than {other}: its mean squared error is {-share[0]:.1f} % lower ({interval})."
    if row["verdict"] == "worse":
        return f"{model} is worse than {other}: its mean squared error is {share[0]:.1f} % higher ({interval})."
    return (
        f"There is no clear difference between {model} and {other}: mean squared error {share[0]:+.1f} % ({interval})."
    )
