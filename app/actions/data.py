"""Looking at data: what the catalogue has, what a file holds, what is wrong with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.actions.done import Done
from datasets.errors import ForetideError
from datasets.quality import QualityOptions
from datasets.readers import ReaderOptions

READER, QUALITY = ReaderOptions(), QualityOptions()


@dataclass(frozen=True)
class DatasetList:
    """The catalogue, and which of its files are here."""

    rows: list[dict[str, Any]]
    root: Path

    def __str__(self) -> str:
        from app.tables import text_table

        head = ["name", "rows", "variates", "frequency", "season", "here", "licence"]
        body = [[str(row[column]) for column in head] for row in self.rows]
        return text_table(head, body) + f"\n\ndata folder: {self.root} (set FORETIDE_DATA to use another)"


def list_datasets() -> DatasetList:
    """Lists the catalogued datasets and says which of them are found here."""
    from datasets import catalog

    rows = []
    for entry in catalog.ENTRIES.values():
        try:
            catalog.locate(entry)
            here = "yes"
        except ForetideError:
            here = "no"
        rows.append({"name": entry.name, "title": entry.title, "rows": f"{entry.rows:,}" if entry.rows else "?",
                     "variates": f"{entry.series} series" if entry.series > 1 else entry.variates, "frequency": entry.frequency or "by group",
                     "season": entry.season, "here": here, "licence": entry.licence.split(";")[0][:40]})
    return DatasetList(rows, catalog.data_root())


@dataclass(frozen=True)
class Description:
    """What a dataset is: protocol and licence from the catalogue, extent and variates from the file."""

    facts: dict[str, str]
    variates: list[list[str]]

    def __str__(self) -> str:
        from app.tables import text_facts, text_table

        lines = text_facts(self.facts)
        if self.variates:
            lines += "\n\n" + text_table(["variate", "unit", "mean", "std", "min", "max", "missing"], self.variates)
        return lines


def describe(data: str, reader: ReaderOptions = READER) -> Description:
    """Describes a dataset: extent, frequency, variates, and for catalogued ones split, quirks, licence and publisher.

    Args:
        data: Name of a catalogued dataset, or a file, folder or database URL.
        reader: How to read a file.
    """
    from datasets import sources
    from datasets.schema import LongSeries

    loaded = sources.load(data, reader, QualityOptions(policy="mask"))
    entry, series = loaded.entry, loaded.series
    long = isinstance(series, LongSeries)
    attributes = series.__dict__ if isinstance(series, LongSeries) else series.attrs
    facts = {"name": str(attributes["title"]), "source": str(attributes["source"]), "sha256 of the content": str(attributes["checksum"]),
             "frequency": str(attributes["frequency"]), "extent": f"{loaded.report.first} to {loaded.report.last}",
             "rows": f"{loaded.report.rows:,}"}
    if entry:
        facts |= {"title": entry.title, "published split": str(entry.split or "none"), "licence": entry.licence, "publisher": entry.publisher}
        facts |= {f"quirk {number}": quirk for number, quirk in enumerate(entry.quirks, 1)}
    return Description(facts, [] if long else _variate_rows(series))


def _variate_rows(series: Any) -> list[list[str]]:
    import numpy as np

    rows = []
    for name in series["variate"].values:
        column = series["value"].sel(variate=name)
        values = column.values
        seen = values[np.isfinite(values)]
        numbers = [f"{number:.4g}" for number in (seen.mean(), seen.std(), seen.min(), seen.max())] if len(seen) else ["-"] * 4
        rows.append([str(name), str(column["unit"].values) or "-", *numbers, f"{len(values) - len(seen):,}"])
    return rows


@dataclass(frozen=True)
class CheckResult:
    """The quality report of a dataset."""

    report: Any

    def __str__(self) -> str:
        return str(self.report.to_text())


def check(data: str, reader: ReaderOptions = READER, quality: QualityOptions = QUALITY,
          output: Path | None = None) -> CheckResult:
    """Checks a dataset: gaps, duplicates, sentinels, text, constants, outliers, with row numbers. Changes nothing.

    Args:
        data: Name of a catalogued dataset, or a file, folder or database URL.
        reader: How to read a file.
        quality: Limits of the checks.
        output: Write the report as JSON to this file.
    """
    import json

    from datasets import quality as checks
    from datasets import sources
    from datasets.files import atomic_path

    report = checks.inspect(sources.open_table(data, reader), quality, reader.sentinels)
    if output:
        with atomic_path(output) as temporary:
            temporary.write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
    return CheckResult(report)


def export(data: str, output: Path, reader: ReaderOptions = READER, quality: QualityOptions = QUALITY) -> Done:
    """Writes a dataset, checked and repaired, as one NetCDF file that a compute node without polars can train on.

    Args:
        data: Name of a catalogued dataset, or a file, folder or database URL.
        output: The file, ending in .nc.
        reader: How to read a file.
        quality: What to do about problems in the data.
    """
    from datasets import canonical, sources
    from datasets.schema import LongSeries

    series = sources.load(data, reader, quality).series
    if isinstance(series, LongSeries):
        raise ForetideError(f"{data}: holds many series; only one table of variates can be exported")
    return Done(f"wrote {canonical.write(series, output)}: {series.sizes['time']:,} rows of {series.sizes['variate']} variates")
