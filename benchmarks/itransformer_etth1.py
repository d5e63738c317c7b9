"""iTransformer on ETTh1 under the published protocol: scores over several seeds beside the published ones.

    python -m benchmarks.itransformer_etth1 --work FOLDER [--seeds 2023 2024 2025] [--horizons 96 192 336 720]

Runs that already lie in the work folder are not repeated. Writes ``benchmarks/results/itransformer_etth1.json``.
"""

import argparse
import os
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, Record, write

# Liu et al., ICLR 2024, table 10: horizon → (MSE, MAE)
PUBLISHED = {96: (0.386, 0.405), 192: (0.441, 0.436), 336: (0.487, 0.458), 720: (0.503, 0.491)}
PUBLISHED_AVERAGE = 0.454


def main() -> None:
    """Trains what is missing, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2023, 2024, 2025])
    parser.add_argument("--horizons", type=int, nargs="+", default=sorted(PUBLISHED))
    options = parser.parse_args()
    # more threads than this gain nothing at these sizes
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    metrics = {(h, s): _metrics(h, s, options.work) for h in options.horizons for s in options.seeds}
    records = [
        record
        for horizon in options.horizons
        for record in _records(horizon, [metrics[horizon, s] for s in options.seeds])
    ]
    if set(options.horizons) == set(PUBLISHED):
        records.append(_average(options.seeds, metrics))
    print(write("itransformer_etth1", records))


def _metrics(horizon: int, seed: int, work: Path) -> dict[str, Any]:
    from forecasting import artifact
    from forecasting.config import read_config
    from forecasting.experiment import run

    folder = work / f"{horizon}-{seed}"
    if not folder.exists():
        config = read_config(ROOT / "configs" / "itransformer" / f"ETTh1_{horizon}.yaml")
        training = replace(config.training, seed=seed, accelerator="cpu")
        run(config.of(training=training, baselines=["seasonal_naive"]), folder)
    return artifact.load(folder, weights=False).metrics


def _records(horizon: int, runs: list[dict[str, Any]]) -> list[Record]:
    """MSE and MAE against the published cell, then coverage and CRPS beside conformal seasonal naive."""
    case, made = f"ETTh1 96 -> {horizon}, {len(runs)} seeds", []
    for metric, published in zip(("mse", "mae"), PUBLISHED[horizon], strict=True):
        mean, spread = _over(runs, metric)
        allowed = published + max(0.015 * published, 2 * spread)
        made.append(Record(case, metric.upper(), "", mean, spread, "published", published, target=f"<= {allowed:.4f}"))
    for percent in (80, 95):
        mean, spread = _over(runs, f"coverage_{percent}")
        made.append(Record(case, f"coverage of the {percent} % band", "%", 100 * mean, 100 * spread))
        made.append(
            Record(case, f"|coverage - {percent} %|", "points", abs(100 * mean - percent), 100 * spread, target="<= 2")
        )
    for metric, name in (("crps", "CRPS in original units"), ("scaled_crps", "CRPS / MASE denominator")):
        mean, spread = _over(runs, metric)
        naive, _ = _over(runs, metric, "seasonal_naive")
        made.append(Record(case, name, "", mean, spread, "conformal seasonal naive", naive))
    seconds = [sum(row["seconds"] for row in run["training"]["epochs"]) for run in runs]
    made.append(Record(case, "training", "s", statistics.median(seconds), max(seconds) - min(seconds)))
    made.append(Record(case, "test windows", "", runs[0]["windows"]["test"]))
    return made


def _over(runs: list[dict[str, Any]], metric: str, model: str = "itransformer") -> tuple[float, float]:
    values = [run["scores"][model][metric] for run in runs]
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _average(seeds: list[int], metrics: dict[tuple[int, int], dict[str, Any]]) -> Record:
    averages = [statistics.mean(metrics[h, s]["scores"]["itransformer"]["mse"] for h in PUBLISHED) for s in seeds]
    spread = statistics.stdev(averages) if len(averages) > 1 else 0.0
    return Record(
        f"ETTh1, four horizons, {len(seeds)} seeds",
        "average MSE",
        "",
        statistics.mean(averages),
        spread,
        "published",
        PUBLISHED_AVERAGE,
        target=f"<= {1.01 * PUBLISHED_AVERAGE:.4f}",
    )


if __name__ == "__main__":
    main()
