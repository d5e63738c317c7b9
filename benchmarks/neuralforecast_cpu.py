"""Foretide beside neuralforecast on two cores: a training step, a forecast from a loaded model, a rolling backtest.

    python -m benchmarks.neuralforecast_cpu [--repeats 5]

iTransformer of the same size (256 wide, 2 layers, 8 heads, feed-forward 256), 32 windows a step, lookback and horizon
96, ETTh1, no calendar tokens, because the peer's has none. The backtest makes point forecasts
and a frame of all of them. Every measurement is a process of its own; ours and the
peer's take turns. Writes ``benchmarks/results/neuralforecast_cpu.json``.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import Record, peak_bytes, require_idle, run_child, write

PEER = "neuralforecast 3.3"
WINDOWS = 2785
SHORT, LONG = 50, 350
FORECASTS = 30


def main() -> None:
    """Measures all three, or one of them in a child process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--child", choices=sorted(CHILDREN), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print("\nRESULT " + json.dumps(CHILDREN[options.child](options.work) | {"peak": peak_bytes()}))
        return
    require_idle()
    with tempfile.TemporaryDirectory() as folder:
        found = {name: [] for name in CHILDREN}  # type: dict[str, list[dict[str, float]]]
        for turn in range(options.repeats):
            for name in sorted(CHILDREN, reverse=bool(turn % 2)):
                found[name].append(_child(name, Path(folder) / f"{name}-{turn}"))
                print(name, found[name][-1], flush=True)
    print(write("neuralforecast_cpu", _records(found), peers=["neuralforecast", "statsforecast", "pandas"]))


def _child(name: str, work: Path) -> dict[str, float]:
    work.mkdir()
    done = run_child([sys.executable, "-m", "benchmarks.neuralforecast_cpu", "--child", name, "--work", str(work)])
    line = next((line for line in done.output.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise RuntimeError(f"{name} failed with {done.code}:\n{done.output[-3000:]}")
    result: dict[str, float] = json.loads(line.removeprefix("RESULT "))
    return result


def _records(found: dict[str, list[dict[str, float]]]) -> list[Record]:
    def record(case: str, metric: str, unit: str, what: str, key: str, scale: float, target: str | None) -> Record:
        ours = [scale * run[key] for run in found[f"ours-{what}"]]
        theirs = [scale * run[key] for run in found[f"peer-{what}"]]
        return Record(
            case,
            metric,
            unit,
            statistics.median(ours),
            max(ours) - min(ours),
            PEER,
            statistics.median(theirs),
            target=target,
            target_of="ratio",
        )

    return [
        record("iTransformer 256, 32 windows, 96 -> 96", "training step", "ms", "step", "seconds", 1e3, ">= 2"),
        record("iTransformer 256, 96 -> 96", "forecast from a loaded model", "ms", "forecast", "seconds", 1e3, ">= 10"),
        record(f"iTransformer 256, {WINDOWS} windows", "rolling backtest", "s", "backtest", "seconds", 1.0, ">= 10"),
        record(
            f"iTransformer 256, {WINDOWS} windows",
            "peak memory of the backtest",
            "MB",
            "backtest",
            "peak",
            1e-6,
            ">= 1",
        ),
    ]


def _config() -> Any:
    from forecasting.config import RunConfig, SplitOptions

    return RunConfig(
        "ETTh1",
        architecture={"layers": 2, "d_model": 256, "d_ff": 256},
        calendar=False,
        split=SplitOptions("published"),
    )


def _ours_step(work: Path) -> dict[str, float]:
    from forecasting.engine import fit
    from forecasting.experiment import build_model
    from forecasting.protocol import prepare

    config = _config()
    prepared = prepare(config)

    def train(steps: int) -> float:
        model = build_model(config, prepared)
        start = time.perf_counter()
        fit(model, prepared.windows, config.training, work / str(steps), visible=False, validate=False, max_steps=steps)
        return time.perf_counter() - start

    return _per_step(train)


def _peer_step(work: Path) -> dict[str, float]:
    frame = _frame().query("ds < '2017-06-26'")

    def train(steps: int) -> float:
        forecaster = _peer(steps)
        start = time.perf_counter()
        forecaster.fit(frame)
        return time.perf_counter() - start

    return _per_step(train)


def _per_step(train: Callable[[int], float]) -> dict[str, float]:
    """The difference of a long and a short training, so that neither start nor end counts."""
    train(5)
    short, long = train(SHORT), train(LONG)
    return {"seconds": (long - short) / (LONG - SHORT)}


def _ours_stored(work: Path) -> Any:
    from dataclasses import replace

    from forecasting.experiment import run
    from forecasting.predictor import Predictor

    config = _config()
    training = replace(config.training, max_epochs=1)
    outcome = run(config.of(training=training, baselines=[]), work / "artifact", visible=False)
    assert outcome is not None
    return Predictor.load(work / "artifact"), outcome.prepared.series


def _ours_forecast(work: Path) -> dict[str, float]:
    predictor, series = _ours_stored(work)
    return _median(lambda: predictor.forecast(series))


def _peer_forecast(work: Path) -> dict[str, float]:
    from neuralforecast import NeuralForecast

    frame, forecaster = _frame(), _peer(5)
    forecaster.fit(frame)
    forecaster.save(str(work / "model"), overwrite=True)
    loaded = NeuralForecast.load(str(work / "model"))
    return _median(lambda: loaded.predict(frame))


def _median(call: Callable[[], Any]) -> dict[str, float]:
    samples = []
    for turn in range(FORECASTS + 2):
        start = time.perf_counter()
        call()
        if turn >= 2:
            samples.append(time.perf_counter() - start)
    return {"seconds": statistics.median(samples)}


def _ours_backtest(work: Path) -> dict[str, float]:
    from forecasting.backtest import rolling_backtest

    predictor, series = _ours_stored(work)
    start = time.perf_counter()
    _, frame = rolling_backtest(predictor, series, "ETTh1", intervals=False, baseline=False)
    assert len(frame) == WINDOWS * 96 * 7
    return {"seconds": time.perf_counter() - start}


def _peer_backtest(work: Path) -> dict[str, float]:
    rows = _frame().query("ds < '2018-02-21'")
    # the peer trains inside its backtest: what one step of training takes, warm, is taken off
    for _ in range(2):
        start = time.perf_counter()
        _peer(1).fit(rows, val_size=96)
        training = time.perf_counter() - start
    start = time.perf_counter()
    frame = _peer(1).cross_validation(rows, n_windows=WINDOWS, step_size=1, val_size=96)
    assert len(frame) == WINDOWS * 96 * 7
    return {"seconds": time.perf_counter() - start - training}


def _peer(steps: int) -> Any:
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    from neuralforecast import NeuralForecast
    from neuralforecast.models import iTransformer

    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "enable_checkpointing": False,
    }
    model = iTransformer(
        h=96,
        input_size=96,
        n_series=7,
        hidden_size=256,
        n_heads=8,
        e_layers=2,
        d_ff=256,
        dropout=0.1,
        windows_batch_size=32,
        learning_rate=1e-4,
        max_steps=steps,
        scaler_type="identity",
        val_check_steps=10**6,
        accelerator="cpu",
        **quiet,
    )
    return NeuralForecast(models=[model], freq="h")


def _frame() -> Any:
    """ETTh1 in the long form of the peer."""
    import xarray as xr

    from datasets import sources

    series = sources.load("ETTh1").series
    assert isinstance(series, xr.Dataset)
    frame = series["value"].to_dataframe().reset_index()
    return frame.rename(columns={"variate": "unique_id", "time": "ds", "value": "y"})[
        ["unique_id", "ds", "y"]
    ].sort_values(["unique_id", "ds"], ignore_index=True)


CHILDREN: dict[str, Callable[[Path], dict[str, float]]] = {
    "ours-step": _ours_step,
    "peer-step": _peer_step,
    "ours-forecast": _ours_forecast,
    "peer-forecast": _peer_forecast,
    "ours-backtest": _ours_backtest,
    "peer-backtest": _peer_backtest,
}


if __name__ == "__main__":
    main()
