"""The one door to data: a catalogue name, a file, a folder or a database becomes a checked canonical form."""

import difflib
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from datasets import quality as checks
from datasets import readers
from datasets.errors import ForetideError, ForetideWarning
from datasets.quality import QualityOptions, QualityReport
from datasets.readers import RawTable, ReaderOptions
from datasets.schema import LongSeries

if TYPE_CHECKING:
    from datasets.catalog import Entry


@dataclass(frozen=True)
class Loaded:
    """Data in canonical form, what the checks found, and the catalogue entry where there is one."""

    series: xr.Dataset | LongSeries
    report: QualityReport
    entry: "Entry | None" = None


def load(data: str | Path, reader: ReaderOptions | None = None, quality: QualityOptions | None = None) -> Loaded:
    """Reads, checks and, as far as the policy allows, repairs a dataset.

    Args:
        data: A catalogue name in any case, with a group where it has some ("M3:monthly"); or a file, a folder or a
            database URL. A catalogue name wins over a file of the same name: write ``./weather`` for the file.
        reader: How to read; on top of the catalogue's own options.
        quality: Policy for what is wrong with the data; by default everything wrong is refused.

    Raises:
        ForetideError: Whatever the user can mend, in one line.
    """
    from datasets import catalog

    _, group = _split(str(data))
    entry = catalog.known(str(data))
    if entry is None:
        return _file(data, reader or ReaderOptions(), quality or QualityOptions())
    return _catalogued(entry, group, reader, quality or QualityOptions())


def open_table(data: str | Path, reader: ReaderOptions | None = None) -> RawTable:
    """The table behind a catalogue name, file, folder or URL, before any check.

    With `quality.inspect`, this gives a report on data that `load` refuses.

    Raises:
        ForetideError: It cannot be read as a table.
    """
    from datasets import catalog

    entry = catalog.known(str(data))
    if entry is None:
        return _with_units(readers.read_table(data, reader), data, reader or ReaderOptions())
    path = catalog.locate(entry)
    options = _options(entry, reader)
    return replace(_with_units(readers.read_table(path, options), path, options), title=entry.name)


def _split(data: str) -> tuple[str, str | None]:
    name, colon, group = data.partition(":")
    return (name, group) if colon and re.fullmatch(r"\w+", name) and re.fullmatch(r"\w+", group) else (data, None)


def _options(entry: "Entry", reader: ReaderOptions | None) -> ReaderOptions:
    base = ReaderOptions(**{"time_zone": entry.time_zone or None, **entry.reader})
    return base if reader is None else reader.overlaid(base)


def _catalogued(entry: "Entry", group: str | None, reader: ReaderOptions | None, options: QualityOptions) -> Loaded:
    from datasets import catalog

    path = catalog.locate(entry)
    if entry.form == "field":
        return replace(_field(path, _options(entry, reader)), entry=entry)
    if entry.own_format:
        from datasets import formats

        if reader is not None and reader != ReaderOptions():
            raise ForetideError(f"{entry.name}: has a format of its own, which takes no reader options; leave them out")
        return _prepared(formats.read(entry, path, group), options, entry)
    if group is not None:
        entry.group(group)
    table = open_table(entry.name, reader)
    if entry.sha256 is not None and table.checksum != entry.sha256:
        warnings.warn(
            f"{entry.name}: {path.name} differs from the file of the published scores (sha256 {table.checksum[:12]}…, "
            f"expected {entry.sha256[:12]}…), so that scores may not compare",
            ForetideWarning,
            stacklevel=3,
        )
    return _checked(table, _options(entry, reader), options, entry)


def _file(data: str | Path, reader: ReaderOptions, options: QualityOptions) -> Loaded:
    if "://" not in str(data) and not os.path.exists(os.path.expanduser(data)):
        raise ForetideError(f"{data}: there is no such file or folder{_hint(str(data))}")
    if str(data).endswith(".nc"):
        from datasets import canonical, catalog

        series = canonical.read(Path(data).expanduser())
        if series is not None:
            chosen = _chosen(series, reader.variates, data)
            return Loaded(chosen, _report(chosen), catalog.known(str(series.attrs["title"])))
    if readers.is_field(data, reader):
        return _field(Path(data).expanduser(), reader)
    return _checked(_with_units(readers.read_table(data, reader), data, reader), reader, options, None)


def _chosen(series: xr.Dataset, variates: Sequence[str] | None, data: str | Path) -> xr.Dataset:
    """The variates that were asked for, in their order; an exported file holds those of its export."""
    if variates is None:
        return series
    present = [str(name) for name in series["variate"].values]
    missing = next((name for name in variates if name not in present), None)
    if missing is not None:
        raise ForetideError(f"{data}: found no variate {missing!r}, expected some of {', '.join(present)}")
    return series.sel(variate=list(variates))


def _hint(data: str) -> str:
    from datasets import catalog

    known = {name.lower(): name for name in catalog.ENTRIES}
    stem = re.split(r"[./\\]", Path(data).name)[0].lower()
    close = difflib.get_close_matches(stem, known, n=2, cutoff=0.6)
    if close:
        return f"; the catalogue has {' and '.join(known[name] for name in close)}"
    return ", nor such a dataset in the catalogue ('foretide data list'); check the path"


def _checked(table: RawTable, reader: ReaderOptions, options: QualityOptions, entry: "Entry | None") -> Loaded:
    report = checks.inspect(table, options, reader.sentinels)
    return Loaded(checks.repair(table, report, options), report, entry)


def _prepared(made: xr.Dataset | LongSeries, options: QualityOptions, entry: "Entry") -> Loaded:
    """What a format of its own returns is on a grid already, and is left as it is unless something is wrong with it."""
    table = _as_table(made)
    report = checks.inspect(table, options, ())
    return Loaded(made if report.clean else checks.repair(table, report, options), report, entry)


def _as_table(made: xr.Dataset | LongSeries) -> RawTable:
    import polars as pl

    if isinstance(made, LongSeries):
        return RawTable(
            made.frame,
            "ds",
            ("y",),
            made.past,
            made.future,
            made.static,
            "unique_id",
            made.source,
            made.checksum,
            frequency=made.frequency,
            title=made.title,
        )
    names = tuple(map(str, made["variate"].values))
    columns = {name: made["value"].values[:, at] for at, name in enumerate(names)}
    frame = pl.DataFrame({"time": made["time"].values} | columns).with_columns(pl.col(names).fill_nan(None))
    return RawTable(
        frame,
        "time",
        names,
        source=made.attrs["source"],
        checksum=made.attrs["checksum"],
        frequency=made.attrs["frequency"],
        title=made.attrs["title"],
    )


def _field(path: Path, reader: ReaderOptions) -> Loaded:
    field = readers.read_field(path, reader).assign_attrs(source=path.name)
    return Loaded(field, _report(field))


def _report(data: xr.Dataset) -> QualityReport:
    """A report without findings, of what needs no check: a field, or a series that was checked when it was exported."""
    first, last = (
        str(time).replace("T", " ") for time in np.datetime_as_string(data["time"].values[[0, -1]], unit="s")
    )
    names = data["variate"].values if "variate" in data.coords else data.data_vars
    return QualityReport(
        str(data.attrs["source"]),
        data.sizes["time"],
        1,
        tuple(map(str, names)),
        first,
        last,
        str(data.attrs["frequency"]),
    )


def _with_units(table: RawTable, data: str | Path, reader: ReaderOptions) -> RawTable:
    """Units of the file itself, of a sidecar ``<file>.units.yaml`` and of the options, the later ones winning."""
    sidecar = None if "://" in str(data) else Path(f"{Path(data).expanduser()}.units.yaml")
    given = _read_units(sidecar) if sidecar is not None and sidecar.is_file() else {}
    for units, where in ((given, sidecar and sidecar.name), (reader.units or {}, "reader.units")):
        unknown = next((name for name in units if name not in table.columns), None)
        if unknown is not None:
            raise ForetideError(
                f"{where}: there is no column {unknown!r} in {table.source}; expected columns out of "
                f"{', '.join(map(repr, table.columns[:30]))}"
            )
    return replace(table, units={**table.units, **given, **(reader.units or {})})


def _read_units(path: Path) -> Mapping[str, str]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ForetideError(f"{path.name}: cannot be read as YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(unit, str) for name, unit in found.items()
    ):
        raise ForetideError(
            f"{path.name}: expected lines 'column: unit', with quotes around names and units that are not plain words"
        )
    return found
