"""Baselines without training: seasonal naive, drift, and the classical methods of statsforecast.

The first two take batches of windows; a masked or missing value is never read. The classical ones fit each series
anew at each origin, which takes up to seconds, so backtests give them a declared sample of origins.

Source: Hyndman & Athanasopoulos, Forecasting: Principles and Practice, section 5.2.
"""

import warnings
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from datasets.errors import ForetideError
from forecasting.metrics import observed

Classical = Literal["auto_ets", "theta"]
SHORTEST = 10


@torch.no_grad()
def seasonal_naive(past: Tensor, horizon: int, season: int, mask: Tensor | None = None) -> Tensor:
    """Repeats the last season.

    Where the last season has a gap, the last observed value at the same position in an earlier season takes its
    place; where there is none, the last observed value of the variate; and 0 where the lookback holds no value at
    all (the training mean, where values are scaled).

    Args:
        past: ``(B, L, C)``.
        horizon: Steps to forecast, H.
        season: Seasonal period in rows, at most L.
        mask: ``(B, L, C)``, True where observed; by default wherever a number is finite.

    Returns:
        ``(B, H, C)``.

    Raises:
        ValueError: The lookback is shorter than a season.
    """
    lookback = past.shape[1]
    if not 1 <= season <= lookback:
        raise ValueError(f"seasonal naive: season of {season} rows, expected 1 to the lookback of {lookback} rows")
    seen = observed(past, mask)
    surplus = -lookback % season
    seasons = _pad_front(past, surplus).unflatten(1, (-1, season))
    seen_seasons = _pad_front(seen, surplus).unflatten(1, (-1, season))
    pattern = _last_seen(seasons, seen_seasons)
    pattern = torch.where(seen_seasons.any(dim=1), pattern, _last_seen(past, seen).unsqueeze(1))
    return pattern[:, torch.arange(horizon, device=past.device) % season]


@torch.no_grad()
def drift(past: Tensor, horizon: int, mask: Tensor | None = None) -> Tensor:
    """Continues the straight line through the first and the last observed value.

    One observed value is repeated; 0 where there is none.

    Args:
        past: ``(B, L, C)``.
        horizon: Steps to forecast, H.
        mask: ``(B, L, C)``, True where observed; by default wherever a number is finite.

    Returns:
        ``(B, H, C)``.
    """
    lookback = past.shape[1]
    seen = observed(past, mask)
    first, last = _last_seen(past.flip(1), seen.flip(1)), _last_seen(past, seen)
    start = lookback - _last_position(seen.flip(1))
    end = _last_position(seen) - 1
    slope = (last - first) / (end - start).clamp(min=1)
    steps = torch.arange(lookback, lookback + horizon, device=past.device)
    ahead = steps.view(1, -1, 1) - end.unsqueeze(1)
    return last.unsqueeze(1) + slope.unsqueeze(1) * ahead


def classical(name: Classical, history: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """Forecast of AutoETS or the Theta method, fitted to one history by statsforecast.

    Gaps are filled by straight lines first, because neither method knows missing values.

    Args:
        name: ``auto_ets`` (Hyndman et al., 2002) or ``theta`` (Fiorucci et al., 2016, the best of four variants).
        history: ``(T,)`` or ``(T, C)``, variates apart from each other; NaN = missing.
        horizon: Steps to forecast, H.
        season: Seasonal period in rows.

    Returns:
        ``(H,)`` or ``(H, C)``, float64, in the units of the history.

    Raises:
        ForetideError: statsforecast is not installed, the name is unknown, or the history is too short.
    """
    model = classical_model(name, season)
    columns = np.asarray(history, dtype=np.float64).reshape(len(history), -1)
    made = np.stack([_forecast(model, name, column, horizon) for column in columns.T], axis=-1)
    return made.reshape(horizon, *np.shape(history)[1:])


def classical_model(name: str, season: int) -> Any:
    """The unfitted method of statsforecast; errors as for `classical`."""
    if name not in ("auto_ets", "theta"):
        raise ForetideError(f"baseline: found {name!r}, expected auto_ets or theta")
    try:
        from statsforecast.models import AutoETS, AutoTheta
    except ImportError as error:
        raise ForetideError(
            f"baseline: {name} needs statsforecast, which cannot be imported; "
            'install it with: pip install "foretide[classical]"'
        ) from error
    return {"auto_ets": AutoETS, "theta": AutoTheta}[name](season_length=season)


def _forecast(model: Any, name: str, column: np.ndarray, horizon: int) -> np.ndarray:
    known = np.flatnonzero(np.isfinite(column))
    if len(known) < SHORTEST:
        raise ForetideError(
            f"baseline: {name} found {len(known)} observed rows, expected at least {SHORTEST}; "
            "leave it out of the baselines, or give it a longer series"
        )
    filled = np.interp(np.arange(known[0], len(column)), known, column[known])
    with warnings.catch_warnings():
        # a constant series makes its autocorrelations 0/0, which the method then handles
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(model.forecast(y=filled, h=horizon)["mean"], dtype=np.float64)


def _pad_front(values: Tensor, rows: int) -> Tensor:
    """Puts ``rows`` rows of 0 or False before ``(B, L, C)``."""
    return torch.cat([values.new_zeros(values.shape[0], rows, values.shape[2]), values], dim=1)


def _last_position(seen: Tensor) -> Tensor:
    """Position of the last True along dimension 1, counted from 1; 0 where there is none."""
    count = torch.arange(1, seen.shape[1] + 1, device=seen.device).view(1, -1, *[1] * (seen.ndim - 2))
    return (count * seen).amax(dim=1)


def _last_seen(values: Tensor, seen: Tensor) -> Tensor:
    """The last observed value along dimension 1; 0 where there is none."""
    position = _last_position(seen)
    found = values.gather(1, (position - 1).clamp(min=0).unsqueeze(1)).squeeze(1)
    return torch.where(position > 0, found, 0.0)
