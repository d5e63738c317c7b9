"""Looking at data: what the catalogue has, what a file holds, what is wrong with it."""

import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.actions.done import Done
from datasets.errors import ForetideError
from datasets.quality import QualityOptions
from datasets.readers import ReaderOptions

if TYPE_CHECKING:
    from datasets.quality import QualityReport

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
        rows.append(
            {
                "name": entry.name,
                "title": entry.title,
                "rows": f"{entry.rows:,}" if entry.rows else "?",
                "variates": f"{entry.series} series" if entry.series > 1 else entry.variates,
                "frequency": entry.frequency or "by group",
                "season": entry.season,
                "here": here,
                "licence": textwrap.shorten(entry.licence.split(";")[0], 40, placeholder=" …"),
            }
        )
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
    attributes = series.__dict__ if isinstance(series, LongSeries) else series.attrs
    facts = {
        "name": str(attributes["title"]),
        "source": str(attributes["source"]),
        "sha256 of the content": str(attributes["checksum"]),
        "frequency": str(attributes["frequency"]),
        "extent": f"{loaded.report.first} to {loaded.report.last}",
        "rows": f"{loaded.report.rows:,}",
    }
    if isinstance(series, LongSeries):
        facts["series"] = f"{series.frame['unique_id'].n_unique():,}"
    if entry:
        facts |= {
            "title": entry.title,
            "published split": _split(entry.split),
            "licence": entry.licence,
            "publisher": entry.publisher,
        }
        facts |= {f"quirk {number}": quirk for number, quirk in enumerate(entry.quirks, 1)}
    return Description(facts, [] if isinstance(series, LongSeries) else _variate_rows(series))


def _split(split: Any) -> str:
    if split is None:
        return "none"
    parts = [getattr(split, part) for part in ("train", "validation", "test")]
    shares = all(isinstance(part, float) for part in parts)
    names = zip(("training", "validation", "test"), parts, strict=True)
    return ", ".join(f"{name} {part:g}" if shares else f"{name} {part:,} rows" for name, part in names)


def _variate_rows(series: Any) -> list[list[str]]:
    """A row of statistics for each variate, or for each field of a grid."""
    if "variate" in series.dims:
        columns = [(str(name), series["value"].sel(variate=name)) for name in series["variate"].values]
        return [_statistics(name, str(column["unit"].values), column.values) for name, column in columns]
    rows = []
    for name, field in series.data_vars.items():
        sizes = ", ".join(f"{dim} {size}" for dim, size in field.sizes.items())
        rows.append(_statistics(f"{name} ({sizes})", str(field.attrs.get("units", "")), field.values))
    return rows


def _statistics(name: str, unit: str, values: Any) -> list[str]:
    import numpy as np

    seen = values[np.isfinite(values)]
    numbers = [f"{x:.4g}" for x in (seen.mean(), seen.std(), seen.min(), seen.max())] if seen.size else ["-"] * 4
    return [name, unit or "-", *numbers, f"{values.size - seen.size:,}"]


@dataclass(frozen=True)
class CheckResult:
    """The quality report of a dataset."""

    report: "QualityReport"

    def __str__(self) -> str:
        return self.report.to_text()


def check(
    data: str, reader: ReaderOptions = READER, quality: QualityOptions = QUALITY, output: Path | None = None
) -> CheckResult:
    """Checks a dataset: gaps, duplicates, sentinels, text, constants, outliers, with row numbers. Changes nothing.

    Args:
        data: Name of a catalogued dataset, or a file, folder or database URL.
        reader: How to read a file.
        quality: Limits of the checks.
        output: Write the report as JSON to this file.
    """
    import json

    from datasets.files import atomic_path, ensure_writable

    if output:
        ensure_writable(output)
    report = _report(data, reader, quality)
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
    written = canonical.write(series, output)
    return Done(f"wrote {written}: {series.sizes['time']:,} rows of {series.sizes['variate']} variates")


def _report(data: str, reader: ReaderOptions, quality: QualityOptions) -> "QualityReport":
    from datasets import catalog, readers, sources
    from datasets import quality as checks

    entry = catalog.known(data)
    by_itself = entry is not None and (entry.own_format or entry.form == "field")
    if by_itself or (entry is None and Path(data).exists() and readers.is_field(data, reader)):
        # what the catalogue reads by itself comes on a grid; its report is made on the way
        return sources.load(data, reader, replace(quality, policy="mask")).report
    return checks.inspect(sources.open_table(data, reader), quality, reader.sentinels)
