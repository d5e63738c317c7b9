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
_SHOWN_GROUPS, _SHOWN_STEPS = 4, 3


@dataclass(frozen=True)
class ForecastResult:
    """A forecast, and the file that holds it."""

    forecast: "xarray.Dataset"
    output: Path | None
    label: str

    def __str__(self) -> str:
        from app.destinations import to_frame
        from app.tables import decimals, plain_time, text_table

        frame = to_frame(self.forecast)
        lead = "unique_id" if "unique_id" in frame.columns else "variate"
        rows = []
        groups = frame.partition_by(lead, maintain_order=True)
        for group in groups[:_SHOWN_GROUPS]:
            few = group.head(_SHOWN_STEPS).select(lead, "ds", "forecast", "lower_80", "upper_80", "unit").rows()
            places = decimals([number for row in few for number in row[2:5]])
            rows += [
                [str(row[0]), plain_time(row[1]), *(f"{number:.{places}f}" for number in row[2:5]), str(row[5])]
                for row in few
            ]
        where = f"all are in {self.output}" if self.output else "nothing was written; name a file with --output"
        return "\n".join(
            [
                f"forecast by {self.label} of what follows {plain_time(self.forecast.attrs['origin'])}",
                "",
                text_table([lead, "time", "forecast", "80 % from", "to", "unit"], rows, left=2),
                "",
                f"{len(rows):,} of {len(frame):,} rows ({len(groups[0]):,} steps of {len(groups):,} series); {where}",
            ]
        )


def forecast(
    data: str,
    model: str = "champion",
    horizon: int | None = None,
    output: Path | None = None,
    project: str | None = None,
    samples: int = 0,
    reader: ReaderOptions = READER,
    quality: QualityOptions = QUALITY,
    device: str = "cpu",
) -> ForecastResult:
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
        device: Where the model runs: cpu, cuda, or one of several GPUs such as cuda:1.
    """
    from app.destinations import check_output, write_forecast

    if samples < 0:
        raise ForetideError(f"--samples: found {samples}, expected 0 or more")
    if samples and output and output.suffix.lower() != ".nc":
        raise ForetideError(f"--output: found {output.name!r}, but sample paths are kept in .nc files only; name one")
    if output:
        check_output(output)
    series, predictor, label = _load(data, model, project, reader, quality, device)
    made = predictor.forecast(series, horizon, samples)
    return ForecastResult(made, write_forecast(made, output) if output else None, label)


def _load(
    data: str, model: str, project: str | None, reader: ReaderOptions, quality: QualityOptions, device: str
) -> "tuple[Series, Predictor, str]":
    """The data and the model; either may be needed to find the other. Options not given are those of the training."""
    from app.references import Reference, find_model
    from datasets import sources
    from datasets.options import overlaid
    from forecasting.predictor import Predictor

    check_device(device)
    loaded: list[tuple[ReaderOptions, QualityOptions, Series]] = []

    def read(reference: Reference) -> "Series":
        stored = reference.config
        options = overlaid(reader, stored.reader), overlaid(quality, stored.quality)
        for *known, series in loaded:
            if tuple(known) == options:
                return series
        loaded.append((*options, sources.load(data, *options).series))
        return loaded[-1][2]

    found = find_model(model, project, read)
    return read(found), Predictor.load(found.folder, device), found.label


def check_device(device: str) -> None:
    """Refuses a device that is not there, before anything is read.

    Raises:
        ForetideError: Says which devices are.
    """
    import torch

    count = torch.cuda.device_count()
    there = ["cpu", "cuda", *(f"cuda:{index}" for index in range(count))] if count else ["cpu"]
    if device not in there:
        reason = "" if count else ", because no GPU is visible; see 'foretide doctor'"
        raise ForetideError(f"--device: found {device!r}, expected {' or '.join(there)}{reason}")


@dataclass(frozen=True)
class EvaluateResult:
    """Scores of a stored model on the test part of a dataset."""

    metrics: dict[str, Any]
    label: str
    windows: int

    def __str__(self) -> str:
        from app.actions.training import titles
        from app.tables import SCORE_NOTE, score_table

        return "\n".join(
            [
                score_table(self.metrics["scores"], titles(self.metrics["scores"])),
                SCORE_NOTE,
                "",
                f"{self.label} on {self.windows:,} test windows",
            ]
        )


def evaluate(
    data: str,
    model: str = "champion",
    project: str | None = None,
    reader: ReaderOptions = READER,
    quality: QualityOptions = QUALITY,
    device: str = "cpu",
    output: Path | None = None,
) -> EvaluateResult:
    """Scores a stored model on every window of the test part, beside seasonal naive, without training.

    The split is that of the training; scaling and intervals are those of the model.

    Args:
        data: The dataset, mostly that of the training, or another with the same variates.
        model: champion, another alias, a version, a run, or the folder of an artifact.
        project: Whose champion; by default the one project that fits the data.
        reader: How to read the data; by default as in training.
        quality: What to do about problems in the data; by default as in training.
        device: Where the model runs: cpu, cuda, or one of several GPUs such as cuda:1.
        output: Write the scores as JSON to this file.
    """
    import json

    from datasets.files import atomic_path, ensure_writable
    from forecasting.backtest import evaluate_stored

    if output:
        ensure_writable(output)
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
        from app.tables import SCORE_NOTE, difference_table, score_table

        names, differences = titles(self.metrics["scores"]), self.metrics["comparison"]
        where = f"every forecast is in {self.output}" if self.output else "name a file with --output to keep them all"
        return "\n".join(
            [
                score_table(self.metrics["scores"], names),
                SCORE_NOTE,
                "",
                *([difference_table(differences, names), ""] if differences else []),
                f"{self.label}: {self.metrics['windows']['test']:,} origins, {len(self.frame):,} forecasts; {where}",
            ]
        )


def backtest(
    data: str,
    model: str = "champion",
    project: str | None = None,
    stride: int = 1,
    origins: int | None = None,
    refits: int = 0,
    intervals: bool = True,
    baseline: bool = True,
    output: Path | None = None,
    reader: ReaderOptions = READER,
    quality: QualityOptions = QUALITY,
    device: str = "cpu",
) -> BacktestResult:
    """Forecasts from rolling origins over the test part, with or without training anew, and scores the forecasts.

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
        device: Where the model runs: cpu, cuda, or one of several GPUs such as cuda:1.
    """
    from app.destinations import check_output
    from datasets.files import atomic_path
    from forecasting.backtest import rolling_backtest

    if output:
        check_output(output)
        if output.suffix.lower() == ".nc":
            raise ForetideError(f"--output: found {output.name!r}, expected a name that ends in .parquet or .csv")
    series, predictor, label = _load(data, model, project, reader, quality, device)
    metrics, frame = rolling_backtest(
        predictor, series, data, stride=stride, origins=origins, refits=refits, intervals=intervals, baseline=baseline
    )
    if output:
        with atomic_path(output) as temporary:
            (frame.write_csv if output.suffix.lower() == ".csv" else frame.write_parquet)(temporary)
    return BacktestResult(metrics, frame, output, label)
