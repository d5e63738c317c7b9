"""Where forecasts go: Parquet, CSV and NetCDF files, each written whole or not at all."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets.errors import ForetideError
from datasets.files import atomic_path

if TYPE_CHECKING:
    import polars
    import xarray

BANDS = {95: (0.025, 0.975), 80: (0.1, 0.9), 50: (0.25, 0.75)}
SUFFIXES = (".parquet", ".csv", ".nc")


def check_output(target: Path) -> None:
    """Refuses an output that could not be written, before long work."""
    from datasets.files import ensure_writable

    if target.suffix.lower() not in SUFFIXES:
        raise ForetideError(f"--output: found {target.name!r}, expected a name that ends in {', '.join(SUFFIXES)}")
    ensure_writable(target)


def write_forecast(forecast: "xarray.Dataset", target: Path) -> Path:
    """Writes a forecast in the format that the suffix names.

    Args:
        forecast: As `Predictor.forecast` returns it.
        target: ``.parquet`` or ``.csv`` (long form, see `to_frame`), or ``.nc`` (the Dataset itself).
    """
    suffix = target.suffix.lower()
    with atomic_path(target) as temporary:
        if suffix == ".nc":
            # by way of memory: on a full disk HDF5 would print a page of its own before it fails
            temporary.write_bytes(forecast.to_netcdf(engine="h5netcdf"))
        elif suffix == ".csv":
            to_frame(forecast).write_csv(temporary)
        elif suffix == ".parquet":
            to_frame(forecast).write_parquet(temporary)
        else:
            raise ForetideError(f"{target}: expected a name that ends in {', '.join(SUFFIXES)}")
    return target


def to_frame(forecast: "xarray.Dataset") -> "polars.DataFrame":
    """A forecast in long form.

    Returns:
        One row per series, variate and step: ``unique_id`` (many series) or ``variate``, ``unit``, ``origin``, ``ds``,
        ``forecast``, ``median`` and the ends of the 50, 80 and 95 % intervals, in original units.
    """
    import polars as pl

    many = "unique_id" in forecast.dims
    steps = forecast.sizes["step" if many else "time"]
    groups = [str(name) for name in forecast["unique_id" if many else "variate"].values]
    point = forecast["forecast"].values[..., 0] if many else forecast["forecast"].values.T  # (groups, H)
    times = forecast["ds"].values if many else np.broadcast_to(forecast["time"].values, (len(groups), steps))
    units = [str(forecast["unit"].values[0])] * len(groups) if many else [str(unit) for unit in forecast["unit"].values]
    last = forecast["origin"].values if many else np.array([np.datetime64(forecast.attrs["origin"])] * len(groups))
    columns: dict[str, Any] = {
        "unique_id" if many else "variate": np.repeat(np.array(groups, dtype=object), steps),
        "unit": np.repeat(np.array(units, dtype=object), steps),
        "origin": np.repeat(last, steps).astype("datetime64[us]"),
        "ds": times.reshape(-1).astype("datetime64[us]"),
        "forecast": point.reshape(-1),
    }
    if "quantile" in forecast:
        table = forecast["quantile"].values  # (groups, H, 1, Q) or (H, groups, Q)
        table = table[:, :, 0] if many else table.transpose(1, 0, 2)
        for name, level in _columns():
            place = int(np.argmin(np.abs(forecast["level"].values - level)))
            columns[name] = table[..., place].reshape(-1)
    return pl.DataFrame(columns)


def _columns() -> list[tuple[str, float]]:
    lower = [(f"lower_{percent}", low) for percent, (low, _) in BANDS.items()]
    upper = [(f"upper_{percent}", high) for percent, (_, high) in reversed(BANDS.items())]
    return [*lower, ("median", 0.5), *upper]
