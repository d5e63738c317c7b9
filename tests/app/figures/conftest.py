"""A small forecast with everything that figures and report show, scored honestly."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import xarray as xr

from datasets import schema

DAY, HORIZON, DAYS = 24, 24, 60
VARIATES, UNITS = ("load", "temperature", "flow"), {"load": "MW", "temperature": "°C"}
LEVELS = np.array([0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975])
BANDS = {50: (2, 4), 80: (1, 5), 95: (0, 6)}
HOUR = np.timedelta64(1, "h")


@dataclass(frozen=True)
class Example:
    """What the functions under test are given."""

    history: xr.Dataset
    forecast: xr.Dataset
    naive: xr.Dataset
    check: xr.Dataset
    check_naive: xr.Dataset
    metrics: dict[str, Any]


@pytest.fixture(scope="session")
def example() -> Example:
    """Three hourly variates with a daily cycle; the model is the mean of the last seven days, hour by hour."""
    generator = np.random.default_rng(7)
    hours = np.arange(DAY * DAYS)
    cycle = np.sin(2 * np.pi * hours / DAY)[:, None] * np.array([4.0, 2.0, 0.5])
    values = np.array([20.0, 8.0, 3.0]) + cycle + generator.normal(0, 1, (len(hours), 3)) * np.array([1.0, 0.5, 0.3])
    times = np.datetime64("2024-01-01T00", "ns") + hours * HOUR
    history = schema.series(values, times, VARIATES, units=UNITS, source="plant.csv", title="Plant", checksum="ab" * 32)
    residuals = {name: _errors(values, model, range(20 * DAY, 40 * DAY)) for name, model in MODELS.items()}
    quantiles = {name: np.moveaxis(np.quantile(errors, LEVELS, axis=0), 0, -1) for name, errors in residuals.items()}
    metrics = _metrics(values, quantiles)
    made = [
        _forecast(history, name, quantiles[name], origin)
        for origin in (len(values), len(values) - HORIZON)
        for name in MODELS
    ]
    return Example(history, made[0], made[1], made[2], made[3], metrics)


def _weekly_mean(past: np.ndarray) -> np.ndarray:
    return past[-7 * DAY :].reshape(7, DAY, -1).mean(0)


MODELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "itransformer": _weekly_mean,
    "seasonal_naive": lambda past: past[-DAY:],
}


def _errors(values: np.ndarray, model: Callable[[np.ndarray], np.ndarray], origins: range) -> np.ndarray:
    return np.stack([values[origin : origin + HORIZON] - model(values[:origin]) for origin in origins])


def _forecast(history: xr.Dataset, name: str, quantiles: np.ndarray, origin: int) -> xr.Dataset:
    point = MODELS[name](history["value"].values[:origin])
    times = history["time"].values[origin - 1] + np.arange(1, HORIZON + 1) * HOUR
    spread = point[..., None] + quantiles
    return xr.Dataset(
        {"forecast": (("time", "variate"), point), "quantile": (("time", "variate", "level"), spread)},
        coords={"time": times, "variate": history["variate"], "unit": history["unit"], "level": LEVELS},
        attrs={"model": name, "frequency": "h", "time_zone": ""},
    )


def _metrics(values: np.ndarray, quantiles: dict[str, np.ndarray]) -> dict[str, Any]:
    deviation = values[: 20 * DAY].std(0)
    origins = range(40 * DAY, len(values) - HORIZON + 1)
    errors = {name: _errors(values, model, origins) for name, model in MODELS.items()}
    scores: dict[str, Any] = {}
    steps: dict[str, Any] = {}
    for name, error in errors.items():
        scaled, limits = error / deviation, np.moveaxis(quantiles[name], -1, 0)
        inside = {percent: (error >= limits[low]) & (error <= limits[high]) for percent, (low, high) in BANDS.items()}
        scores[name] = {
            "mse": float((scaled**2).mean()),
            "mae": float(abs(scaled).mean()),
            "mae_original": float(abs(error).mean()),
            **{f"coverage_{percent}": float(held.mean()) for percent, held in inside.items()},
        }
        steps[name] = {
            "mae": abs(scaled).mean((0, 2)).tolist(),
            "mse": (scaled**2).mean((0, 2)).tolist(),
            **{f"coverage_{percent}": held.mean((0, 2)).tolist() for percent, held in inside.items()},
        }
    for row in scores.values():
        row["skill_mae"] = 1 - row["mae"] / scores["seasonal_naive"]["mae"]
    variates = {
        name: {"mae": dict(zip(VARIATES, abs(error / deviation).mean((0, 1)).tolist(), strict=True))}
        for name, error in errors.items()
    }
    difference = ((errors["itransformer"] / deviation) ** 2 - (errors["seasonal_naive"] / deviation) ** 2).mean((1, 2))
    margin = 2 * float(difference.std()) / np.sqrt(len(difference) / HORIZON)
    middle = float(difference.mean())
    entry = {
        "model": "itransformer",
        "baseline": "seasonal_naive",
        "difference": middle,
        "lower": middle - margin,
        "upper": middle + margin,
        "baseline_score": scores["seasonal_naive"]["mse"],
        "verdict": "better",
    }
    epochs = [
        {
            "epoch": epoch,
            "train_loss": 1 / epoch,
            "validation_loss": 0.5 + (epoch - 3) ** 2 / 20,
            "learning_rate": 1e-4,
            "seconds": 1.0,
        }
        for epoch in range(1, 6)
    ]
    return {
        "windows": {"train": 900, "validation": 480, "test": len(difference)},
        "scores": scores,
        "by_step": steps,
        "by_variate": variates,
        "comparison": [{**entry, "metric": "mse"}, {**entry, "metric": "mae"}],
        "training": {"epochs": epochs, "best_epoch": 3, "stopped_early": True},
    }
