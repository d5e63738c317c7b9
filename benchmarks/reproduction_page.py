"""The page about reproduced tables: ``docs/reproduction.md`` between its two marks, and a figure for each dataset."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, Record
from benchmarks.reproduction import NAIVE, Case
from datasets.files import atomic_path

DOCS = ROOT / "docs"
PAGE = "reproduction.md"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
THEIRS = " without the last incomplete batch"
WIDTH = 900

Results = Mapping[str, Sequence[Record]]


def write_page(results: Results, docs: Path = DOCS) -> bool:
    """Writes the part of the page between the marks, and the figures; False where no browser draws them."""
    path = docs / PAGE
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    drawn = [_draw(dataset, results, docs) for dataset in datasets(results)]
    text = "\n\n".join([before + BEGIN, *sections(results), END + after])
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return all(drawn)


def datasets(results: Results) -> list[str]:
    """The datasets that there are results on, in alphabetical order."""
    return sorted({Case.of(record.case).dataset for own in results.values() for record in own}, key=str.lower)


def sections(results: Results) -> Iterator[str]:
    """The generated part of the page, paragraph by paragraph."""
    every = [record for own in results.values() for record in own]
    if not every:
        yield "Nothing has been measured yet."
        return
    met, missed = ([r for r in every if r.verdict == verdict] for verdict in ("met", "missed"))
    yield f"{len(met)} of {len(met) + len(missed)} targets are met. Devices: {', '.join(_devices(every))}."
    yield from _missed(results)
    for dataset in datasets(results):
        yield f"### {dataset}"
        yield f"![MSE and MAE on {dataset} in percent above the published scores](images/reproduction_{dataset}.png)"
        yield _table(_score_rows(dataset, results))
        yield _table(_interval_rows(dataset, results))
    yield "### Where the published scores come from"
    yield "\n".join(_sources(results))


def picture_rows(dataset: str, results: Results) -> list[dict[str, Any]]:
    """What the figure of a dataset shows; see `app.figures.reproduction`."""
    return [
        {
            "model": model,
            "name": _horizon(case),
            "metric": record.metric.lower(),
            "published": record.peer_value,
            "value": record.value,
            "spread": record.spread,
        }
        for model, case, found in _cases(dataset, results)
        for record in (found[metric] for metric in ("MSE", "MAE") if metric in found)
    ]


def _draw(dataset: str, results: Results, docs: Path) -> bool:
    from app import figures
    from app.figures.style import SURFACE
    from app.report import write_picture

    figure = figures.reproduction(picture_rows(dataset, results)).update_layout(paper_bgcolor=SURFACE)
    target = docs / "images" / f"reproduction_{dataset}.png"
    return write_picture(target, figure, width=WIDTH, height=figure.layout.height)


def _cases(dataset: str, results: Results) -> Iterator[tuple[str, Case, dict[str, Record]]]:
    """The records of each case on a dataset, by metric."""
    for model, own in results.items():
        by_case: dict[str, dict[str, Record]] = {}
        for record in own:
            by_case.setdefault(record.case, {})[record.metric] = record
        for text, found in by_case.items():
            if (case := Case.of(text)).dataset == dataset:
                yield model, case, found


def _score_rows(dataset: str, results: Results) -> Iterator[list[str]]:
    theirs = any(record.metric.endswith(THEIRS) for own in results.values() for record in own)
    yield [
        "model",
        "horizon",
        "seeds",
        *(f"{metric} {column}" for metric in ("MSE", "MAE") for column in ("published", "measured", "ratio")),
        *(["MSE / MAE their way"] if theirs else []),
        "windows",
        "seconds",
        "targets",
    ]
    for model, case, found in _cases(dataset, results):
        row = [_title(model), _horizon(case), str(case.seeds)]
        for metric in ("MSE", "MAE"):
            record = found[metric]
            assert record.peer_value
            row += [f"{record.peer_value:.3f}", _value(record), f"{record.value / record.peer_value:.3f}"]
        if theirs:
            way = [found.get(metric + THEIRS) for metric in ("MSE", "MAE")]
            row.append(" / ".join(f"{record.value:.4f}" for record in way if record))
        windows, seconds = found.get("test windows"), found.get("run, beside others")
        row += [f"{windows.value:,.0f}" if windows else "", f"{seconds.value:.0f}" if seconds else ""]
        verdicts = {found[metric].verdict for metric in ("MSE", "MAE")} - {"no target"}
        yield [*row, "missed" if "missed" in verdicts else "met" if verdicts else "–"]


def _interval_rows(dataset: str, results: Results) -> Iterator[list[str]]:
    bands = (80, 95)
    yield [
        "model",
        "horizon",
        *(f"{percent} % band covers" for percent in bands),
        *(f"off by step, {percent} %" for percent in bands),
        "CRPS",
        f"CRPS of {NAIVE}",
        "targets",
    ]
    for model, case, found in _cases(dataset, results):
        if case.horizon is None:
            continue
        off = [found[f"|coverage - {percent} %|, mean over steps"] for percent in bands]
        crps = found["CRPS in original units"]
        verdicts = {record.verdict for record in off} - {"no target"}
        yield [
            _title(model),
            _horizon(case),
            *(f"{found[f'coverage of the {percent} % band'].value:.1f} %" for percent in bands),
            *(f"{record.value:.1f} points" for record in off),
            f"{crps.value:.4f}",
            f"{crps.peer_value:.4f}",
            "missed" if "missed" in verdicts else "met" if verdicts else "–",
        ]


def _missed(results: Results) -> Iterator[str]:
    rows = [
        [_title(model), record.case, record.metric, _value(record), str(record.target)]
        for model, own in results.items()
        for record in own
        if record.verdict == "missed"
    ]
    if rows:
        yield "Missed:"
        yield _table([["model", "case", "figure", "measured", "target"], *rows])


def _sources(results: Results) -> Iterator[str]:
    """A line for each published table, with what one must know to compare with it."""
    from forecasting import published

    for model, own in results.items():
        cases = {(case.dataset, "S" if case.alone else "M") for case in (Case.of(record.case) for record in own)}
        cells = [cell for cell in published.scores(model) if (cell.dataset, cell.features) in cases]
        for source in dict.fromkeys(cell.source for cell in cells):
            about = [cell for cell in cells if cell.source == source]
            names = ", ".join(dict.fromkeys(cell.dataset for cell in about))
            notes = [f"{_title(model)} on {names}: {source}"]
            if about[0].dropped:
                notes.append(f"the last incomplete batch of {about[0].dropped} test windows was left out")
            yield "- " + "; ".join([*notes, *filter(None, [about[0].note])]) + "."


def _table(rows: Iterator[list[str]] | list[list[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _value(record: Record) -> str:
    return f"{record.value:.4f}" + (f" ± {record.spread:.4f}" if record.spread is not None else "")


def _horizon(case: Case) -> str:
    name = "average" if case.horizon is None else str(case.horizon)
    return f"{name}, target alone" if case.alone else name


def _title(model: str) -> str:
    from app.figures import label

    return label(model)


def _devices(records: Sequence[Record]) -> list[str]:
    return sorted({record.device for record in records if record.device})
