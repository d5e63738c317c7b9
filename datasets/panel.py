"""One or many series as flat tensors: the form in which windows are cut and models are fed."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from datasets import calendar
from datasets.errors import ForetideError
from datasets.schema import LongSeries, continue_times, last_observed


@dataclass(frozen=True)
class Panel:
    """All rows of all series behind one another; series ``s`` owns rows ``offsets[s]`` to ``offsets[s + 1]``.

    Letters: N rows in all, S series, C variates, F calendar features, P past and K future covariates, J static ones.
    A multivariate dataset is one series of C variates; a panel is S series of one variate each.

    Args:
        value: ``(N, C)``, 0 where not observed; float64 in original units, float32 once scaled.
        observed: ``(N, C)`` bool.
        calendar: ``(N, F)`` float32.
        offsets: ``(S + 1,)`` int64.
        ends: ``(S,)`` rows of each series up to its last observed value; rows after that are the future.
        times: ``(N,)`` datetime64, on the host.
        past, future, static: Covariates ``(N, P)``, ``(N, K)``, ``(S, J)``, or None.
    """

    value: Tensor
    observed: Tensor
    calendar: Tensor
    offsets: Tensor
    ends: Tensor
    times: np.ndarray
    ids: tuple[str, ...]
    variates: tuple[str, ...]
    units: tuple[str, ...]
    frequency: str
    calendar_names: tuple[str, ...] = ()
    past: Tensor | None = None
    future: Tensor | None = None
    static: Tensor | None = None
    past_names: tuple[str, ...] = ()
    future_names: tuple[str, ...] = ()
    static_names: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every value up to the end of every series is observed."""
        return bool(self.observed.sum() == self.ends.sum() * len(self.variates))

    def to(self, device: torch.device | str) -> "Panel":
        """The same panel with its tensors on another device."""
        return self._map(lambda tensor: tensor.to(device))

    def rows(self, series: int) -> slice:
        """The rows of one series, future ones included."""
        return slice(int(self.offsets[series]), int(self.offsets[series + 1]))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Panel":
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        changed: dict[str, Any] = {k: change(v) for k, v in found.items() if isinstance(v, Tensor)}
        return dataclasses.replace(self, **changed)


def from_series(
    data: xr.Dataset,
    horizon: int = 0,
    calendar_frequency: str | None = None,
    holidays: str | None = None,
    tail: int | None = None,
) -> Panel:
    """A multivariate dataset as a panel of one series.

    Args:
        data: Canonical Dataset.
        horizon: Rows to append behind the last observed value, so that a forecast window can be cut there.
        calendar_frequency: Whose calendar features are computed, mostly that of the data; None for none.
        holidays: Country, or country and subdivision ("AU-VIC"), whose public holidays are a further feature.
        tail: Keep only so many rows before the first one that is not observed any more.
    """
    end = last_observed(data) + 1
    first = 0 if tail is None else max(0, end - tail)
    values, times = data["value"].values[first:], data["time"].values[first:]
    end -= first
    have = len(times)
    want = max(have, end + horizon) if horizon else have
    values = _extended(values, want)
    if want > have:
        times = np.concatenate([times, continue_times(times[-1], data.attrs["frequency"], want - have)])
    observed = np.isfinite(values)
    observed[end:] = False
    marks, names = _calendar(times, calendar_frequency, holidays, str(data.attrs["time_zone"]))
    covariates = {kind: _covariate(data, kind, first, want) for kind in ("past", "future")}
    future_names = _names(data, "future")
    _check_future(covariates["future"], [end], horizon, future_names, [data.attrs["source"]])
    static = data["static"].values[None].astype(np.float64) if "static" in data else None
    return Panel(
        value=torch.from_numpy(np.where(observed, values, 0.0)),
        observed=torch.from_numpy(observed),
        calendar=marks,
        offsets=torch.tensor([0, want]),
        ends=torch.tensor([end]),
        times=times,
        ids=(str(data.attrs["title"]),),
        variates=tuple(map(str, data["variate"].values)),
        units=tuple(map(str, data["unit"].values)),
        frequency=data.attrs["frequency"],
        calendar_names=names,
        past=covariates["past"],
        future=covariates["future"],
        static=None if static is None else torch.from_numpy(static),
        past_names=_names(data, "past"),
        future_names=future_names,
        static_names=_names(data, "static"),
    )


def from_long(
    data: LongSeries, horizon: int = 0, calendar_frequency: str | None = None, holidays: str | None = None
) -> Panel:
    """Many series in long form as one flat panel of one variate each; arguments as for `from_series`."""
    frame = data.frame
    ids, starts, counts = np.unique(frame["unique_id"].to_numpy(), return_index=True, return_counts=True)
    order = np.argsort(starts)
    ids, starts, counts = ids[order], starts[order], counts[order]
    value, stamps = frame["y"].cast(float).to_numpy(), frame["ds"].to_numpy().astype("datetime64[ns]")
    columns = {name: frame[name].cast(float).to_numpy() for name in (*data.past, *data.future, *data.static)}
    ends = np.array([_observed_end(value[s : s + n], str(i)) for i, s, n in zip(ids, starts, counts, strict=True)])
    lengths = np.maximum(counts, ends + horizon)
    rows = np.concatenate(
        [np.minimum(np.arange(n), c - 1) + s for s, c, n in zip(starts, counts, lengths, strict=True)]
    )
    beyond = np.concatenate([np.arange(n) >= c for c, n in zip(counts, lengths, strict=True)])
    past_end = np.concatenate([np.arange(n) >= e for e, n in zip(ends, lengths, strict=True)])
    times = np.concatenate(
        [
            stamps[s : s + c]
            if n == c
            else np.concatenate([stamps[s : s + c], continue_times(stamps[s + c - 1], data.frequency, n - c)])
            for s, c, n in zip(starts, counts, lengths, strict=True)
        ]
    )
    flat = np.where(past_end, np.nan, value[rows])
    observed = np.isfinite(flat)[:, None]
    marks, names = _calendar(times, calendar_frequency, holidays, "")

    def covariates(group: Sequence[str]) -> Tensor | None:
        if not group:
            return None
        table = np.stack([np.where(beyond, np.nan, columns[name][rows]) for name in group], axis=1)
        return torch.from_numpy(table)

    offsets, future = np.concatenate([[0], np.cumsum(lengths)]), covariates(data.future)
    _check_future(future, (offsets[:-1] + ends).tolist(), horizon, data.future, [f"series {str(i)!r}" for i in ids])
    static = np.stack([columns[name][starts] for name in data.static], axis=1) if data.static else None
    return Panel(
        value=torch.from_numpy(np.where(observed[:, 0], flat, 0.0)[:, None]),
        observed=torch.from_numpy(observed),
        calendar=marks,
        offsets=torch.from_numpy(offsets),
        ends=torch.from_numpy(ends),
        times=times,
        ids=tuple(map(str, ids)),
        variates=("y",),
        units=(data.unit,),
        frequency=data.frequency,
        calendar_names=names,
        past=covariates(data.past),
        future=future,
        static=None if static is None else torch.from_numpy(static),
        past_names=data.past,
        future_names=data.future,
        static_names=data.static,
    )


def of(
    data: xr.Dataset | LongSeries,
    horizon: int = 0,
    calendar_frequency: str | None = None,
    holidays: str | None = None,
    tail: int | None = None,
) -> Panel:
    """The panel of either canonical form; arguments as for `from_series`. Series in long form keep all their rows."""
    if isinstance(data, LongSeries):
        return from_long(data, horizon, calendar_frequency, holidays)
    return from_series(data, horizon, calendar_frequency, holidays, tail)


def _observed_end(values: np.ndarray, name: str) -> int:
    observed = np.flatnonzero(np.isfinite(values))
    if not len(observed):
        raise ForetideError(f"series {name!r}: every value is missing; remove it, or fill it first")
    return int(observed[-1]) + 1


def _extended(values: np.ndarray, rows: int) -> np.ndarray:
    missing = rows - len(values)
    return values if missing <= 0 else np.concatenate([values, np.full((missing, values.shape[1]), np.nan)])


def _calendar(
    times: np.ndarray, frequency: str | None, holidays: str | None, zone: str
) -> tuple[Tensor, tuple[str, ...]]:
    columns: list[np.ndarray] = [np.zeros((len(times), 0), dtype=np.float32)]
    names: list[str] = []
    if frequency is not None:
        marks, found = calendar.features(times, frequency)
        columns.append(marks)
        names += found
    if holidays is not None:
        country, _, subdivision = holidays.partition("-")
        # on the range of the other features
        columns.append(calendar.holiday_feature(times, country, subdivision or None, zone)[:, None] - 0.5)
        names.append("holiday")
    return torch.from_numpy(np.concatenate(columns, axis=1)), tuple(names)


def _covariate(data: xr.Dataset, kind: str, first: int, rows: int) -> Tensor | None:
    return torch.from_numpy(_extended(data[kind].values[first:], rows)) if kind in data else None


def _names(data: xr.Dataset, kind: str) -> tuple[str, ...]:
    return tuple(map(str, data[f"{kind}_variate"].values)) if kind in data else ()


def _check_future(
    future: Tensor | None, ends: Sequence[int], horizon: int, names: Sequence[str], sources: Sequence[str]
) -> None:
    """A forecast needs the future covariates of its whole horizon, and says which are missing.

    Args:
        ends: Row of the first forecast step of each series.
        sources: What each series is called in the message.
    """
    if future is None or not horizon:
        return
    for end, source in zip(ends, sources, strict=True):
        holes = ~torch.isfinite(future[end : end + horizon])
        if holes.any():
            step, column = (int(x) for x in torch.nonzero(holes)[0])
            raise ForetideError(
                f"{source}: the future covariate {names[column]!r} has no value {step + 1} steps after "
                f"the last observation; give it for all {horizon} steps of the horizon"
            )
