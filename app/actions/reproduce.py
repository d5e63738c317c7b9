"""Reproducing published tables: the runs, their place in the store, and published beside measured."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datasets.errors import ForetideError

_ORIGINS = {"re-run": "not by the model's authors", "recalled": "recalled, not seen in print"}


@dataclass(frozen=True)
class ReproduceResult:
    """Published beside measured.

    Args:
        summary: See `forecasting.measured.summary`.
        path: Where it is stored.
        run_ids: The runs as the store knows them.
    """

    summary: dict[str, Any]
    path: Path
    run_ids: list[str]

    def __str__(self) -> str:
        from app.tables import text_table

        summary = self.summary
        theirs = any("mse_dropped" in cell["measured"] for cell in summary["cells"])
        their_head = ["MSE their way", "MAE their way"] if theirs else []
        head = ["horizon", "seeds", "MSE published", "measured", "ratio", "MAE published", "measured", "ratio"]
        rows = [_row(cell, str(cell["horizon"]), theirs) for cell in summary["cells"]]
        rows += [_row(average, "average", theirs) for average in summary["averages"]]
        return "\n".join(
            [
                f"{summary['title']} on {summary['dataset']}: published protocol and settings, every test window",
                "",
                text_table([*head, *their_head, "windows", "seconds"], rows),
                "",
                *_notes(summary),
                f"{len(self.run_ids)} runs are in the store; summary: {self.path}",
            ]
        )


def reproduce(
    model: str,
    dataset: str,
    horizons: list[int] | None = None,
    seeds: int = 3,
    features: Literal["all", "M", "S"] = "all",
    parallel: int = 1,
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
    data: Path | None = None,
) -> ReproduceResult:
    """Runs a model with the published settings on a standard dataset, and shows published beside measured scores.

    Finished runs are kept under FORETIDE_HOME and not repeated; a broken one continues when the same command is given
    again. On a machine without the application, 'python -m forecasting.reproduce MODEL DATASET --output FOLDER' does
    the same, and 'foretide runs import FOLDER' brings its runs home.

    Args:
        model: Name of a model with published scores.
        dataset: Name of a catalogued dataset.
        horizons: Published horizons to run; by default all of them.
        seeds: How many seeds, counted from the published one.
        features: M forecasts all variates, S the target variate from itself alone; all is whatever was published.
        parallel: Runs at a time, on one device.
        accelerator: What to train on; auto takes a GPU where there is one.
        data: File to read in place of the catalogue's, such as 'foretide data export' writes.
    """
    from app.home import home
    from app.runs import RunStore
    from datasets.files import ensure_writable
    from datasets.options import require
    from forecasting import measured
    from forecasting.reproduce import Reproduction, cells

    require(seeds >= 1, "seeds", seeds, "at least 1")
    require(parallel >= 1, "parallel", parallel, "at least 1")
    folder = home() / "reproduce"
    wanted = cells(model, dataset, horizons, seeds, None if features == "all" else features, accelerator, data)
    ensure_writable(folder / "summary")
    made = Reproduction(folder, wanted)
    made.run(parallel)
    finished = [folder / cell.name for cell in wanted if (folder / cell.name).is_dir()]
    if not finished:
        raise ForetideError(f"reproduce: no run was finished; {next(iter(made.failures.values()))}")
    store = RunStore()
    run_ids = [store.import_run(path) for path in finished]
    path = made.summarize()[0]
    return ReproduceResult(measured.read(path), path, run_ids)


def _row(cell: Mapping[str, Any], name: str, theirs: bool) -> list[str]:
    scores, known = cell["measured"], cell["published"]
    row = [name + (" (target alone)" if cell["features"] == "S" else ""), str(scores["mse"]["count"])]
    for metric in ("mse", "mae"):
        row += [f"{known[metric]:.3f}" if known else "-", _spread(scores[metric])]
        row.append(f"{cell['ratio'][metric]:.3f}" if known else "-")
    if theirs:
        row += [_spread(scores.get(f"{metric}_dropped")) for metric in ("mse", "mae")]
    seconds = cell.get("seconds")
    return [*row, f"{cell['windows']:,}" if "windows" in cell else "", f"{seconds['mean']:.0f}" if seconds else ""]


def _spread(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return "-"
    return f"{score['mean']:.4f}" + (f" ± {score['std']:.4f}" if score["std"] is not None else "")


def _notes(summary: Mapping[str, Any]) -> Iterator[str]:
    """Where the published scores come from, what sets them apart, what failed, and on what device."""
    known = [cell["published"] for cell in summary["cells"] if cell["published"]]
    for source in dict.fromkeys(row["source"] for row in known):
        row = next(row for row in known if row["source"] == source)
        origin = f" ({_ORIGINS[row['origin']]})" if row["origin"] in _ORIGINS else ""
        yield f"published: {source}{origin}" + (f"; {row['note']}" if row["note"] else "")
    if sizes := {row["dropped"] for row in known if row["dropped"]}:
        yield (
            f"their way: without the last incomplete batch of {', '.join(map(str, sorted(sizes)))} test windows, which "
            "the published code left out"
        )
    for name, reason in summary["failures"].items():
        yield f"failed: {name}: {reason}"
    yield f"device: {', '.join(summary['devices'])}"
