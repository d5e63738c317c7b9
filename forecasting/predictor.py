"""Forecasts from a stored model: in a fresh process, on new rows, in original units, with intervals."""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from datasets import panel as panels
from datasets import schema
from datasets.errors import ForetideError, ForetideWarning
from datasets.options import build
from datasets.panel import Panel
from datasets.scaling import Scaler
from datasets.schema import LongSeries
from datasets.windows import Windows, forecast_windows
from forecasting import artifact, models
from forecasting.artifact import Artifact
from forecasting.config import RunConfig
from forecasting.conformal import LEVELS, sample_paths
from forecasting.engine import predict
from forecasting.forecaster import Forecaster, Recipe
from forecasting.intervals import LEVEL_TENSOR, Calibration, Intervals
from forecasting.protocol import Series
from forecasting.transfer import BACKBONE, under

REPLAYED_ORIGINS = 1000


class Predictor:
    """A loaded model that forecasts what follows a series.

    Args:
        stored: Artifact of a run.
        device: Where the model runs.
    """

    def __init__(self, stored: Artifact, device: torch.device | str = "cpu") -> None:
        if stored.schema.get("holds") == BACKBONE:
            raise ForetideError(
                f"run {stored.run['run_id']} is a pre-trained backbone, which forecasts nothing yet; train from it "
                f"with 'foretide train --training.init_from {stored.run['run_id']}'"
            )
        self.config = build(RunConfig, stored.config, artifact.CONFIG)
        self.schema, self.run_id, self.device = stored.schema, str(stored.run["run_id"]), torch.device(device)
        self.scaler = Scaler.from_dict(stored.scaling)
        self.model = _restore(self.config, self.schema, stored.weights).to(self.device).eval()
        self.calibration = Calibration.from_tensors(under(stored.weights, "calibration."))
        self._followed: tuple[str, Intervals] | None = None

    @staticmethod
    def load(folder: str | Path, device: torch.device | str = "cpu") -> "Predictor":
        """Reads and checks an artifact."""
        return Predictor(artifact.load(folder), device)

    @property
    def horizon(self) -> int:
        """Longest horizon that the model was trained for."""
        return int(self.schema["horizon"])

    def check(self, series: Series, horizon: int | None = None) -> Series:
        """The series with the variates of the model, in its order.

        Raises:
            ForetideError: The horizon is too long, or variates, frequency, units or covariates do not fit.
        """
        steps = self.horizon if horizon is None else horizon
        if not 1 <= steps <= self.horizon:
            raise ForetideError(
                f"--horizon: found {steps}, expected 1 to {self.horizon}, for which the model was trained; "
                "train one with a longer horizon"
            )
        schema.refuse_field(series)
        long = isinstance(series, LongSeries)
        if long != (self.schema["form"] == "long"):
            raise ForetideError(
                f"{_source(series)}: found {'many series' if long else 'one table'}, the model was trained on "
                f"{'one table' if long else 'many series'}; set --reader.id accordingly"
            )
        frequency = series.frequency if isinstance(series, LongSeries) else str(series.attrs["frequency"])
        if not schema.same_frequency(frequency, self.schema["frequency"]):
            raise ForetideError(
                f"{_source(series)}: found frequency {frequency}, expected {self.schema['frequency']} as in training; "
                "resample the data or train a model for it"
            )
        return series if isinstance(series, LongSeries) else self._select(series)

    def forecast(self, series: Series, horizon: int | None = None, samples: int = 0, seed: int = 0) -> xr.Dataset:
        """What follows the last observed row.

        Args:
            series: Canonical data that reaches up to the origin; earlier rows sharpen adaptive intervals.
            horizon: Steps, at most those of training.
            samples: Sample paths to draw from validation errors.

        Returns:
            ``forecast (time, variate)``, ``quantile (time, variate, level)`` and, if asked for, ``sample (path,
            time, variate)``, in original units; with a leading dim ``unique_id`` and coordinates ``ds (unique_id,
            step)`` and ``origin (unique_id)`` for many series.
        """
        series = self.check(series, horizon)
        steps = self.horizon if horizon is None else horizon
        intervals = self._intervals(series)
        panel, scaled, scaler = self._panel(series, int(self.schema["lookback"]))
        windows = forecast_windows(scaled, int(self.schema["lookback"]), self.horizon, int(self.schema["min_history"]))
        levels = LEVEL_TENSOR if self.config.intervals.method == "head" else None
        found = list(predict(self.model, windows, levels=levels))
        point = torch.cat([p.point for p in found])
        quantiles = torch.cat([intervals.quantiles(p) for p in found])
        index = torch.arange(len(point))
        tables = {"forecast": scaler.inverse(point.cpu(), index), "quantile": scaler.inverse(quantiles.cpu(), index)}
        if samples:
            paths = sample_paths(
                point.cpu(), self.calibration.trajectories, samples, torch.Generator().manual_seed(seed)
            )
            tables["sample"] = torch.stack([scaler.inverse(path, index) for path in paths], dim=1)  # (S, samples, H, C)
        return self._dataset(
            {name: table[..., :steps, :] if name == "sample" else table[:, :steps] for name, table in tables.items()},
            series,
            panel,
            steps,
        )

    def _select(self, data: xr.Dataset) -> xr.Dataset:
        wanted, present = list(self.schema["variates"]), [str(v) for v in data["variate"].values]
        missing = [name for name in wanted if name not in present]
        if missing:
            raise ForetideError(
                f"{_source(data)}: the variate {missing[0]!r} is missing; expected {', '.join(wanted)}, "
                f"found {', '.join(present)}"
            )
        extra = [name for name in present if name not in wanted]
        if extra:
            warnings.warn(
                f"{_source(data)}: {', '.join(extra)} {'was' if len(extra) == 1 else 'were'} not part of the training "
                f"and {'is' if len(extra) == 1 else 'are'} left out",
                ForetideWarning,
                stacklevel=3,
            )
        chosen = data if present == wanted else data.sel(variate=wanted)
        for name, trained, found in zip(wanted, self.schema["units"], chosen["unit"].values.tolist(), strict=True):
            if trained and found and trained != found:
                raise ForetideError(
                    f"{_source(data)}: {name!r} is in {found!r}, the model was trained on {trained!r}; "
                    "convert the column, or name the unit with --reader.units"
                )
        for kind in ("past", "future", "static"):
            have = [str(v) for v in data[f"{kind}_variate"].values] if kind in data else []
            absent = [name for name in self.schema[kind] if name not in have]
            if absent:
                raise ForetideError(
                    f"{_source(data)}: the {kind} covariate {absent[0]!r} is missing, with which the model was "
                    f"trained; add the column and name it with --reader.{kind}"
                )
        # units that only the training knew are carried over, so that they survive to the forecast
        if not any(self.schema["units"]):
            return chosen
        units = [
            found or trained
            for trained, found in zip(self.schema["units"], chosen["unit"].values.tolist(), strict=True)
        ]
        return chosen.assign_coords(unit=("variate", np.array(units, dtype=object)))

    def _panel(self, series: Series, tail: int | None = None) -> tuple[Panel, Panel, Scaler]:
        """The series as tensors, in original and in scaled units, with the scaler that belongs to them."""
        panel = panels.of(series, self.horizon, self.schema["calendar"], self.config.holidays, tail)
        scaler = self.scaler.match(panel)
        return panel, scaler.apply(panel).to(self.device), scaler

    def _intervals(self, series: Series) -> Intervals:
        method = self.config.intervals.method
        if method != "adaptive" or isinstance(series, LongSeries):
            return self.calibration.intervals(method, 2 if isinstance(series, LongSeries) else 1)
        key = self._replayed(series)
        if self._followed is None or self._followed[0] != key:
            self._followed = (key, self._follow(self._panel(series)[1]))
        return self._followed[1]

    def _replayed(self, series: xr.Dataset) -> str:
        """Checksum of all that the followed intervals depend on."""
        end = schema.last_observed(series) + 1
        rows = slice(max(0, end - REPLAYED_ORIGINS - int(self.schema["lookback"])), end + self.horizon)
        digest = hashlib.sha256(str(series["time"].values[end - 1]).encode())
        for name in ("value", "past", "future"):
            if name in series:
                digest.update(np.ascontiguousarray(series[name].values[rows]).tobytes())
        if "static" in series:
            digest.update(series["static"].values.tobytes())
        return digest.hexdigest()

    def _follow(self, scaled: Panel) -> Intervals:
        """Adaptive intervals after the errors at the most recent origins, as far as their targets are known."""
        intervals = self.calibration.intervals("adaptive")
        lookback, end = int(self.schema["lookback"]), int(scaled.ends[0])
        calibrated = np.datetime64(self.schema["calibrated_until"])
        first = int(np.searchsorted(scaled.times[:end], calibrated, side="right"))
        first = max(first, lookback, end - REPLAYED_ORIGINS)
        if first < end:
            for prediction in predict(self.model, Windows(scaled, lookback, self.horizon, [(first, end)])):
                intervals.quantiles(prediction)
        return intervals

    def _dataset(self, tables: dict[str, Tensor], series: Series, panel: Panel, steps: int) -> xr.Dataset:
        origins = [int(panel.offsets[s]) + int(panel.ends[s]) for s in range(len(panel.ids))]
        times = np.stack([panel.times[o : o + steps] for o in origins])
        source = series.__dict__ if isinstance(series, LongSeries) else series.attrs
        attrs = {
            "title": source["title"],
            "source": source["source"],
            "checksum": source["checksum"],
            "frequency": panel.frequency,
            "time_zone": source.get("time_zone", ""),
            "model": self.config.model,
            "run_id": self.run_id,
            "project": self.schema["project"],
            "intervals": self.config.intervals.method,
            "origin": str(panel.times[origins[0] - 1])[:19],
            "code_version": self.schema["code_version"],
        }
        made = forecast_dataset(
            {name: table.double().numpy() for name, table in tables.items()},
            times,
            panel,
            attrs,
            long=isinstance(series, LongSeries),
        )
        if isinstance(series, LongSeries):
            # the series of a panel may end at different times
            made = made.assign_coords(origin=("unique_id", panel.times[np.array(origins) - 1]))
        return made


def forecast_dataset(
    tables: dict[str, np.ndarray],
    times: np.ndarray,
    panel: Panel,
    attrs: dict[str, str],
    *,
    long: bool = False,
    levels: Sequence[float] = LEVELS,
) -> xr.Dataset:
    """Named forecasts from arrays with a leading axis of series; see `Predictor.forecast` for the form.

    Args:
        tables: ``forecast (S, H, C)``, ``quantile (S, H, C, Q)``, ``sample (S, N, H, C)``.
        times: ``(S, H)``.
        long: Whether the data are many series in long form.
    """
    unit = ("variate", np.array(panel.units, dtype=object))
    coordinates = {"variate": np.array(panel.variates, dtype=object), "unit": unit, "level": np.array(levels)}
    if not long:
        dims = {
            "forecast": ("time", "variate"),
            "quantile": ("time", "variate", "level"),
            "sample": ("path", "time", "variate"),
        }
        data = {name: (dims[name], table[0]) for name, table in tables.items()}
        return xr.Dataset(data, coords={"time": times[0], **coordinates}, attrs=attrs)
    dims = {
        "forecast": ("unique_id", "step", "variate"),
        "quantile": ("unique_id", "step", "variate", "level"),
        "sample": ("unique_id", "path", "step", "variate"),
    }
    data = {name: (dims[name], table) for name, table in tables.items()}
    steps = np.arange(1, times.shape[1] + 1)
    return xr.Dataset(
        data,
        coords={
            "unique_id": np.array(panel.ids, dtype=object),
            "step": steps,
            "ds": (("unique_id", "step"), times),
            **coordinates,
        },
        attrs=attrs,
    )


def naive_forecast(series: xr.Dataset, lookback: int, horizon: int, season: int) -> xr.Dataset:
    """What seasonal naive says about the same steps, in original units: the line beside every forecast."""
    from forecasting.baselines import seasonal_naive

    panel = panels.from_series(series, horizon)
    windows = forecast_windows(panel, max(lookback, season), horizon)
    batch = windows.batch(torch.tensor([0]))
    point = seasonal_naive(batch.past, horizon, season, batch.past_mask)
    end = int(panel.ends[0])
    return forecast_dataset(
        {"forecast": point.numpy()},
        panel.times[None, end : end + horizon],
        panel,
        {**series.attrs, "model": "seasonal_naive", "origin": str(panel.times[end - 1])[:19]},
    )


def _restore(config: RunConfig, stored: dict[str, Any], weights: dict[str, Tensor]) -> Forecaster:
    kind = models.find(config.model)
    counts = {name: len(stored[name]) for name in ("variates", "past", "future", "static")}
    season, calendar = int(stored["season"]), len(stored["calendar_names"])
    task = kind.supports.task(config.lookback, config.horizon, season, calendar=calendar, **counts)
    model = kind(
        task,
        models.architecture(config.model, config.architecture),
        Recipe(config.head, config.normalization, config.training),
    )
    own = under(weights, "model.")
    expected = model.state_dict()
    for name, tensor in expected.items():
        if name not in own or own[name].shape != tensor.shape:
            found = tuple(own[name].shape) if name in own else "nothing"
            raise ForetideError(
                f"{artifact.WEIGHTS}: {name}: found {found}, expected {tuple(tensor.shape)} for {config.model}; "
                "the weights belong to another model or size"
            )
    model.load_state_dict(own)
    return model


def _source(series: Series) -> str:
    return series.source if isinstance(series, LongSeries) else str(series.attrs["source"] or series.attrs["title"])
