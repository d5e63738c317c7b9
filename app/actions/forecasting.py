"""Forecasts, scores and backtests of stored models."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.errors import ForetideError
from datasets.quality import QualityOptions
from datasets.readers import ReaderOptions

if TYPE_CHECKING:
    import polars
    import xarray

    from forecasting.predictor import Predictor
    from forecasting.protocol import Series

READER, QUALITY = ReaderOptions(), QualityOptions()


@dataclass(frozen=True)
class ForecastResult:
    """A forecast, and the file that holds it."""

    forecast: "xarray.Dataset"
    output: Path | None
    label: str

    def __str__(self) -> str:
        from app.destinations import to_frame
        from app.tables import text_table

        frame = to_frame(self.forecast)
        lead = "unique_id" if "unique_id" in frame.columns else "variate"
        columns = [lead, "ds", "forecast", "lower_80", "upper_80", "unit"]
        rows = [[str(row[0]), str(row[1])[:16], *(f"{x:.4g}" for x in row[2:5]), str(row[5])] for row in frame.select(columns).head(8).rows()]
        where = f"wrote {self.output}" if self.output else "nothing was written; name a file with --output"
        return "\n".join([f"forecast of {self.label} after {self.forecast.attrs['origin']}", text_table(columns, rows, left=2),
                          f"… {len(frame):,} rows in all; {where}"])


def forecast(data: str, model: str = "champion", horizon: int | None = None, output: Path | None = None, project: str | None = None,
             samples: int = 0, reader: ReaderOptions = READER, quality: QualityOptions = QUALITY,
             device: str = "cpu") -> ForecastResult:
    """Forecasts what follows the last row of the data, in original units, with 50, 80 and 95 % intervals.

    Args:
        data: File, folder, database URL or catalogued dataset that reaches up to now.
        model: champion, another alias, a version, a run, or the folder of an artifact.
        horizon: Steps; by default as many as the model was trained for.
        output: Where to write: .parquet, .csv or .nc.
        project: Whose champion; by default the one project that fits the data.
        samples: Sample paths to draw besides, kept in .nc files.
        reader: How to read the data; by default as in training.
        quality: What to do about problems in the data; by default as in training.
        device: Where the model runs: cpu or cuda.
    """
    from app.destinations import check_output, write_forecast

    if output:
        check_output(output)
    series, predictor, label = _load(data, model, project, reader, quality, device)
    made = predictor.forecast(series, horizon, samples)
    return ForecastResult(made, write_forecast(made, output) if output else None, label)


def _load(data: str, model: str, project: str | None, reader: ReaderOptions, quality: QualityOptions,
          device: str) -> "tuple[Series, Predictor, str]":
    """The data and the model; either may be needed to find the other."""
    from app.references import find_model
    from datasets import sources
    from forecasting.config import RunConfig
    from forecasting.predictor import Predictor

    early = None
    try:
        early = find_model(model, project)
    except ForetideError:
        # an alias that several projects have is settled by the data
        if project:
            raise
    if early:
        predictor = Predictor.load(early.folder, device)
        stored: RunConfig = predictor.config
        # options that were not given are those of the training
        loaded = sources.load(data, stored.reader if reader == READER else reader, stored.quality if quality == QUALITY else quality)
        return loaded.series, predictor, early.label
    series = sources.load(data, reader, quality).series
    found = find_model(model, project, series)
    return series, Predictor.load(found.folder, device), found.label


@dataclass(frozen=True)
class EvaluateResult:
    """Scores of a stored model on the test part of a dataset."""

    metrics: dict[str, Any]
    label: str
    windows: int

    def __str__(self) -> str:
        from app.actions.training import titles
        from app.tables import score_table

        return "\n".join([score_table(self.metrics["scores"], titles(self.metrics["scores"])),
                          f"{self.label} on {self.windows:,} test windows"])


def evaluate(data: str, model: str = "champion", project: str | None = None, reader: ReaderOptions = READER,
             quality: QualityOptions = QUALITY, device: str = "cpu", output: Path | None = None) -> EvaluateResult:
    """Scores a stored model on every window of the test part, beside seasonal naive, without training.

    The split is that of the training; scaling and intervals are those of the model.

    Args:
        data: The dataset, mostly that of the training, or another with the same variates.
        model: champion, another alias, a version, a run, or the folder of an artifact.
        project: Whose champion; by default the one project that fits the data.
        reader: How to read the data; by default as in training.
        quality: What to do about problems in the data; by default as in training.
        device: Where the model runs: cpu or cuda.
        output: Write the scores as JSON to this file.
    """
    import json

    from datasets.files import atomic_path
    from forecasting.backtest import evaluate_stored

    series, predictor, label = _load(data, model, project, reader, quality, device)
    metrics = evaluate_stored(predictor, series, data)
    if output:
        with atomic_path(output) as temporary:
            temporary.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return EvaluateResult(metrics, label, metrics["windows"]["test"])


@dataclass(frozen=True)
class BacktestResult:
    """A rolling-origin backtest: scores, and every forecast as a frame."""

    metrics: dict[str, Any]
    frame: "polars.DataFrame"
    output: Path | None
    label: str

    def __str__(self) -> str:
        from app.actions.training import titles
        from app.tables import score_table

        where = f"every forecast is in {self.output}" if self.output else "name a file with --output to keep every forecast"
        lines = [score_table(self.metrics["scores"], titles(self.metrics["scores"]))]
        lines += [f"{row['model']} against {row['baseline']}, {row['metric'].upper()}: {row['difference']:+.4f} "
                  f"({row['lower']:+.4f} to {row['upper']:+.4f}), {row['verdict']}" for row in self.metrics["comparison"]]
        return "\n".join([*lines, f"{self.label}: {self.metrics['windows']['test']:,} origins, {len(self.frame):,} rows; {where}"])


def backtest(data: str, model: str = "champion", project: str | None = None, stride: int = 1, origins: int | None = None, refits: int = 0,
             intervals: bool = True, baseline: bool = True, output: Path | None = None, reader: ReaderOptions = READER, quality: QualityOptions = QUALITY,
             device: str = "cpu") -> BacktestResult:
    """Forecasts from rolling origins over the test part, with or without training anew, and scores them beside seasonal naive.

    Args:
        data: The dataset.
        model: champion, another alias, a version, a run, or the folder of an artifact.
        project: Whose champion; by default the one project that fits the data.
        stride: Rows between two origins.
        origins: Only the last so many origins.
        refits: How often the model is trained anew, on all rows before each equal share of the test part; 0 never.
        intervals: Make and score intervals.
        baseline: Score seasonal naive beside the model.
        output: Write every forecast to this file: .parquet or .csv.
        reader: How to read the data; by default as in training.
        quality: What to do about problems in the data; by default as in training.
        device: Where the model runs: cpu or cuda.
    """
    from app.destinations import check_output
    from datasets.files import atomic_path
    from forecasting.backtest import rolling_backtest

    if output:
        check_output(output)
        if output.suffix.lower() == ".nc":
            raise ForetideError(f"--output: found {output.name!r}, expected a name that ends in .parquet or .csv")
    series, predictor, label = _load(data, model, project, reader, quality, device)
    metrics, frame = rolling_backtest(predictor, series, data, stride=stride, origins=origins, refits=refits, intervals=intervals,
                                      baseline=baseline)
    if output:
        with atomic_path(output) as temporary:
            (frame.write_csv if output.suffix.lower() == ".csv" else frame.write_parquet)(temporary)
    return BacktestResult(metrics, frame, output, label)
