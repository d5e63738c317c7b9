"""The demonstration: from a real series to a scored, registered forecast and a report, in one command."""

import json
import warnings
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.actions.training import TrainResult, register_run, result_of, titles, train_and_log
from datasets.errors import ForetideError

if TYPE_CHECKING:
    import xarray

    from forecasting.experiment import Outcome
    from forecasting.protocol import Prepared

CONFIG = "itransformer/ETTh1_96.yaml"
SHOWN = "OT"


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration made."""

    train: TrainResult
    files: dict[str, Path | str]
    seconds: float

    def __str__(self) -> str:
        from app.report import OWN_FILE
        from app.tables import text_facts

        champion = f"Version {self.train.version} of project {self.train.project} is its champion."
        lines = [
            self.train.sentence,
            "",
            f"{champion} Done in {self.seconds:.0f} s.",
            "",
            text_facts({name: str(path) for name, path in self.files.items()}),
            "",
            "The same on your own file:",
        ]
        lines += [f"  {command:<70}  {purpose}" for purpose, command in OWN_FILE]
        return "\n".join(lines)


def demo(output: Path = Path("foretide-demo")) -> DemoResult:
    """Trains iTransformer on the ETTh1 sample, scores and registers it, forecasts the next 96 hours, writes a report.

    Args:
        output: Folder for the forecast, the report and the picture.
    """
    from app.tables import SCORE_NOTE, score_table
    from datasets.files import atomic_path, ensure_writable
    from forecasting.config import read_config
    from forecasting.record import Stages

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        ensure_writable(output / "report.html")
        stages = Stages()
        run = read_config(Path(str(files("configs") / CONFIG)))
        print(
            f"Foretide demo: {titles([run.model])[run.model]} on {run.data}, lookback {run.lookback}, "
            f"horizon {run.horizon} hours"
        )
        outcome = train_and_log(run, stages=stages)
        if outcome is None:
            raise ForetideError("demo: runs in one process; start it without a launcher for several devices")
        result = result_of(outcome, register_run(outcome, promote=True))
        scores = result.metrics["scores"]
        print(_data_line(outcome.prepared), "", score_table(scores, titles(scores)), SCORE_NOTE, "", sep="\n")
        with stages.stage("forecast"):
            made = _forecasts(outcome)
        with stages.stage("report"):
            written = _write(output, outcome, result, made)
        with atomic_path(output / "stages.json") as temporary:
            temporary.write_text(json.dumps(stages.rows, indent=2) + "\n", encoding="utf-8")
        return DemoResult(result, written, sum(row["seconds"] for row in stages.rows))


@dataclass(frozen=True)
class _Forecasts:
    """The forecast after the end of the file, and one inside the test part, each with seasonal naive beside it."""

    future: "xarray.Dataset"
    future_naive: "xarray.Dataset"
    check: "xarray.Dataset"
    check_naive: "xarray.Dataset"


def _forecasts(outcome: "Outcome") -> _Forecasts:
    from forecasting.predictor import Predictor, naive_forecast

    prepared = outcome.prepared
    predictor = Predictor.load(outcome.folder)
    series: Any = prepared.series
    known = series.isel(time=slice(0, prepared.borders[0].test[1] - prepared.horizon))
    arguments = (prepared.lookback, prepared.horizon, prepared.season)
    return _Forecasts(
        predictor.forecast(series),
        naive_forecast(series, *arguments),
        predictor.forecast(known),
        naive_forecast(known, *arguments),
    )


def _write(output: Path, outcome: "Outcome", result: TrainResult, made: _Forecasts) -> dict[str, Path | str]:
    from app import figures
    from app.destinations import write_forecast
    from app.report import picture_hint, write_picture, write_report

    stored, prepared = outcome.artifact, outcome.prepared
    history: Any = prepared.series
    written: dict[str, Path | str] = {
        "forecast (Parquet)": write_forecast(made.future, output / "forecast.parquet"),
        "forecast (NetCDF)": write_forecast(made.future, output / "forecast.nc"),
        "report": write_report(
            output / "report.html",
            title=f"{prepared.title}: the next {prepared.horizon} hours",
            sentence=result.sentence,
            forecast=made.future,
            history=history,
            metrics=stored.metrics,
            quality=prepared.report,
            run=stored.run,
            config=stored.config,
            naive=made.future_naive,
            check=made.check,
            check_naive=made.check_naive,
            variate=SHOWN,
            files=["forecast.parquet", "forecast.nc"],
        ),
    }
    figure = figures.forecast_picture(history, made.future, SHOWN, sentence=result.sentence)
    picture = output / "forecast.png"
    written["picture"] = picture if write_picture(picture, figure) else picture_hint()
    written["model"] = outcome.folder
    return written


def _data_line(prepared: "Prepared") -> str:
    report = prepared.report
    findings = report.get("findings")
    count = len(findings) if isinstance(findings, list) else 0
    said = f"{count} remark{'s' * (count > 1)}, see the report" if count else "nothing to remark"
    return (
        f"data: {report['rows']} rows, {report['first']} to {report['last']}, every {prepared.panel.frequency}; "
        f"check: {said}"
    )
