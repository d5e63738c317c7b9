"""The runs in the store, and comparing them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.actions.done import Done
from datasets.errors import ForetideError

if TYPE_CHECKING:
    from app.runs import RunRow, RunStore


@dataclass(frozen=True)
class RunList:
    """Runs, newest or best first."""

    rows: "list[RunRow]"

    def __str__(self) -> str:
        from app.tables import text_table

        if not self.rows:
            return "no runs yet; 'foretide demo' or 'foretide train --data FILE' makes one"
        head = ["run", "project", "model", "started (UTC)", "lookback", "horizon", "mse", "mae", "skill"]
        body = [
            [
                row.run_id,
                row.project,
                row.model,
                f"{row.started:%Y-%m-%d %H:%M}",
                str(row.lookback),
                str(row.horizon),
                _number(row.metrics, "mse"),
                _number(row.metrics, "mae"),
                _percent(row.metrics, "skill_mae"),
            ]
            for row in self.rows
        ]
        return text_table(head, body, left=3)


def list_runs(project: str | None = None, limit: int = 50, order: str = "started") -> RunList:
    """Lists the runs in the store.

    Args:
        project: Only those of this project.
        limit: At most so many.
        order: started (newest first), or a score such as mse (smallest first) or -skill_mae (largest first).
    """
    from app.runs import RunStore
    from datasets.options import require

    require(limit >= 1, "limit", limit, "at least 1")
    rows = RunStore().runs(project, limit, order)
    metric, known = order.removeprefix("-"), sorted({name for row in rows for name in row.metrics if "/" not in name})
    require(
        not rows or metric.rpartition("/")[2] in ("started", *known),
        "order",
        order,
        f"started, or a score: {', '.join(known)}",
    )
    return RunList(rows)


@dataclass(frozen=True)
class RunDetails:
    """One run: scores, configuration, and what it was made with."""

    row: "RunRow"

    def __str__(self) -> str:
        from app.actions.training import titles
        from app.tables import SCORE_NOTE, score_table, text_facts

        row = self.row
        facts = {
            "run": row.run_id,
            "project": row.project,
            "model": row.model,
            "started": f"{row.started:%Y-%m-%d %H:%M:%S} UTC",
            "seconds": f"{row.seconds or 0:.1f}",
            "folder": str(row.artifact),
        }
        facts |= {name: value for name, value in row.tags.items() if name not in (*facts, "artifact", "run_id", "kind")}
        scores: dict[str, dict[str, float]] = {row.model: {}}
        for name, value in row.metrics.items():
            model, _, score = name.rpartition("/")
            scores.setdefault(model or row.model, {})[score] = value
        given = {name: value for name, value in row.params.items() if value not in ("null", "[]", "{}")}
        return "\n".join(
            [
                text_facts(facts),
                "",
                score_table(scores, titles(scores)),
                SCORE_NOTE,
                "",
                "configuration:",
                text_facts({f"  {name}": value for name, value in given.items()}),
            ]
        )


def show_run(run_id: str) -> RunDetails:
    """Shows one run: scores, configuration, command, versions.

    Args:
        run_id: Identifier of the run, or the beginning of it.
    """
    from app.runs import RunStore

    return RunDetails(RunStore().show(run_id))


def import_run(folder: Path) -> Done:
    """Takes a folder of results made elsewhere into the store; a second time changes nothing.

    Args:
        folder: What 'python -m forecasting RUN.yaml FOLDER' wrote, an exported archive, or a folder of several such
            folders, as 'python -m forecasting.reproduce' writes.
    """
    from app.artifacts import artifacts_in
    from app.runs import RunStore
    from forecasting.artifact import load

    found = artifacts_in(folder)
    if len(found) == 1:
        return Done(f"run {RunStore().import_run(found[0])} is in the store")
    for path in found:
        load(path, weights=False)
    store = RunStore()
    run_ids = [store.import_run(path) for path in found]
    return Done(f"{len(run_ids)} runs are in the store: {', '.join(run_ids)}")


def delete_run(run_id: str) -> Done:
    """Deletes a run and its artifact; a run that is a registered model is refused.

    Args:
        run_id: Identifier of the run, or the beginning of it.
    """
    from app.runs import RunStore

    store = RunStore()
    row = store.show(run_id)
    store.delete(row.run_id)
    return Done(f"deleted run {row.run_id}")


@dataclass(frozen=True)
class Comparison:
    """Scores of several runs side by side, and the difference of each to the first."""

    scores: dict[str, dict[str, float]]
    differences: list[dict[str, Any]]

    def __str__(self) -> str:
        from app.tables import SCORE_NOTE, difference_table, score_table

        return "\n".join([score_table(self.scores, {}), SCORE_NOTE, "", difference_table(self.differences, {})])


def compare(runs: list[str] | None = None, project: str | None = None, limit: int = 5) -> Comparison:
    """Compares runs of one dataset and horizon: scores, and each difference to the first run with its interval.

    Args:
        runs: Identifiers of the runs; by default the best of the project by MSE.
        project: Whose runs, where none are named.
        limit: How many, where none are named.
    """
    from app.runs import RunStore
    from forecasting.artifact import load
    from forecasting.backtest import difference_rows

    store = RunStore()
    rows = [store.show(name) for name in dict.fromkeys(runs)] if runs else _best(store, project, limit)
    if len(rows) < 2:
        raise ForetideError(
            f"compare: found {len(rows)} run{'' if len(rows) == 1 else 's'}, expected at least 2; "
            "see 'foretide runs list'"
        )
    stored = {f"{row.run_id} {row.model}": load(row.artifact) for row in rows}
    kinds = {(a.schema["data_checksum"], a.schema["horizon"]) for a in stored.values()}
    if len(kinds) > 1:
        raise ForetideError(
            "compare: the runs differ in data or horizon, so that their scores cannot be compared; "
            "name runs of one dataset and horizon"
        )
    scores = {
        name: {k: v for k, v in a.metrics["scores"][a.config["model"]].items() if v is not None}
        for name, a in stored.items()
    }
    return Comparison(scores, difference_rows(stored))


def _best(store: "RunStore", project: str | None, limit: int) -> "list[RunRow]":
    """The best runs of a project by MSE, out of those with the data and horizon of the best."""
    found = store.runs(project, 1000, "mse")
    projects = sorted({row.project for row in found})
    if len(projects) > 1:
        raise ForetideError(
            f"compare: there are runs of {', '.join(projects)}; name the runs, or one project with --project"
        )
    alike = [
        row
        for row in found
        if row.horizon == found[0].horizon and row.tags.get("data_checksum") == found[0].tags.get("data_checksum")
    ]
    return alike[:limit]


def _number(metrics: dict[str, float], name: str) -> str:
    return f"{metrics[name]:.4f}" if name in metrics else "-"


def _percent(metrics: dict[str, float], name: str) -> str:
    return f"{100 * metrics[name]:+.1f} %" if name in metrics else "-"
