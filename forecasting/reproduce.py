"""The published protocol with the published settings, over horizons and seeds, several runs at a time.

    python -m forecasting.reproduce MODEL DATASET --output FOLDER [--horizons 96 192] [--seeds 2023 2024 2025]
        [--parallel 4] [--data FILE.nc] [--slim]

needs the lower packages only. Each cell becomes a folder, an artifact as every run writes it; a finished one is not
repeated, a broken one continues. ``foretide runs import FOLDER`` takes all of them into the store.
"""

import argparse
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml

from datasets import catalog
from datasets.errors import ForetideError
from datasets.files import atomic_path, ensure_writable
from datasets.options import build, plain, require
from forecasting import artifact, measured, models, published
from forecasting.config import RunConfig, read_config
from forecasting.processes import Job, side_by_side
from forecasting.published import Features

LOGS = "logs"
# beside the model, whose scores are to be compared with the published ones
BASELINES = ["seasonal_naive"]
# the prefix of the tensors that say how each test window went: all that a slim artifact keeps
KEPT = "evaluation."

Accelerator = Literal["auto", "cpu", "gpu"]


@dataclass(frozen=True)
class Cell:
    """One run of a published table: a horizon and a seed."""

    features: Features
    seed: int
    config: RunConfig
    dataset: str

    @property
    def name(self) -> str:
        """Name of its folder."""
        return measured.cell_name(self.config.model, self.dataset, self.features, self.config.horizon, self.seed)


@dataclass
class Reproduction:
    """Cells under way: what is written, what has failed, how much is left.

    Args:
        output: Folder of the cells.
        slim: Whether artifacts keep their scores only, not the weights.
    """

    output: Path
    cells: Sequence[Cell]
    slim: bool = False
    failures: dict[str, str] = field(default_factory=dict)
    warned: set[str] = field(default_factory=set)
    done: int = 0
    started: float = field(default_factory=time.monotonic)

    def run(self, parallel: int) -> None:
        """Runs what is not there yet; a cell that fails is noted, and the others go on."""
        missing = [cell for cell in self.cells if not self._is_finished(cell)]
        if have := len(self.cells) - len(missing):
            print(f"{have} of {len(self.cells)} runs are there already", flush=True)
        # the long ones first, so that the last ones to end do not leave the device idle
        by_name = {cell.name: cell for cell in sorted(missing, key=lambda cell: -cell.config.horizon)}
        jobs = [self._job(cell) for cell in by_name.values()]
        try:
            side_by_side(
                jobs, parallel, lambda job, code: self._finish(by_name[job.name], code, len(jobs)), self._still
            )
        finally:
            self.summarize()

    def summarize(self) -> list[Path]:
        """Writes a summary for each model and dataset, of all cells that are finished."""
        kinds = dict.fromkeys((cell.config.model, cell.dataset) for cell in self.cells)
        return [measured.write(self.output, model, dataset, self.failures) for model, dataset in kinds]

    def _is_finished(self, cell: Cell) -> bool:
        folder = self.output / cell.name
        if not folder.exists():
            return False
        stored = artifact.load(folder, weights=False)
        before = _comparable(build(RunConfig, stored.config, str(folder / artifact.CONFIG)))
        now = _comparable(cell.config)
        changed = next((name for name in now if now[name] != before.get(name)), None)
        if changed:
            raise ForetideError(
                f"{folder}: was made with {changed} {before.get(changed)}, expected {now[changed]}; "
                "remove it, or name another --output"
            )
        if self.slim:
            _slim(folder)
        return True

    def _job(self, cell: Cell) -> Job:
        logs = self.output / LOGS
        path = logs / f"{cell.name}.yaml"
        with atomic_path(path) as temporary:
            temporary.write_text(yaml.safe_dump(plain(cell.config), sort_keys=False), encoding="utf-8")
        arguments = ("-m", "forecasting", str(path), str(self.output / cell.name))
        return Job(cell.name, arguments, logs / f"{cell.name}.log")

    def _finish(self, cell: Cell, code: int, jobs: int) -> None:
        self.done += 1
        spent = time.monotonic() - self.started
        left = spent / self.done * (jobs - self.done)
        if code == 0 and self.slim:
            _slim(self.output / cell.name)
        text = self._scores(cell) if code == 0 else self._failure(cell, code)
        rest = f"; about {_duration(left)} left" if self.done < jobs else f"; all in {_duration(spent)}"
        print(f"[{self.done}/{jobs}] {cell.name}: {text}{rest}", flush=True)
        for line in _lines(self.output / LOGS / f"{cell.name}.log"):
            if line.startswith("warning: ") and line not in self.warned:
                self.warned.add(line)
                print(line, flush=True)

    def _failure(self, cell: Cell, code: int) -> str:
        last = _last_line(self.output / LOGS / f"{cell.name}.log").removeprefix("error: ")
        reason = f"killed by signal {-code}" if code < 0 else last or f"exit status {code}"
        self.failures[cell.name] = reason
        return f"failed: {reason}"

    def _scores(self, cell: Cell) -> str:
        stored, config = artifact.load(self.output / cell.name, weights=False), cell.config
        scores = stored.metrics["scores"][config.model]
        known = published.find(config.model, cell.dataset, config.horizon, cell.features)
        beside = [f" (published {value:.3f})" for value in (known.mse, known.mae)] if known else ["", ""]
        return f"MSE {scores['mse']:.4f}{beside[0]}, MAE {scores['mae']:.4f}{beside[1]}, {stored.run['seconds']:.0f} s"

    def _still(self, running: list[Job]) -> None:
        for job in running:
            print(f"        {job.name}: {_last_line(job.log) or 'starting'}", flush=True)


def cells(
    model: str,
    dataset: str,
    horizons: Sequence[int] | None = None,
    seeds: int | Sequence[int] = 3,
    features: Features | None = None,
    accelerator: Accelerator = "auto",
    data: Path | None = None,
) -> list[Cell]:
    """The runs that reproduce a published table, with the settings of ``configs/``.

    Args:
        horizons: Those wanted; by default all published ones.
        seeds: The seeds themselves, or how many, counted from the one of the settings.
        features: ``M`` for all variates, ``S`` for the target alone; by default all that was published.
        accelerator: What to train on.
        data: A file to read in place of the catalogue's, such as ``foretide data export`` writes.

    Raises:
        ForetideError: No such model, dataset or horizon, or nothing was published about them.
    """
    models.find(model)
    name, entry = model.lower().replace("-", "_"), catalog.find(dataset)
    found = list(_configs(name, entry.name))
    if not found or not published.scores(name, entry.name):
        known = list(dict.fromkeys(cell.dataset for cell in published.scores(name)))
        hint = f"expected one of {', '.join(known)}" if known else "no published scores of this model are known"
        raise ForetideError(f"reproduce: found nothing published about {name} on {entry.name}; {hint}")
    found = [config for config in found if features in (None, _features(config))]
    require(bool(found), "features", features, "the other kind, which is all that was published")
    there = sorted({config.horizon for config in found})
    for horizon in horizons or ():
        require(horizon in there, "horizons", horizon, f"one of the published ones: {', '.join(map(str, there))}")
    return [
        Cell(_features(config), seed, _configured(config, seed, accelerator, data), entry.name)
        for config in found
        if not horizons or config.horizon in horizons
        for seed in (range(config.training.seed, config.training.seed + seeds) if isinstance(seeds, int) else seeds)
    ]


def _configs(model: str, dataset: str) -> Iterator[RunConfig]:
    folder = Path(str(files("configs") / model))
    paths = sorted(folder.glob(f"{dataset}_*.yaml")) if folder.is_dir() else []
    yield from sorted(map(read_config, paths), key=lambda config: (_features(config), config.horizon))


def _features(config: RunConfig) -> Features:
    return "S" if len(config.reader.variates or ()) == 1 else "M"


def _configured(config: RunConfig, seed: int, accelerator: Accelerator, data: Path | None) -> RunConfig:
    training = replace(config.training, seed=seed, accelerator=accelerator)
    place = config.data if data is None else str(data.absolute())
    return config.of(data=place, training=training, baselines=BASELINES)


def _comparable(config: RunConfig) -> dict[str, Any]:
    """All settings by name but those that leave the scores as they are: where the data lies, and the device."""
    training = plain(replace(config.training, accelerator="auto"))
    return {**plain(config), "data": None, "training": None, **{f"training.{k}": v for k, v in training.items()}}


def _slim(folder: Path) -> None:
    stored = artifact.load(folder)
    kept = {name: tensor for name, tensor in stored.weights.items() if name.startswith(KEPT)}
    if len(kept) < len(stored.weights):
        artifact.write(folder, replace(stored, weights=kept), replace=True)


def _last_line(path: Path) -> str:
    return next((line[:300] for line in reversed(_lines(path))), "")


def _lines(path: Path) -> list[str]:
    found = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return [line.strip() for line in found if line.strip()]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def main(arguments: list[str] | None = None) -> int:
    """Runs the cells that a command line asks for; 1 where some failed, 2 for a mistake of the user."""
    options = _parser().parse_args(arguments)
    # as a scheduler ends a job that has used its time: children are stopped, and what is finished is summed up
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        require(options.parallel >= 1, "--parallel", options.parallel, "at least 1")
        ensure_writable(options.output / LOGS)
        wanted = cells(
            options.model,
            options.dataset,
            options.horizons,
            options.seeds or 3,
            options.features,
            options.accelerator,
            options.data,
        )
        made = Reproduction(options.output, wanted, options.slim)
        made.run(options.parallel)
    except ForetideError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130
    print("wrote", *made.summarize())
    return 1 if made.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m forecasting.reproduce", description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("dataset", help="name in the catalogue")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs and of their summary")
    parser.add_argument("--horizons", type=int, nargs="+", help="by default all published ones")
    parser.add_argument("--seeds", type=int, nargs="+", help="by default three, from the published one on")
    parser.add_argument("--features", choices=["M", "S"], help="all variates, or the target alone; by default both")
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time (default 1)")
    parser.add_argument("--accelerator", choices=["auto", "cpu", "gpu"], default="auto")
    parser.add_argument("--data", type=Path, help="file to read in place of the catalogue's")
    parser.add_argument("--slim", action="store_true", help="keep scores and window errors, not the weights")
    return parser


if __name__ == "__main__":
    sys.exit(main())
