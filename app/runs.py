"""The run store: every training, evaluation and import, with what it takes to repeat it."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.artifacts import artifact_folder, bring_home
from app.registry import CHAMPION, PREVIOUS, Promotion, Registry, Version, add_version, check_project
from datasets.errors import ForetideError
from forecasting.artifact import Artifact, load

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["CHAMPION", "PREVIOUS", "Promotion", "RunRow", "RunStore", "Version"]

# MLflow takes at most 1000 metrics and 100 parameters at a time, and 6000 characters of a parameter.
_METRICS, _PARAMS, _LONGEST = 1000, 100, 6000
_ANALYZE_EVERY = 200
_VERSION_TAGS = ("run_id", "artifact", "model", "data_checksum")
_SCHEMA_TAGS = ("lookback", "horizon", "frequency", "data_checksum", "code_version")
_RUN_TAGS = ("seed", "command", "device", "commit", "versions", "config_checksum")
_CURVE = ("train_loss", "validation_loss", "learning_rate")
_UNNAMEABLE = re.compile(r"[^\w./ -]")
_PREFIX = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class RunRow:
    """One run as the store knows it.

    Args:
        started: UTC.
        seconds: Wall clock of the run.
        artifact: Absolute path of its folder, as the home stands now.
        params: The configuration, flattened: ``training.seed``.
        metrics: Scores of the model by name (``mse``), of the baselines with their name before (``dlinear/mse``).
        tags: All else: command, seed, versions, device, data checksum.
    """

    run_id: str
    project: str
    kind: str
    model: str
    status: str
    started: datetime
    seconds: float | None
    lookback: int | None
    horizon: int | None
    artifact: Path
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class RunStore(Registry):
    """Runs and registered models of one home folder, or of the server that ``MLFLOW_TRACKING_URI`` names.

    Args:
        home: Folder of the store; by default ``FORETIDE_HOME`` or ``.foretide``. It may be moved at any time.
    """

    def log(self, folder: str | Path, kind: str = "train") -> str:
        """Records the run whose artifact lies at ``<home>/artifacts/<run_id>``; a run that is recorded stays as it is.

        Args:
            folder: The artifact; nothing is copied or moved.
            kind: ``train``, ``evaluate``, ``backtest``, …

        Returns:
            The run's identifier, as in its ``run.json``.

        Raises:
            ForetideError: The artifact is damaged or lies elsewhere, or the store is locked.
        """
        artifact = load(folder, weights=False)
        run_id = artifact.run["run_id"]
        if Path(folder).resolve() != artifact_folder(run_id, self.home).resolve():
            raise ForetideError(f"{folder}: expected the artifact at {artifact_folder(run_id, self.home)}; "
                                "bring it in with: foretide runs import")
        tags = _tags(artifact, kind)
        check_project(tags["project"])
        with self.store.writing() as client:
            known = self._find(client, run_id)
            if known and known[0].info.status == "FINISHED":
                return run_id
            self._record(client, artifact, tags, known[0].info.run_id if known else None)
        self._analyze()
        return run_id

    def import_run(self, source: str | Path, kind: str = "train") -> str:
        """Takes in a run made elsewhere: checks its artifact, copies it home, records it. Twice is as once.

        Args:
            source: The folder of the artifact, or an archive of it (.tar.gz).
        """
        return self.log(bring_home(source, self.home), kind)

    def runs(self, project: str | None = None, limit: int = 50, order: str = "started") -> list[RunRow]:
        """The recorded runs.

        Args:
            project: Only of this project.
            limit: At most so many.
            order: ``started`` puts the newest first; a metric (``mse``) the smallest, ``-mse`` the largest.
        """
        if self.store.is_empty:
            return []
        with self.store.reading() as client:
            found = client.search_runs(self._experiments(client, project), order_by=[_order(order)], max_results=limit)
            return [self._row(run) for run in found]

    def show(self, run_id: str) -> RunRow:
        """One run by its identifier, or by the beginning of it.

        Raises:
            ForetideError: No run, or several, begin like that.
        """
        if not _PREFIX.fullmatch(run_id):
            raise ForetideError(f"run {run_id!r}: expected the identifier of a run; see: foretide runs list")
        found = []
        if not self.store.is_empty:
            with self.store.reading() as client:
                found = [self._row(run) for run in self._find(client, run_id, prefix=True)]
        exact = [row for row in found if row.run_id == run_id]
        matching = exact or [row for row in found if row.run_id.startswith(run_id)]
        if len(matching) != 1:
            names = ", ".join(sorted(row.run_id for row in matching)[:5])
            raise ForetideError(f"run {run_id!r}: " + (f"{len(matching)} runs begin like that: {names}; give more of it"
                                                       if matching else "no such run; see: foretide runs list"))
        return matching[0]

    def delete(self, run_id: str) -> None:
        """Deletes a run and its artifact.

        Raises:
            ForetideError: A registered model is made of it, or there is no such run.
        """
        row = self.show(run_id)
        users = [version for version in self._all_versions() if version.run_id == row.run_id]
        if users:
            names = ", ".join(f"{version.project} {version.version}" for version in users)
            raise ForetideError(f"run {row.run_id}: is the registered model {names}; delete that version first")
        with self.store.writing() as client:
            for run in self._find(client, row.run_id):
                client.delete_run(run.info.run_id)
        shutil.rmtree(row.artifact, ignore_errors=True)

    def register(self, project: str, run_id: str) -> int:
        """Makes a run a version of the project's model, and returns its number; a run has one version in a project.

        Raises:
            ForetideError: There is no such run, or the project's name cannot be used.
        """
        check_project(project)
        row = self.show(run_id)
        with self.store.writing() as client:
            for version in self.versions(project):
                if version.run_id == row.run_id:
                    return version.version
            internal_id = self._find(client, row.run_id)[0].info.run_id
            tags = {key: value for key, value in row.tags.items() if key in _VERSION_TAGS}
            return add_version(client, project, internal_id, tags)

    def _record(self, client: "MlflowClient", artifact: Artifact, tags: dict[str, str],
                internal_id: str | None) -> None:
        started = _milliseconds(artifact.run.get("started"))
        ended = started + round(1000 * float(artifact.run.get("seconds") or 0.0))
        if internal_id is None:
            experiment = _experiment(client, tags["project"])
            made = client.create_run(experiment, start_time=started, tags=tags, run_name=tags["run_id"])
            internal_id = made.info.run_id
        from mlflow.entities import Metric, Param

        metrics = [Metric(name, value, ended, step) for name, value, step in _metrics(artifact.metrics, tags["model"])]
        params = [Param(name, value) for name, value in _flatten(artifact.config)]
        for first in range(0, len(metrics), _METRICS):
            client.log_batch(internal_id, metrics=metrics[first:first + _METRICS])
        for first in range(0, len(params), _PARAMS):
            client.log_batch(internal_id, params=params[first:first + _PARAMS])
        client.set_terminated(internal_id, "FINISHED", ended)

    def _analyze(self) -> None:
        if self.store.database and self.store.query("SELECT count(*) FROM runs")[0][0] % _ANALYZE_EVERY == 0:
            self.store.analyze()

    def _find(self, client: "MlflowClient", run_id: str, *, prefix: bool = False) -> list[Any]:
        condition = f"tags.run_id LIKE '{run_id}%'" if prefix else f"tags.run_id = '{run_id}'"
        return list(client.search_runs(self._experiments(client, None), condition, max_results=20))

    def _experiments(self, client: "MlflowClient", project: str | None) -> list[str]:
        own = [experiment for experiment in client.search_experiments(filter_string="tags.foretide = 'project'")
               if project in (None, experiment.name)]
        if project is not None and not own:
            raise ForetideError(f"project {project!r}: has no runs; see: foretide runs list")
        return [experiment.experiment_id for experiment in own]

    def _row(self, run: Any) -> RunRow:
        tags = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}
        seconds = (run.info.end_time - run.info.start_time) / 1000 if run.info.end_time else None
        return RunRow(run_id=tags["run_id"], project=tags["project"], kind=tags["kind"], model=tags["model"],
                      status=run.info.status.lower(), started=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
                      seconds=seconds, lookback=_integer(tags.get("lookback")), horizon=_integer(tags.get("horizon")),
                      artifact=self.home / tags["artifact"], params=dict(run.data.params),
                      metrics=dict(run.data.metrics), tags=tags)


def _experiment(client: "MlflowClient", project: str) -> str:
    from mlflow.exceptions import MlflowException

    known = client.get_experiment_by_name(project)
    if known is None:
        try:
            return str(client.create_experiment(project, tags={"foretide": "project"}))
        except MlflowException:
            # On a server, somebody else may have been faster.
            known = client.get_experiment_by_name(project)
            if known is None:
                raise
    client.set_experiment_tag(known.experiment_id, "foretide", "project")
    return str(known.experiment_id)


def _tags(artifact: Artifact, kind: str) -> dict[str, str]:
    run, schema, config = artifact.run, artifact.schema, artifact.config
    project = config.get("project") or schema.get("title") or schema.get("source") or "unnamed"
    model = config.get("model") or next(iter(artifact.metrics.get("scores", {})), "model")
    found = {"run_id": run["run_id"], "artifact": f"artifacts/{run['run_id']}", "kind": kind, "project": project,
             "model": model}
    found |= {key: schema.get(key) for key in _SCHEMA_TAGS} | {key: run.get(key) for key in _RUN_TAGS}
    return {key: _text(value) for key, value in found.items() if value is not None}


def _metrics(metrics: Mapping[str, Any], model: str) -> Iterator[tuple[str, float, int]]:
    """Names, values and steps; a score that could not be computed (null) is left out."""
    for name, scores in metrics.get("scores", {}).items():
        lead = "" if name == model else f"{_UNNAMEABLE.sub('_', name)}/"
        yield from ((lead + score, float(value), 0) for score, value in scores.items() if value is not None)
    for entry in metrics.get("training", {}).get("epochs", []):
        yield from ((key, float(entry[key]), int(entry["epoch"])) for key in _CURVE if entry.get(key) is not None)


def _flatten(config: Mapping[str, Any], lead: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        name = lead + _UNNAMEABLE.sub("_", str(key))
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{name}.")
        else:
            yield name, _text(value)[:_LONGEST]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _order(order: str) -> str:
    metric = order.removeprefix("-")
    if order == "started":
        return "attributes.start_time DESC"
    if _UNNAMEABLE.search(metric) or not metric:
        raise ForetideError(f"order: found {order!r}, expected 'started', or a metric such as 'mse' or '-coverage_80'")
    return f"metrics.`{metric}` {'DESC' if order.startswith('-') else 'ASC'}"


def _milliseconds(started: Any) -> int:
    """ISO text, or seconds since 1970, or nothing (now), in milliseconds since 1970."""
    if isinstance(started, str):
        moment = datetime.fromisoformat(started)
        return round(1000 * (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    return round(1000 * (datetime.now(UTC).timestamp() if started is None else float(started)))


def _integer(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
