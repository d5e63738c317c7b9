"""Catalogued datasets that no general reader fits: competitions, bare arrays, names made of several columns."""

from pathlib import Path

import numpy as np
import xarray as xr

from datasets import catalog, schema
from datasets.catalog import Entry
from datasets.competitions import read_competition
from datasets.errors import ForetideError
from datasets.schema import LongSeries


def read(entry: Entry, path: Path, group: str | None = None) -> xr.Dataset | LongSeries:
    """The canonical form of a dataset with a format of its own (`Entry.own_format`).

    Args:
        path: What `catalog.locate` returned.
        group: Part of a competition.

    Raises:
        ForetideError: The file does not hold what the entry says, or the group is unknown.
    """
    if entry.competition:
        return read_competition(entry, path, group)
    return read_array(entry, path) if entry.start else read_keyed(entry, path)


def read_array(entry: Entry, path: Path) -> xr.Dataset:
    """Series from channel 0 of the array ``data (time, sensor, channel)`` of an ``.npz`` file."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values = arrays["data"][:, :, 0].astype(np.float64)
    except (OSError, EOFError, ValueError, LookupError) as error:
        raise ForetideError(
            f"{path}: cannot be read ({error}); expected an .npz file with an array 'data' of times, "
            f"sensors and channels, as {entry.name} is published"
        ) from error
    if values.shape != entry.shape:
        raise ForetideError(
            f"{path}: found {values.shape} times and sensors, expected {entry.shape} for {entry.name}; "
            f"get the file again from its publisher ({entry.publisher})"
        )
    start = np.datetime64(entry.start, "ns")
    times = np.concatenate([[start], schema.continue_times(start, entry.frequency, len(values) - 1)])
    return schema.series(
        values,
        times,
        [str(sensor) for sensor in range(values.shape[1])],
        frequency=entry.frequency,
        source=path.name,
        checksum=catalog.checksum(path),
        title=entry.name,
    )


def read_keyed(entry: Entry, path: Path) -> LongSeries:
    """Many series from a table in which several columns together name one: ``Victoria/Melbourne/Holiday``."""
    import polars as pl

    from datasets.readers import stamps
    from datasets.readers.options import ReaderOptions

    options = ReaderOptions(**entry.reader)
    with catalog.open_content(path) as content:
        table = pl.read_csv(content.read())
    missing = [name for name in (options.time, options.target, *entry.keys) if name not in table.columns]
    if missing:
        raise ForetideError(
            f"{path}: there is no column {missing[0]!r}, which {entry.name} has; expected it among "
            f"{', '.join(table.columns)}; get the file again from its publisher ({entry.publisher})"
        )
    time, target = str(options.time), str(options.target)
    ds = stamps.parse(table[time], options, lambda row: f"{path}: row {row + 2}, column {time!r}")
    names = pl.concat_str(entry.keys, separator="/")
    frame = table.select(unique_id=names, ds=ds, y=pl.col(target).cast(pl.Float64)).sort("unique_id", "ds")
    return LongSeries(
        frame=frame,
        frequency=entry.frequency,
        unit=(options.units or {}).get(target, ""),
        source=path.name,
        checksum=catalog.checksum(path),
        title=entry.name,
    )
