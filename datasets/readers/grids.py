"""NetCDF and Zarr through xarray, opened lazily: series as tables, fields as they are."""

import gzip
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from datasets import files
from datasets.errors import ForetideError
from datasets.readers.options import ReaderOptions
from datasets.readers.table import RawTable, Source, assemble, listed
from datasets.readers.text import decompressed, is_gzip, plain_name

_DIMS = {
    "time": ("valid_time", "date", "datetime"),
    "lat": ("latitude", "nav_lat"),
    "lon": ("longitude", "nav_lon", "long"),
}
_FIELD = ("time", "lat", "lon")


def open_lazily(path: Path) -> xr.Dataset:
    """Opens NetCDF (plain or gzipped) or a Zarr store with dims renamed to time, lat and lon; no value is read yet.

    Raises:
        ForetideError: The file is neither, or is damaged.
    """
    try:
        if path.is_dir():
            data = xr.open_zarr(path, chunks=None, consolidated=_consolidated(path))
            # A folder has no order of its own, and that of the variates must not depend on the disk.
            data = data[sorted(data.data_vars, key=str)]
        elif is_gzip(path):
            content = decompressed(path)
            _check_signature(content[:4], path.name)
            data = xr.open_dataset(io.BytesIO(content), engine="scipy" if content[:3] == b"CDF" else "h5netcdf")
        else:
            with path.open("rb") as file:
                _check_signature(file.read(4), path.name)
            data = xr.open_dataset(path)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ForetideError(
            f"{path.name}: cannot be opened as NetCDF or Zarr: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from error
    return _renamed(data)


def is_field(path: Path, options: ReaderOptions) -> bool:
    """Whether a file holds fields (time, lat, lon), not series."""
    with open_lazily(path) as data:
        chosen = [options.variable] if options.variable else list(data.data_vars)
        return any(set(_FIELD) <= set(data[name].dims) for name in chosen if name in data)


def read_field(path: Path, options: ReaderOptions) -> xr.Dataset:
    """Fields ``(time, lat, lon)``, opened lazily, with units and other attributes kept.

    Of a Zarr store the checksum covers the metadata and the names and sizes of the chunks, so that no chunk is read.

    Raises:
        ForetideError: No variable has these dims, or the named one does not exist.
    """
    data = open_lazily(path)
    names = [str(name) for name in data.data_vars if set(data[name].dims) == set(_FIELD)]
    if options.variable is not None:
        names = [name for name in names if name == options.variable]
    if not names:
        found = ", ".join(f"{name} {data[name].dims}" for name in data.data_vars)
        wanted = f"the variable {options.variable!r}" if options.variable else "a variable"
        raise ForetideError(
            f"{path.name}: found {found}; expected {wanted} with dims (time, lat, lon); name one with --reader.variable"
        )
    _stamps(data["time"].values, path.name)
    field = data[names].transpose(*_FIELD)
    field.attrs.update(
        source=path.name,
        checksum=_checksum(path),
        title=plain_name(path),
        time_zone="",
        frequency=options.frequency or _frequency(field["time"].values),
    )
    return field


def read_table(path: Path, options: ReaderOptions) -> RawTable:
    """Series of a NetCDF file or Zarr store: variables ``(time)``, or one ``(time, column)``.

    Raises:
        ForetideError: A field, or no variable along time.
    """
    import polars as pl

    with open_lazily(path) as data:
        time = options.time or ("time" if "time" in data.dims else _datetime_coordinate(data, path.name))
        if time not in data.coords:
            raise ForetideError(
                f"{path.name}: there is no coordinate {time!r} (reader.time); "
                f"expected one of {listed([str(name) for name in data.coords])}"
            )
        columns, units = _columns(data, time, options, path.name)
        frame = pl.DataFrame({time: _stamps(data[time].values, path.name), **columns})
    source = Source(frame.lazy(), path.name, _checksum(path), title=plain_name(path), units=units)
    return assemble(source, options)


def _columns(
    data: xr.Dataset, time: str, options: ReaderOptions, where: str
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    flat = {str(name): data[name] for name in data.data_vars if data[name].dims == (time,)}
    wide = [
        str(name)
        for name in data.data_vars
        if data[name].ndim == 2 and time in data[name].dims and "bnds" not in str(name)
    ]
    chosen = options.variable or ("value" if "value" in wide else wide[0] if len(wide) == 1 and not flat else None)
    if chosen is None and flat:
        return {name: column.values for name, column in flat.items()}, {
            name: _unit(column) for name, column in flat.items()
        }
    if chosen is None or chosen not in data:
        raise ForetideError(
            f"{where}: found {', '.join(f'{name} {data[name].dims}' for name in data.data_vars)}; "
            f"name a variable along {time!r} with --reader.variable"
        )
    variable = data[chosen]
    if variable.dims == (time,):
        return {chosen: variable.values}, {chosen: _unit(variable)}
    if variable.ndim != 2 or time not in variable.dims:
        raise ForetideError(f"{where}: {chosen} has dims {variable.dims}, expected ({time}) or ({time}, column)")
    other = next(str(dim) for dim in variable.dims if dim != time)
    labels = [
        str(label)
        for label in (variable[other].values if other in variable.coords else np.arange(variable.sizes[other]))
    ]
    matrix = variable.transpose(time, other).values
    units = (
        variable["unit"].values
        if "unit" in variable.coords and variable["unit"].dims == (other,)
        else [_unit(variable)] * len(labels)
    )
    return {label: matrix[:, at] for at, label in enumerate(labels)}, dict(zip(labels, map(str, units), strict=True))


def _unit(variable: xr.DataArray) -> str:
    return str(variable.attrs.get("units", ""))


def _stamps(values: np.ndarray, where: str) -> np.ndarray:
    if not np.issubdtype(values.dtype, np.datetime64):
        raise ForetideError(
            f"{where}: the time coordinate holds {values.dtype} and no calendar dates; expected CF time units such as "
            "'hours since 2000-01-01' in the standard calendar"
        )
    return values.astype("datetime64[ns]")


def _datetime_coordinate(data: xr.Dataset, where: str) -> str:
    for name in data.coords:
        if data[name].dims == (name,) and np.issubdtype(data[name].dtype, np.datetime64):
            return str(name)
    raise ForetideError(f"{where}: no coordinate holds dates; found {listed([str(c) for c in data.coords]) or 'none'}")


def _check_signature(start: bytes, where: str) -> None:
    if start[:3] != b"CDF" and start != b"\x89HDF":
        raise ForetideError(f"{where}: found {start!r} at the start, expected a NetCDF file; fetch or copy it again")


def _consolidated(store: Path) -> bool:
    root = store / "zarr.json"
    return (store / ".zmetadata").exists() or (root.exists() and '"consolidated_metadata"' in root.read_text())


def _renamed(data: xr.Dataset) -> xr.Dataset:
    changes: dict[Any, str] = {}
    for wanted, others in _DIMS.items():
        if wanted not in data.dims:
            found = next(
                (name for name in data.dims if str(name).lower() in (wanted, *others) or _means(data, name, wanted)),
                None,
            )
            if found is not None:
                changes[found] = wanted
    return data.rename(changes)


def _means(data: xr.Dataset, name: Any, wanted: str) -> bool:
    attrs: Mapping[str, Any] = data[name].attrs if name in data.coords else {}
    return attrs.get("standard_name") == {"lat": "latitude", "lon": "longitude"}.get(wanted, wanted)


def _frequency(times: np.ndarray) -> str:
    from datasets.quality.grid import infer

    first = np.arange(len(times)) == 0
    stamps = times.astype("datetime64[us]")
    grid = infer(stamps, first)
    if grid is None:
        return ""
    ordinals, off = grid.ordinals(stamps, np.full(len(stamps), stamps[0]))
    return grid.frequency if not off.any() and (np.diff(ordinals) == 1).all() else ""


def _checksum(path: Path) -> str:
    if path.is_dir():
        return _store_checksum(path)
    if not is_gzip(path):
        return files.sha256(path)
    digest = hashlib.sha256()
    with gzip.open(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _store_checksum(root: Path) -> str:
    digest = hashlib.sha256()
    for part in sorted(part for part in root.rglob("*") if part.is_file()):
        metadata = part.suffix == ".json" or part.name.startswith(".z")
        digest.update(
            f"{part.relative_to(root).as_posix()} {files.sha256(part) if metadata else part.stat().st_size}\n".encode()
        )
    return digest.hexdigest()
