"""Published tables reproduced: measured scores, coverage and CRPS beside what was published, with the targets.

    python -m benchmarks.reproduction FOLDER...     from the runs of `foretide reproduce` or `forecasting.reproduce`
    python -m benchmarks.reproduction --docs        docs/reproduction.md and its figures, from the stored results

The first writes ``benchmarks/results/reproduction_<model>.json``; records of datasets that the folders do not hold
stay as they are. The device of each record is the one that its runs recorded.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, Record, write
from benchmarks.results import read

NAME = "reproduction_"
# highest ratio of a dataset's average to the published one
AVERAGE = {"autoformer": 1.03, "informer": 1.03}
USUAL_AVERAGE = 1.01
# TSMixer's table is recalled, so that its targets are given as they stand
FIXED = {("tsmixer", "ETTh1", 96, "mse"): 0.371, ("tsmixer", "ETTh1", None, "mse"): 0.412}
# a cell of three seeds or more is at most so far above the published score, in parts of it and in standard deviations
CELL, DEVIATIONS, SEEDS = 0.015, 2, 3
COVERAGE_TARGET, COVERAGE_DATASETS = "<= 2", ("ETTh1", "ETTh2")
PEERS = {"paper": "published", "re-run": "re-run by others", "recalled": "published, recalled"}
NAIVE = "conformal seasonal naive"


@dataclass(frozen=True)
class Case:
    """What a record is about, in the words that stand in the file.

    Args:
        horizon: None for the average over all horizons of a table.
        alone: Whether the target is forecast from itself alone.
    """

    dataset: str
    alone: bool
    lookback: int | None
    horizon: int | None
    seeds: int

    def __str__(self) -> str:
        span = "average" if self.horizon is None else f"{self.lookback} -> {self.horizon}"
        target = " target alone" if self.alone else ""
        return f"{self.dataset}{target}, {span}, {self.seeds} seed{'' if self.seeds == 1 else 's'}"

    @staticmethod
    def of(text: str) -> "Case":
        """The inverse of ``str``.

        Raises:
            ValueError: The text says something else.
        """
        match = _CASE.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r}: not a case of a reproduction")
        lookback, horizon = (int(part) if part else None for part in (match["lookback"], match["horizon"]))
        return Case(match["dataset"], bool(match["alone"]), lookback, horizon, int(match["seeds"]))


_CASE = re.compile(
    r"(?P<dataset>\w+)(?P<alone> target alone)?, "
    r"(?:average|(?P<lookback>\d+) -> (?P<horizon>\d+)), (?P<seeds>\d+) seeds?"
)


def records(summary: dict[str, Any]) -> list[Record]:
    """The records of a model on a dataset; see `forecasting.measured.summary`."""
    model, dataset, device = summary["model"], summary["dataset"], ", ".join(summary["devices"])
    made: list[Record] = []
    for cell in summary["cells"]:
        seeds = cell["measured"]["mse"]["count"]
        case = Case(dataset, cell["features"] == "S", cell["lookback"], cell["horizon"], seeds)
        made += [*_scores(model, case, cell), *_intervals(case, cell["measured"])]
        made += [
            _record(case, "run, beside others", "s", cell["seconds"]),
            Record(str(case), "test windows", "", cell["windows"]),
        ]
    for average in summary["averages"]:
        case = Case(dataset, average["features"] == "S", None, None, len(average["seeds"]))
        origins = {cell["published"]["origin"] for cell in summary["cells"] if cell["published"]}
        known = {**average["published"], "origin": next(iter(origins))}
        made += _scores(model, case, {**average, "published": known})
    return [replace(record, device=device) for record in made]


def _scores(model: str, case: Case, cell: dict[str, Any]) -> Iterator[Record]:
    """MSE and MAE beside the published ones; where code dropped test windows, also its way."""
    known, measured = cell["published"], cell["measured"]
    if known is None:
        return
    for metric in ("mse", "mae"):
        published, name = known[metric], metric.upper()
        peer = {"peer": PEERS[known["origin"]], "peer_value": published}
        target = _target(model, case, metric, published, measured[metric]["std"])
        yield _record(case, name, "", measured[metric], target=target, **peer)
        if f"{metric}_dropped" in measured:
            yield _record(case, f"{name} without the last incomplete batch", "", measured[f"{metric}_dropped"], **peer)


def _target(model: str, case: Case, metric: str, published: float, spread: float | None) -> str | None:
    fixed = FIXED.get((model, case.dataset, case.horizon, metric))
    if fixed is not None:
        return f"<= {fixed}"
    if case.horizon is None:
        return f"<= {AVERAGE.get(model, USUAL_AVERAGE) * published:.4f}"
    if case.seeds < SEEDS or spread is None:
        return None
    return f"<= {published + max(CELL * published, DEVIATIONS * spread):.4f}"


def _intervals(case: Case, measured: dict[str, Any]) -> Iterator[Record]:
    """Coverage, how far it is off at each step, and CRPS beside conformal seasonal naive."""
    target = COVERAGE_TARGET if case.dataset in COVERAGE_DATASETS else None
    for percent in (80, 95):
        yield _record(case, f"coverage of the {percent} % band", "%", measured[f"coverage_{percent}"])
        off = measured[f"coverage_error_{percent}"]
        yield _record(case, f"|coverage - {percent} %|, mean over steps", "points", off, target=target)
    for key, name in (("crps", "CRPS in original units"), ("scaled_crps", "CRPS / MASE denominator")):
        yield _record(case, name, "", measured[key], peer=NAIVE, peer_value=measured[f"naive_{key}"]["mean"])


def _record(case: Case, metric: str, unit: str, score: dict[str, Any], **more: Any) -> Record:
    return Record(str(case), metric, unit, score["mean"], score["std"], **more)


def summaries(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """One summary for each model and dataset that the folders hold runs of, their seeds and horizons taken together."""
    from forecasting import measured

    kinds = {
        (found["model"], found["dataset"])
        for folder in folders
        for path in folder.glob("*.json")
        if "averages" in (found := measured.read(path))
    }
    if not kinds:
        raise SystemExit(f"no summary of a reproduction in {', '.join(map(str, folders))}")
    return [measured.summary(folders, model, dataset) for model, dataset in sorted(kinds)]


def stored(folder: Path = RESULTS) -> dict[str, list[Record]]:
    """The stored records of each model."""
    return {path.stem.removeprefix(NAME): read(path) for path in sorted(folder.glob(f"{NAME}*.json"))}


def store(found: Iterable[dict[str, Any]], folder: Path = RESULTS) -> list[Path]:
    """Writes the records of each model, those of other datasets from before included."""
    by_model: dict[str, list[dict[str, Any]]] = {}
    for summary in found:
        by_model.setdefault(summary["model"], []).append(summary)
    before, written = stored(folder), []
    for model, own in by_model.items():
        datasets = {summary["dataset"] for summary in own}
        kept = [record for record in before.get(model, []) if Case.of(record.case).dataset not in datasets]
        made = [record for summary in own for record in records(summary)]
        device = ", ".join(dict.fromkeys(device for summary in own for device in summary["devices"]))
        written.append(write(NAME + model, [*kept, *made], device=device, installed=own[-1]["versions"], folder=folder))
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Stores results, or writes the page about them; 1 where a picture could not be drawn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="*", help="folders of reproduced runs")
    parser.add_argument("--docs", action="store_true", help="write docs/reproduction.md from the stored results")
    options = parser.parse_args(arguments)
    if not options.folders and not options.docs:
        parser.error("name a folder of reproduced runs, or --docs")
    if options.folders:
        print(*store(summaries(options.folders)), sep="\n")
    if options.docs:
        from benchmarks.reproduction_page import write_page

        drawn = write_page(stored())
        print(
            "docs/reproduction.md" if drawn else "docs/reproduction.md; no Chromium was found, so no figure was drawn"
        )
        return 0 if drawn else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
