"""Checked series as a NetCDF file that needs no reader: for a compute node, which has xarray but no polars."""

from pathlib import Path

import numpy as np
import xarray as xr

from datasets import schema
from datasets.errors import ForetideError
from datasets.files import atomic_path

MARK = "foretide_series"
VERSION = 1


def write(data: xr.Dataset, target: Path) -> Path:
    """Writes a canonical Dataset, units, covariates, source and checksum included.

    Args:
        data: As `schema.series` makes it.
        target: A name that ends in ``.nc``.
    """
    if target.suffix != ".nc":
        raise ForetideError(f"--output: found {target.name!r}, expected a name that ends in .nc")
    schema.validate(data)
    with atomic_path(target) as temporary:
        # NetCDF 3, which scipy alone can read
        data.assign_attrs({MARK: VERSION}).to_netcdf(temporary, engine="scipy", format="NETCDF3_64BIT")
    return target


def read(path: Path) -> xr.Dataset | None:
    """The series in a file that `write` made; None for any other file.

    Raises:
        ForetideError: The file is of a later form than this version knows, or damaged.
    """
    with path.open("rb") as file:
        if file.read(3) != b"CDF":
            return None
    try:
        with xr.open_dataset(path, engine="scipy") as opened:
            if MARK not in opened.attrs:
                return None
            data = opened.load()
    except (OSError, TypeError, ValueError) as error:
        raise ForetideError(f"{path}: cannot be read as NetCDF ({error}); copy or export it again") from error
    if int(data.attrs.pop(MARK)) > VERSION:
        raise ForetideError(
            f"{path}: is of a later form than this version knows; update Foretide, or export the series with this one"
        )
    for name in ("variate", "unit", "past_variate", "future_variate", "static_variate"):
        if name in data.coords:
            text = np.array([str(value) for value in data[name].values], dtype=object)
            data = data.assign_coords({name: (data[name].dims, text)})
    schema.validate(data)
    return data
