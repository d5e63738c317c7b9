"""The registry: versions of each project's model, and which of them is champion."""

from dataclasses import dataclass
from pathlib import Path

from app.actions.done import Done
from app.registry import CHAMPION, LATEST, Promotion, Version


@dataclass(frozen=True)
class ModelList:
    """Registered models, and the kinds of model that can be trained."""

    versions: list[Version]
    kinds: list[str]

    def __str__(self) -> str:
        from app.tables import text_table

        kinds = f"can be trained with 'foretide train --model NAME': {', '.join(self.kinds)}"
        if not self.versions:
            return (
                "no registered models yet; 'foretide train --data FILE --promote', or 'foretide models register "
                f"RUN', makes one\n{kinds}"
            )
        body = [
            [v.project, str(v.version), v.model, v.run_id, f"{v.created:%Y-%m-%d %H:%M}", ", ".join(v.aliases)]
            for v in self.versions
        ]
        return text_table(["project", "version", "model", "run", "registered (UTC)", "aliases"], body) + "\n\n" + kinds


def list_models(project: str | None = None) -> ModelList:
    """Lists registered models, and the kinds of model that can be trained.

    Args:
        project: Only those of this project.
    """
    from app.runs import RunStore
    from forecasting import models

    store = RunStore()
    chosen = [store.resolve(project, LATEST).project] if project else store.projects()
    return ModelList([version for name in chosen for version in store.versions(name)], models.names())


def register(run_id: str, project: str | None = None, promote: bool = False) -> Done:
    """Makes a run a version of its project's model.

    Args:
        run_id: Identifier of the run, or the beginning of it.
        project: Another project than that of the run.
        promote: Also make it the champion.
    """
    from app.runs import RunStore

    store = RunStore()
    row = store.show(run_id)
    name = project or row.project
    version = store.register(name, row.run_id)
    if promote:
        store.promote(name, version)
    return Done(f"run {row.run_id} is version {version} of {name}" + (" and its champion" if promote else ""))


def promote(project: str, version: int) -> Done:
    """Makes a version the champion of its project; the one before stays reachable as 'previous'.

    Args:
        project: Name of the project.
        version: Number of the version.
    """
    from app.runs import RunStore

    RunStore().promote(project, version)
    return Done(f"version {version} is the champion of {project}")


def rollback(project: str) -> Done:
    """Makes the previous champion of a project champion again.

    Args:
        project: Name of the project.
    """
    from app.runs import RunStore

    version = RunStore().rollback(project)
    return Done(f"version {version.version} is the champion of {project} again")


def alias(project: str, name: str, version: int) -> Done:
    """Gives a version of a project a name of your own.

    Args:
        project: Name of the project.
        name: The alias, such as 'challenger'.
        version: Number of the version.
    """
    from app.runs import RunStore

    RunStore().set_alias(project, name, version)
    return Done(f"{name} of {project} is version {version}")


@dataclass(frozen=True)
class ModelDetails:
    """One version and the promotions of its project."""

    version: Version
    history: list[Promotion]
    facts: dict[str, str]
    scores: dict[str, dict[str, float]]

    def __str__(self) -> str:
        from app.actions.training import titles
        from app.tables import SCORE_NOTE, score_table, text_facts, text_table

        lines = [text_facts(self.facts), "", score_table(self.scores, titles(self.scores)), SCORE_NOTE]
        if self.history:
            rows = [
                [
                    f"{entry.when:%Y-%m-%d %H:%M}",
                    entry.action,
                    str(entry.version),
                    "-" if entry.before is None else str(entry.before),
                    entry.by,
                ]
                for entry in self.history
            ]
            lines += ["", text_table(["promoted (UTC)", "by", "version", "before", "who"], rows, left=2)]
        return "\n".join(lines)


def show(project: str, version: str = CHAMPION) -> ModelDetails:
    """Shows a version: its run, data, sizes, scores, and who promoted what when.

    Args:
        project: Name of the project.
        version: Number of the version, or an alias.
    """
    from app.runs import RunStore
    from app.tables import plain_time
    from forecasting.artifact import load

    store = RunStore()
    found = store.resolve(project, version)
    stored = load(found.artifact, weights=False)
    schema = stored.schema
    units = [unit or "no unit" for unit in schema.get("units", [])]
    variates = [f"{name} ({unit})" for name, unit in zip(schema["variates"], units, strict=True)]
    facts = {
        "project": project,
        "version": str(found.version),
        "aliases": ", ".join(found.aliases) or "none",
        "model": found.model,
        "run": found.run_id,
        "folder": str(found.artifact),
        "data": f"{schema['title']}, {plain_time(schema['first'])} to {plain_time(schema['last'])}",
        "variates": ", ".join(variates),
        "frequency": schema["frequency"],
        "lookback": str(schema["lookback"]),
        "horizon": str(schema["horizon"]),
    }
    return ModelDetails(found, store.history(project), facts, stored.metrics["scores"])


def export(project: str, output: Path, version: str = CHAMPION) -> Done:
    """Writes a version as one archive that another Foretide can import.

    Args:
        project: Name of the project.
        output: The archive, ending in .tar.gz.
        version: Number of the version, or an alias.
    """
    from app.artifacts import export_archive
    from app.runs import RunStore
    from datasets.files import ensure_writable

    ensure_writable(output)
    return Done(f"wrote {export_archive(RunStore().resolve(project, version).artifact, output)}")


def import_model(source: Path, project: str | None = None, promote: bool = False) -> Done:
    """Takes in an exported model: its run goes into the store, and it becomes a version of its project.

    Args:
        source: The archive, or the folder of an artifact.
        project: Another project than the one it was exported from.
        promote: Also make it the champion.
    """
    from app.runs import RunStore

    return register(RunStore().import_run(source), project, promote)


def delete(project: str, version: int) -> Done:
    """Deletes a version from the registry; its run stays. The champion is refused.

    Args:
        project: Name of the project.
        version: Number of the version.
    """
    from app.runs import RunStore

    RunStore().delete_version(project, version)
    return Done(f"deleted version {version} of {project}; its run is still in the store")
