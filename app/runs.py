"""The run store: every training, evaluation and import, with what it takes to repeat it."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from app.artifacts import artifact_folder, bring_home
from app.registry import CHAMPION, PREVIOUS, Promotion, Registry, Version, add_version, check_project
from app.store import Store
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
_RUNS = """
    SELECT r.run_uuid, r.status, r.start_time, r.end_time,
        (SELECT json_group_object(t.key, t.value) FROM tags t WHERE t.run_uuid = r.run_uuid),
        (SELECT json_group_object(p.key, p.value) FROM params p WHERE p.run_uuid = r.run_uuid),
        (SELECT json_group_object(l.key, printf('%!.17g', l.value)) FROM latest_metrics l WHERE l.run_uuid = r.run_uuid)
    FROM runs r
    JOIN experiments e ON e.experiment_id = r.experiment_id AND e.workspace = 'default'
    JOIN experiment_tags o ON o.experiment_id = e.experiment_id AND o.key = 'foretide'
    JOIN tags i ON i.run_uuid = r.run_uuid AND i.key = 'run_id'
    LEFT JOIN latest_metrics m ON m.run_uuid = r.run_uuid AND m.key = ?
    WHERE r.lifecycle_stage = 'active' AND (? IS NULL OR e.name = ?) AND substr(i.value, 1, ?) = ?
    ORDER BY {ranking} LIMIT ?"""


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
            raise ForetideError(
                f"{folder}: expected the artifact at {artifact_folder(run_id, self.home)}; "
                "bring it in with: foretide runs import"
            )
        tags = _tags(artifact, kind)
        check_project(tags["project"])
        with self.store.writing() as client:
            known = self._find(run_id)
            if known and known.status == "FINISHED":
                return run_id
            self._record(client, artifact, tags, known.internal_id if known else None)
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
        metric = order.removeprefix("-")
        if _UNNAMEABLE.search(metric) or not metric:
            raise ForetideError(f"order: found {order!r}, expected 'started', or a metric such as 'mse' or '-mae'")
        found = self._read(_Choice(project=project, limit=limit, order=order))
        if project is not None and not found:
            raise ForetideError(f"project {project!r}: has no runs; see: foretide runs list")
        return [self._row(record) for record in found]

    def show(self, run_id: str) -> RunRow:
        """One run by its identifier, or by the beginning of it.

        Raises:
            ForetideError: No run, or several, begin like that.
        """
        if not _PREFIX.fullmatch(run_id):
            raise ForetideError(f"run {run_id!r}: expected the identifier of a run; see: foretide runs list")
        exact = self._find(run_id)
        matching = [self._row(record) for record in ([exact] if exact else self._read(_Choice(prefix=run_id)))]
        if len(matching) != 1:
            names = ", ".join(sorted(row.run_id for row in matching)[:5])
            raise ForetideError(
                f"run {run_id!r}: "
                + (
                    f"{len(matching)} runs begin like that: {names}; give more of it"
                    if matching
                    else "no such run; see: foretide runs list"
                )
            )
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
            if record := self._find(row.run_id):
                client.delete_run(record.internal_id)
        shutil.rmtree(row.artifact, ignore_errors=True)

    def register(self, project: str, run_id: str) -> int:
        """Makes a run a version of the project's model, and returns its number; a run has one version in a project.

        Raises:
            ForetideError: There is no such run, or the project's name cannot be used.
        """
        check_project(project)
        row = self.show(run_id)
        if row.kind == "pretrain":
            raise ForetideError(
                f"run {row.run_id}: is a pre-trained backbone, which cannot forecast; train from it with "
                "--training.init_from, and register that run"
            )
        with self.store.writing() as client:
            for version in self.versions(project):
                if version.run_id == row.run_id:
                    return version.version
            record = self._find(row.run_id)
            if record is None:
                raise ForetideError(f"run {run_id!r}: was deleted in the meantime")
            tags = {key: value for key, value in row.tags.items() if key in _VERSION_TAGS}
            return add_version(client, project, record.internal_id, tags)

    def _record(
        self, client: "MlflowClient", artifact: Artifact, tags: dict[str, str], internal_id: str | None
    ) -> None:
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
            client.log_batch(internal_id, metrics=metrics[first : first + _METRICS])
        for first in range(0, len(params), _PARAMS):
            client.log_batch(internal_id, params=params[first : first + _PARAMS])
        client.set_terminated(internal_id, "FINISHED", ended)

    def _analyze(self) -> None:
        # The run is recorded already: a lock that comes in between only puts the statistics off.
        with suppress(ForetideError):
            if self.store.database and self.store.query("SELECT count(*) FROM runs")[0][0] % _ANALYZE_EVERY == 0:
                self.store.analyze()

    def _find(self, run_id: str) -> "_Record | None":
        return next(iter(self._read(_Choice(prefix=run_id, exact=True))), None)

    def _read(self, choice: "_Choice") -> "list[_Record]":
        """Records that are not deleted, from the SQLite file itself or from the server."""
        if self.store.is_empty:
            return []
        if self.store.database:
            return _read_file(self.store, choice)
        with self.store.reading() as client:
            return _read_client(client, choice)

    def _row(self, record: "_Record") -> RunRow:
        tags = {key: value for key, value in record.tags.items() if not key.startswith("mlflow.")}
        seconds = (record.ended - record.started) / 1000 if record.ended else None
        return RunRow(
            run_id=tags["run_id"],
            project=tags["project"],
            kind=tags["kind"],
            model=tags["model"],
            status=record.status.lower(),
            started=datetime.fromtimestamp(record.started / 1000, UTC),
            seconds=seconds,
            lookback=_integer(tags.get("lookback")),
            horizon=_integer(tags.get("horizon")),
            artifact=self.home / tags["artifact"],
            params=record.params,
            metrics=record.metrics,
            tags=tags,
        )


class _Choice(NamedTuple):
    """Which runs to read: of a project, with an identifier that begins like (or is) ``prefix``, in what order."""

    project: str | None = None
    prefix: str = ""
    exact: bool = False
    limit: int = 50
    order: str = "started"


class _Record(NamedTuple):
    """A run in MLflow's terms; times in milliseconds since 1970."""

    internal_id: str
    status: str
    started: int
    ended: int | None
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]


def _read_file(store: Store, choice: _Choice) -> list[_Record]:
    metric, direction = choice.order.removeprefix("-"), "DESC" if choice.order.startswith("-") else "ASC"
    ranking = "r.start_time DESC" if choice.order == "started" else f"m.value IS NULL, m.value {direction}"
    length = _LONGEST if choice.exact else len(choice.prefix)
    rows = store.query(
        _RUNS.format(ranking=ranking), (metric, choice.project, choice.project, length, choice.prefix, choice.limit)
    )
    # SQLite's JSON keeps 15 digits of a number, so that metrics come as text.
    return [
        _Record(
            internal_id,
            status,
            started,
            ended,
            json.loads(tags),
            json.loads(params),
            {name: float(text) for name, text in json.loads(metrics).items()},
        )
        for internal_id, status, started, ended, tags, params, metrics in rows
    ]


def _read_client(client: "MlflowClient", choice: _Choice) -> list[_Record]:
    experiments = [
        found.experiment_id
        for found in client.search_experiments(filter_string="tags.foretide = 'project'")
        if choice.project in (None, found.name)
    ]
    metric, direction = choice.order.removeprefix("-"), "DESC" if choice.order.startswith("-") else "ASC"
    ranking = "attributes.start_time DESC" if choice.order == "started" else f"metrics.`{metric}` {direction}"
    condition = f"tags.run_id = '{choice.prefix}'" if choice.exact else f"tags.run_id LIKE '{choice.prefix}%'"
    runs = client.search_runs(experiments, condition, order_by=[ranking], max_results=choice.limit)
    # An underscore in the prefix is a wildcard here, so more may come than was meant.
    return [
        _Record(
            run.info.run_id,
            run.info.status,
            run.info.start_time,
            run.info.end_time,
            dict(run.data.tags),
            dict(run.data.params),
            dict(run.data.metrics),
        )
        for run in runs
        if run.data.tags["run_id"].startswith(choice.prefix)
    ]


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
    project = config.get("project") or schema.get("project") or schema.get("title") or schema.get("source") or "unnamed"
    model = config.get("model") or next(iter(artifact.metrics.get("scores", {})), "model")
    found = {
        "run_id": run["run_id"],
        "artifact": f"artifacts/{run['run_id']}",
        "kind": kind,
        "project": project,
        "model": model,
    }
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


def _milliseconds(started: Any) -> int:
    """ISO text, or seconds since 1970, or nothing (now), in milliseconds since 1970."""
    if isinstance(started, str):
        moment = datetime.fromisoformat(started)
        return round(1000 * (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    return round(1000 * (datetime.now(UTC).timestamp() if started is None else float(started)))


def _integer(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
