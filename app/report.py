"""The report of a run: one self-contained HTML page, and pictures of figures."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app import figures
from app.figures import style, table
from datasets.files import atomic_path

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

OWN_FILE = (
    ("Check the file: time stamps, gaps, text in number columns, sentinels.", "foretide data check mine.csv"),
    (
        "Train, score beside the baselines, and make the model the champion of its project.",
        "foretide train --data mine.csv --lookback 96 --horizon 48 --promote",
    ),
    (
        "Forecast what follows the last row, in original units with intervals.",
        "foretide forecast --data mine.csv --output forecast.parquet",
    ),
)
_TEMPLATES = Path(__file__).parent / "templates"
_TONES = {"better": "good", "worse": "bad", "no clear difference": "even"}
_ICONS = {
    "good": "M7 12.5l3.5 3.5 6.5-7.5",
    "bad": "M8 8l8 8M16 8l-8 8",
    "even": "M7.5 10h9M7.5 14h9",
    "plain": "M12 11v6M12 7v.5",
}
_TILES = {
    "skill_mae": "Skill, point",
    "skill_crps": "Skill, distribution",
    "mse": "MSE",
    "mae": "MAE",
    "coverage_80": "80 % interval",
    "coverage_95": "95 % interval",
}
_SECTIONS = (
    ("Forecast", "forecast"),
    ("Scores", "scores"),
    ("Data", "data"),
    ("Reproduce", "reproduce"),
    ("Your own file", "your-file"),
)
_RUN_FACTS = {
    "run_id": "Run",
    "started": "Started",
    "seconds": "Duration",
    "seed": "Seed",
    "device": "Device",
    "commit": "Commit",
    "config_digest": "Digest of the configuration",
}
_UNITS = {
    "h": "hour",
    "min": "minute",
    "s": "second",
    "D": "day",
    "W": "week",
    "MS": "month",
    "ME": "month",
    "QS": "quarter",
    "QE": "quarter",
    "YS": "year",
    "YE": "year",
}
_SHOWN_ROWS = 8


@dataclass(frozen=True)
class _Plot:
    key: str
    title: str
    caption: str
    json: str
    description: str
    height: int


@dataclass(frozen=True)
class _Tile:
    name: str
    value: str
    note: str


def write_report(
    target: str | Path,
    *,
    title: str,
    sentence: str,
    forecast: "xr.Dataset",
    history: "xr.Dataset",
    metrics: Mapping[str, Any],
    quality: Mapping[str, Any],
    run: Mapping[str, Any],
    config: Mapping[str, Any],
    naive: "xr.Dataset | None" = None,
    check: "xr.Dataset | None" = None,
    check_naive: "xr.Dataset | None" = None,
    variate: str | None = None,
    files: Sequence[str] = (),
    commands: Sequence[tuple[str, str]] = OWN_FILE,
) -> Path:
    """Writes the report of a run as one HTML file that loads nothing from the network.

    Args:
        target: The HTML file; replaced in one step.
        title: Headline, such as the dataset and the horizon.
        sentence: The verdict in one plain sentence.
        forecast: ``forecast (time, variate)``, ``quantile (time, variate, level)``; ``attrs["model"]``.
        history: Canonical series up to the forecast; it covers the time of ``check`` too.
        metrics: Content of ``metrics.json``.
        quality: ``QualityReport.to_dict()``.
        run: Content of ``run.json``.
        config: The plain configuration of the run.
        naive: Seasonal-naive forecast beside ``forecast``.
        check, check_naive: The same for a stretch of the test part, drawn with what happened.
        variate: The one shown first.
        files: Names of data files beside the report, to link to.
        commands: What a reader runs on data of their own, with a sentence before each.

    Raises:
        ForetideError: The file cannot be written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    model = _model(forecast)
    plots = {
        **_forecast_plots(forecast, history, naive, check, check_naive, variate),
        **{plot.key: plot for plot in _score_plots(metrics, model, _step(forecast))},
        **_data_plots(history),
    }
    context = {
        "title": title,
        "sentence": sentence,
        "model": model,
        "plots": plots,
        "files": list(files),
        "commands": commands,
        "sections": _SECTIONS,
        "color": style.color,
        "verdict": _verdict(metrics, model),
        "tiles": _tiles(metrics, model),
        **_scores(metrics),
        **_data(history, quality, metrics),
        **_reproduction(run, config),
        **_leads(forecast, metrics, run),
        "tokens": json.dumps(style.DARK),
        "plotly": get_plotlyjs(),
    }
    templates = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = templates.get_template("report.html").render(context)
    with atomic_path(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(target)


def write_picture(target: str | Path, figure: "go.Figure", width: int = 1400, height: int = 800) -> bool:
    """Writes a figure as PNG where a Chromium or Chrome is found and works, else says False; see `picture_hint`.

    Raises:
        ForetideError: The file cannot be written.
    """
    if browser() is None:
        return False
    try:
        image = figure.to_image(format="png", width=width, height=height)
    except (RuntimeError, OSError, TimeoutError):
        return False
    with atomic_path(target) as temporary:
        temporary.write_bytes(image)
    return True


def browser() -> str | None:
    """Path of the Chromium, Chrome or Edge that draws pictures, or None."""
    try:
        from choreographer.browsers.chromium import Chromium
    except ImportError:
        return None
    found = Chromium.find_browser(skip_local=False)
    return str(found) if found and Path(found).is_file() else None


def picture_hint() -> str:
    """One line that says how to get pictures where `write_picture` made none."""
    return "PNG pictures need a Chromium: apt-get install chromium (Debian, Ubuntu), or plotly_get_chrome (anywhere)"


def _forecast_plots(
    forecast: "xr.Dataset",
    history: "xr.Dataset",
    naive: "xr.Dataset | None",
    check: "xr.Dataset | None",
    check_naive: "xr.Dataset | None",
    variate: str | None,
) -> dict[str, _Plot | None]:
    ahead = _plot(
        "forecast",
        "What comes next",
        "Each shaded interval should hold the actual value in that share of cases."
        + (" The dashed line is seasonal naive: the last season repeated." if naive is not None else ""),
        figures.forecasts(history, forecast, naive=naive, selected=variate),
    )
    if check is None:
        return {"forecast": ahead, "check": None}
    back = _plot(
        "check",
        "Checked on data it never saw",
        "A window at the end of the test part: what the model would have said, and what happened.",
        figures.forecasts(history, check, naive=check_naive, selected=variate, last=168),
    )
    return {"forecast": ahead, "check": back}


def _score_plots(metrics: Mapping[str, Any], model: str, step: str) -> Iterator[_Plot]:
    if metrics.get("comparison"):
        yield _plot(
            "comparison",
            "Better, or only luck?",
            "Difference of error with its 95 % block-bootstrap "
            "interval. An interval left of zero means clearly better.",
            figures.comparison(metrics),
        )
    if style.REFERENCE in metrics["scores"] and len(metrics["scores"]) > 1:
        yield _plot(
            "skill",
            "Skill",
            "By how much the error is lower than that of seasonal naive, the dashed line.",
            figures.skill_bars(metrics),
        )
    if metrics.get("by_step"):
        yield _plot(
            "error-by-step",
            "Error by horizon step",
            "Errors usually grow with the distance.",
            figures.error_by_step(metrics, step=step),
        )
        yield _plot(
            "coverage-by-step",
            "Coverage by horizon step",
            "On the dotted line the intervals are honest; below it too narrow, above it too wide.",
            figures.coverage_by_step(metrics, step=step),
        )
    if len(metrics.get("by_variate", {}).get(model, {}).get("mae", {})) > 1:
        yield _plot(
            "error-by-variate",
            "Error by variate",
            "By how much the absolute error is lower than that of seasonal naive, the dashed line.",
            figures.error_by_variate(metrics, model),
        )
    if metrics.get("training", {}).get("epochs"):
        yield _plot(
            "training",
            "Training",
            "The weights of the epoch with the lowest validation loss were kept.",
            figures.training_curve(metrics),
        )


def _data_plots(history: "xr.Dataset") -> dict[str, _Plot | None]:
    shown, total = min(8, history.sizes["variate"]), history.sizes["variate"]
    rows = "All rows" if history.sizes["time"] <= style.MAX_POINTS else "All rows, thinned so that every peak survives"
    overview = _plot(
        "overview",
        "The series",
        f"{rows}; the first {shown} of {total} variates." if shown < total else f"{rows}.",
        figures.overview(history),
    )
    if np.isfinite(history["value"].values).all():
        return {"overview": overview, "missing": None}
    return {
        "overview": overview,
        "missing": _plot(
            "missing", "Missing values", "Share of missing values by variate and time.", figures.missing_map(history)
        ),
    }


def _plot(key: str, title: str, caption: str, figure: "go.Figure") -> _Plot:
    text = figure.to_json().replace("<", "\\u003c")
    return _Plot(key, title, caption, text, figure.layout.meta["description"], int(figure.layout.height))


def _verdict(metrics: Mapping[str, Any], model: str) -> dict[str, str]:
    found = next(
        (
            entry["verdict"]
            for entry in metrics.get("comparison", [])
            if entry["model"] == model and entry["baseline"] == style.REFERENCE
        ),
        "",
    )
    tone = _TONES.get(found, "plain")
    return {"tone": tone, "icon": _ICONS[tone]}


def _tiles(metrics: Mapping[str, Any], model: str) -> list[_Tile]:
    own, naive = metrics["scores"].get(model, {}), metrics["scores"].get(style.REFERENCE, {})
    columns = {score.key: score for score in table.SCORES}
    return [
        _Tile(name, columns[key].text(own[key]), _note(columns[key], own[key], naive.get(key)))
        for key, name in _TILES.items()
        if key in own
    ]


def _note(score: table.Score, value: float, naive: float | None) -> str:
    if score.style == "signed":
        return f"{'lower' if value >= 0 else 'higher'} error than seasonal naive"
    if score.style == "percent":
        return "of actual values were inside"
    return "published scale" + (f"; naive {score.text(naive)}" if naive is not None else "")


def _scores(metrics: Mapping[str, Any]) -> dict[str, Any]:
    columns = table.columns(metrics)
    edges = [row for row, score in enumerate(columns) if row == 0 or score.group != columns[row - 1].group]
    widths = [end - first for first, end in zip(edges, [*edges[1:], len(columns)], strict=True)]
    return {
        "columns": columns,
        "rows": table.rows(metrics),
        "edges": edges,
        "groups": [(columns[first].group, width) for first, width in zip(edges, widths, strict=True)],
    }


def _data(history: "xr.Dataset", quality: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    missing = int(np.isnan(history["value"].values).sum())
    findings = [{**finding, "rows": _rows(finding["rows"])} for finding in quality.get("findings", [])]
    blocking = sum(finding["blocking"] for finding in findings)
    lead = f"{_count(len(findings), 'finding')}, of which {blocking or 'none'} needed a repair."
    windows = ", ".join(f"{name} {count:,}" for name, count in metrics.get("windows", {}).items())
    facts = [
        ("Source", history.attrs.get("source", "")),
        ("Rows", f"{history.sizes['time']:,}"),
        ("Variates", f"{history.sizes['variate']:,}"),
        ("From", _stamp(history["time"].values[0])),
        ("To", _stamp(history["time"].values[-1])),
        ("Step", _step(history)),
        ("Time zone", history.attrs.get("time_zone", "")),
        ("Missing values", f"{missing:,}" if missing else "none"),
        ("Columns not used", ", ".join(quality.get("unused", []))),
        ("Windows", windows),
        ("SHA-256 of the content", history.attrs.get("checksum", "")),
    ]
    return {
        "data_lead": lead if findings else "Every check passed.",
        "data_facts": facts,
        "findings": findings,
        "repairs": json.loads(history.attrs.get("repairs", "[]")),
    }


def _reproduction(run: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    import yaml

    facts = [
        (name, _duration(run[key]) if key == "seconds" else run[key])
        for key, name in _RUN_FACTS.items()
        if run.get(key) is not None
    ]
    versions = {
        str(name): str(version) for name, version in run.get("versions", {}).items() if version != "not installed"
    }
    return {
        "run_command": run.get("command", ""),
        "run_id": run.get("run_id", ""),
        "run_facts": facts,
        "versions": list(versions.items()),
        "version": versions.get("foretide", ""),
        "configuration": yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True),
    }


def _leads(forecast: "xr.Dataset", metrics: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, str]:
    first, final = _stamp(forecast["time"].values[0]), _stamp(forecast["time"].values[-1])
    steps = f"{_count(forecast.sizes['time'], 'step')}{f' of {_step(forecast)}' if _step(forecast) else ''}"
    windows = metrics.get("windows", {}).get("test")
    counted = f": {windows:,} windows, none dropped." if windows else "."
    kicker = (style.label(_model(forecast)), steps, str(run.get("started", ""))[:10])
    return {
        "kicker": " · ".join(filter(None, kicker)),
        "forecast_lead": f"{steps}, from {first} to {final}, in original units.",
        "scores_lead": "Measured on the test part, which comes after everything that the model was trained and "
        f"selected on{counted}",
    }


def _model(forecast: "xr.Dataset") -> str:
    return str(forecast.attrs.get("model", "model"))


def _step(data: "xr.Dataset") -> str:
    """The grid step in words, where the alias is a common one."""
    alias = str(data.attrs.get("frequency", ""))
    digits = "".join(character for character in alias if character.isdigit())
    unit = _UNITS.get(alias.removeprefix(digits).split("-")[0])
    return _count(int(digits or 1), unit) if unit else alias


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _rows(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows[:_SHOWN_ROWS])) + (", …" if len(rows) > _SHOWN_ROWS else "")


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds) or seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _stamp(time: np.datetime64) -> str:
    return str(np.datetime_as_string(time, unit="m")).replace("T", " ")
