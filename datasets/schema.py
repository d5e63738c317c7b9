"""The canonical forms of data: what every reader returns, and what every forecast comes back as.

Series are an ``xarray.Dataset`` with ``value (time, variate)``; many series of unequal length are a long polars
frame. Named data lives at the edges of the program; `datasets.panel` turns it into tensors.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from datasets.errors import ForetideError

if TYPE_CHECKING:
    import polars

ATTRIBUTES = ("frequency", "source", "checksum", "time_zone", "title")


@dataclass(frozen=True)
class LongSeries:
    """Many univariate series in long form.

    Args:
        frame: Columns ``unique_id`` (string), ``ds`` (date and time), ``y`` (float, null = missing), then covariates;
            sorted by both, every series on a regular grid.
        frequency: pandas offset alias shared by all series.
        past, future, static: Names of covariate columns by what is known when the forecast is made.
        repairs: What was changed to make the grid regular, one short sentence each.
    """

    frame: "polars.DataFrame"
    frequency: str
    unit: str = ""
    source: str = ""
    checksum: str = ""
    title: str = ""
    past: tuple[str, ...] = ()
    future: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    repairs: tuple[str, ...] = field(default=())


def series(
    values: np.ndarray,
    times: np.ndarray,
    variates: Sequence[str],
    *,
    frequency: str | None = None,
    units: Mapping[str, str] | None = None,
    source: str = "",
    checksum: str = "",
    time_zone: str = "",
    title: str = "",
    past: Mapping[str, np.ndarray] | None = None,
    future: Mapping[str, np.ndarray] | None = None,
    static: Mapping[str, float] | None = None,
) -> xr.Dataset:
    """Builds and validates a canonical Dataset.

    Args:
        values: ``(T, C)``, NaN where missing.
        times: ``(T,)`` time stamps on a regular grid.
        variates: ``C`` names.
        frequency: pandas offset alias; inferred from the stamps by default.
        units: Unit of each variate, where known.
        past, future: Covariates ``(T,)`` by name; ``future`` ones are known beyond the last observed value.
        static: Covariates without a time axis.
    """
    stamps = np.asarray(times).astype("datetime64[ns]")
    names = [str(name) for name in variates]
    data = xr.Dataset(
        {"value": (("time", "variate"), np.asarray(values, dtype=np.float64))},
        coords={
            "time": stamps,
            "variate": np.array(names, dtype=object),
            "unit": ("variate", np.array([(units or {}).get(name, "") for name in names], dtype=object)),
        },
        attrs={
            "frequency": frequency or infer_frequency(stamps),
            "source": source,
            "checksum": checksum,
            "time_zone": time_zone,
            "title": title or source,
        },
    )
    for kind, columns in (("past", past), ("future", future)):
        if columns:
            data[kind] = (
                ("time", f"{kind}_variate"),
                np.stack([np.asarray(v, dtype=np.float64) for v in columns.values()], axis=1),
            )
            data = data.assign_coords({f"{kind}_variate": np.array(list(columns), dtype=object)})
    if static:
        data["static"] = (("static_variate",), np.array(list(static.values()), dtype=np.float64))
        data = data.assign_coords(static_variate=np.array(list(static), dtype=object))
    validate(data)
    return data


def validate(data: xr.Dataset) -> None:
    """Checks that a Dataset has the canonical form, and says what does not fit."""
    where = data.attrs.get("source") or "data"
    if "value" not in data or data["value"].dims != ("time", "variate"):
        found = data["value"].dims if "value" in data else tuple(data.data_vars)
        raise ForetideError(f"{where}: found {found}, expected a variable 'value' with dims (time, variate)")
    missing = [name for name in ATTRIBUTES if name not in data.attrs]
    if missing:
        raise ForetideError(
            f"{where}: the attribute {missing[0]!r} is missing; read the file with datasets.sources.load"
        )
    names = data["variate"].values.tolist()
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ForetideError(f"{where}: the variate {twice!r} occurs twice; rename one of the columns")
    if data.sizes["time"] < 1:
        raise ForetideError(f"{where}: there is no row of data")
    steps = np.diff(data["time"].values)
    if (steps <= np.timedelta64(0, "ns")).any():
        row = int(np.argmax(steps <= np.timedelta64(0, "ns"))) + 1
        raise ForetideError(
            f"{where}: time stamp {row + 1} ({data['time'].values[row]}) does not follow the one before it; "
            "sort the rows, or repair them with --quality.policy mask"
        )


def infer_frequency(times: np.ndarray) -> str:
    """The pandas offset alias of a regular grid of at least three stamps."""
    import pandas as pd

    stamps = np.asarray(times).astype("datetime64[ns]")
    if len(stamps) < 3:
        raise ForetideError(
            f"found {len(stamps)} time stamps, expected at least 3 to tell the frequency; "
            "name it with --reader.frequency"
        )
    steps = np.diff(stamps)
    if (steps == steps[0]).all():
        return frequency_of(steps[0])
    with warnings.catch_warnings():
        # pandas 3 announces that a later version returns an offset in place of the alias; both are understood below
        warnings.simplefilter("ignore")
        inferred = pd.infer_freq(pd.DatetimeIndex(stamps))
    found = getattr(inferred, "freqstr", inferred)
    if found is None:
        raise ForetideError(
            "the time stamps do not form a regular grid; look at 'foretide data check' and choose a repair policy"
        )
    return str(found)


def frequency_of(step: np.timedelta64) -> str:
    """The alias of a constant step, in the largest unit that divides it: 'h', '15min', 'D', '7D'."""
    nanoseconds = int(step.astype("timedelta64[ns]").astype(np.int64))
    for unit, size in (("D", 86_400 * 10**9), ("h", 3_600 * 10**9), ("min", 60 * 10**9), ("s", 10**9), ("ms", 10**6)):
        if nanoseconds % size == 0:
            return unit if nanoseconds == size else f"{nanoseconds // size}{unit}"
    return f"{nanoseconds}ns"


def continue_times(last: np.datetime64, frequency: str, steps: int) -> np.ndarray:
    """The ``steps`` stamps that follow ``last`` on the grid of ``frequency``, ``datetime64[ns]``."""
    import pandas as pd

    offset = pd.tseries.frequencies.to_offset(frequency)
    return (
        pd.date_range(pd.Timestamp(last), periods=steps + 1, freq=offset)[-steps:].to_numpy().astype("datetime64[ns]")
    )


def same_frequency(one: str, other: str) -> bool:
    """Whether two aliases name the same grid step ('60min' and 'h', '7D' and 'W-TUE')."""
    import pandas as pd

    def normal(alias: str) -> Any:
        text = "7D" if alias.startswith("W") else alias
        offset = pd.tseries.frequencies.to_offset(text)
        try:
            return pd.Timedelta(offset).value
        except ValueError:
            return offset.rule_code.split("-")[0]

    return bool(normal(one) == normal(other))


def season_of(frequency: str) -> int:
    """The usual seasonal period of a frequency in rows: a day of hours or minutes, a week of days, a year of months."""
    import pandas as pd

    if frequency.startswith("W"):
        return 52
    offset = pd.tseries.frequencies.to_offset(frequency)
    try:
        seconds = pd.Timedelta(offset).total_seconds()
    except ValueError:
        return {"M": 12, "Q": 4, "Y": 1, "B": 5}.get(offset.rule_code[0], 1)
    if seconds < 86_400:
        return max(1, round(86_400 / seconds))
    return {1: 7, 7: 52}.get(round(seconds / 86_400), 1)


def refuse_field(data: xr.Dataset | LongSeries) -> None:
    """Refuses a grid where series are needed.

    Raises:
        ForetideError: Names the dims that were found.
    """
    if isinstance(data, xr.Dataset) and "variate" not in data.dims:
        name = data.attrs.get("title") or data.attrs.get("source") or "data"
        raise ForetideError(
            f"{name}: holds fields over {', '.join(map(str, data.dims))}, expected series; save those of the places "
            "that you want as a table"
        )


def last_observed(data: xr.Dataset) -> int:
    """Row of the last time stamp at which any variate is observed: the forecast starts after it."""
    observed = np.isfinite(data["value"].values).any(axis=1)
    if not observed.any():
        raise ForetideError(f"{data.attrs.get('source') or 'data'}: every value is missing")
    return int(np.flatnonzero(observed)[-1])
