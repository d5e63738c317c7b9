"""Readers: CSV, Parquet, SQL, NetCDF and Zarr, as a table in file order or as a field."""

from pathlib import Path
from typing import TYPE_CHECKING

from datasets.errors import ForetideError
from datasets.readers.options import ReaderOptions
from datasets.readers.table import RawTable

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["RawTable", "ReaderOptions", "is_field", "read_field", "read_table"]

_GRIDS = (".nc", ".nc4", ".cdf", ".netcdf", ".zarr")
_PARQUET = (".parquet", ".pq")
_OTHER = {
    ".xlsx": "save the sheet as CSV",
    ".xls": "save the sheet as CSV",
    ".ods": "save the sheet as CSV",
    ".json": "convert it to CSV or Parquet",
    ".grib": "convert it to NetCDF",
    ".grb": "convert it to NetCDF",
    ".feather": "convert it to Parquet",
    ".npz": "convert it to CSV or NetCDF",
    ".zip": "unpack it",
    ".pkl": "a pickle is never loaded",
    ".pickle": "a pickle is never loaded",
}


def read_table(source: str | Path, options: ReaderOptions | None = None) -> RawTable:
    """Reads a table of time stamps and numbers, in file order, without any check or repair of its content.

    Args:
        source: A file (CSV or other delimited text, Parquet, NetCDF; text and NetCDF may be gzipped), a folder
            (of Parquet files, or a Zarr store) or a database URL.
        options: How to read it.

    Raises:
        ForetideError: The file is missing or of another kind, a column is missing, or a date cannot be read.
    """
    options = options or ReaderOptions()
    if "://" in str(source):
        from datasets.readers.stores import read_database

        return read_database(str(source), options)
    path = _existing(source)
    kind = _kind(path)
    if kind in _GRIDS:
        from datasets.readers import grids

        return grids.read_table(path, options)
    if kind in _PARQUET or path.is_dir():
        from datasets.readers.stores import read_parquet

        return read_parquet(path, options)
    if kind in _OTHER:
        raise ForetideError(f"{path.name}: expected CSV, Parquet, NetCDF or Zarr, found {kind}; {_OTHER[kind]}")
    from datasets.readers import text

    return text.read(path, options)


def read_field(source: str | Path, options: ReaderOptions | None = None) -> "xr.Dataset":
    """Opens fields lazily: variables with dims ``(time, lat, lon)``, their units and attributes kept.

    Args:
        source: NetCDF (plain or gzipped) or a Zarr store.
        options: ``variable`` names one variable; by default all fields of the file are returned.

    Raises:
        ForetideError: The file is missing, cannot be opened, or holds no such variable.
    """
    from datasets.readers import grids

    return grids.read_field(_existing(source), options or ReaderOptions())


def is_field(source: str | Path, options: ReaderOptions | None = None) -> bool:
    """Whether a file or store holds fields ``(time, lat, lon)``, not series."""
    if "://" in str(source):
        return False
    path = _existing(source)
    if _kind(path) not in _GRIDS:
        return False
    from datasets.readers import grids

    return grids.is_field(path, options or ReaderOptions())


def _existing(source: str | Path) -> Path:
    path = Path(source).expanduser()
    try:
        if not path.exists():
            raise ForetideError(f"{source}: there is no such file or folder; check the path")
        if path.is_file():
            path.open("rb").close()
    except OSError as error:
        raise ForetideError(f"{source}: cannot be read: {error.strerror}") from error
    return path


def _kind(path: Path) -> str:
    """The suffix that decides, without ``.gz``; a folder with Zarr metadata counts as ``.zarr``."""
    if path.is_dir():
        return (
            ".zarr" if any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zmetadata", ".zarray")) else ""
        )
    return Path(path.name.lower().removesuffix(".gz")).suffix
