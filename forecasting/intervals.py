"""Quantiles of every forecast: from validation errors, from errors that follow the series, or from the head."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from forecasting import conformal
from forecasting.conformal import LEVELS, AdaptiveQuantiles
from forecasting.engine import Prediction

BANDS = (50, 80, 95)
LEVEL_TENSOR = torch.tensor(LEVELS, dtype=torch.float64)


class Intervals(ABC):
    """Gives each prediction its quantiles ``(B, H, C, Q)`` at `LEVELS`, in scaled units."""

    @abstractmethod
    def quantiles(self, prediction: Prediction) -> Tensor:
        """Quantiles of a batch; batches come in the order of the windows."""


class HeadIntervals(Intervals):
    """The quantiles of a probabilistic head as they are."""

    def quantiles(self, prediction: Prediction) -> Tensor:
        """See `Intervals.quantiles`."""
        assert prediction.quantiles is not None
        return prediction.quantiles


class FixedIntervals(Intervals):
    """Split conformal: the point forecast plus fixed quantiles ``(H, C, Q)`` of the validation errors."""

    def __init__(self, residuals: Tensor) -> None:
        self.residuals = residuals

    def quantiles(self, prediction: Prediction) -> Tensor:
        """See `Intervals.quantiles`."""
        return prediction.point[..., None] + self.residuals.to(prediction.point)


class AdaptiveIntervals(Intervals):
    """Quantiles of the errors that follow a drifting series; for one series whose origins come in time order.

    An error counts from the first origin at or after its target time, never earlier.

    Args:
        tracker: Moved as predictions with known targets pass.
        stride: Rows from one origin to the next.
    """

    def __init__(self, tracker: AdaptiveQuantiles, stride: int = 1) -> None:
        self._stream = tracker.stream(stride)

    def quantiles(self, prediction: Prediction) -> Tensor:
        """See `Intervals.quantiles`; learns from the targets of the batch where it has them."""
        batch, point = prediction.batch, prediction.point
        if batch.future is None or batch.future_mask is None:
            return point[..., None] + self._stream.next().to(point)
        issued = self._stream.issue((batch.future - point).cpu(), batch.future_mask.cpu())
        return point[..., None] + issued.to(point)


@dataclass(frozen=True)
class Calibration:
    """What validation teaches about the errors of a model, in scaled units.

    Args:
        residuals: Split conformal quantiles ``(H, C, Q)``.
        tracked: The same after a pass over validation in time order: where the adaptive intervals start.
        scale: ``(H, C)`` robust standard deviation.
        trajectories: ``(K, H, C)`` whole error paths, for sample paths.
    """

    residuals: Tensor
    tracked: Tensor
    scale: Tensor
    trajectories: Tensor

    def intervals(self, method: str, series: int = 1, stride: int = 1) -> Intervals:
        """Fresh intervals of a kind; a panel of many series has no common drift to follow and takes the fixed ones."""
        if method == "head":
            return HeadIntervals()
        if method == "conformal" or series > 1:
            return FixedIntervals(self.residuals)
        return AdaptiveIntervals(AdaptiveQuantiles(self.tracked.clone(), self.scale), stride)

    def tensors(self) -> dict[str, Tensor]:
        """For an artifact."""
        return {
            "residuals": self.residuals,
            "tracked": self.tracked,
            "scale": self.scale,
            "trajectories": self.trajectories,
        }

    @staticmethod
    def from_tensors(stored: Mapping[str, Tensor]) -> "Calibration":
        """The inverse of `tensors`."""
        return Calibration(stored["residuals"], stored["tracked"], stored["scale"], stored["trajectories"])


def calibrate(predictions: Iterable[Prediction], trajectories: int, seed: int, one_series: bool) -> Calibration:
    """Learns from the predictions of all validation windows.

    Args:
        trajectories: Error paths to keep.
        one_series: Whether the windows are one series in time order, so that errors can be followed.
    """
    errors, masks = [], []
    for prediction in predictions:
        batch = prediction.batch
        assert batch.future is not None and batch.future_mask is not None
        errors.append((batch.future - prediction.point).cpu())
        masks.append(batch.future_mask.cpu())
    residuals, mask = torch.cat(errors), torch.cat(masks)
    fixed, scale = conformal.residual_quantiles(residuals, mask), conformal.residual_scale(residuals, mask)
    # a step and variate without a single known error gets no width at all rather than NaN, which nothing could store
    fixed, scale = torch.nan_to_num(fixed), torch.nan_to_num(scale)
    tracker = AdaptiveQuantiles(fixed.clone(), scale)
    if one_series:
        tracker.update(residuals, mask)
    paths = conformal.trajectories(residuals, min(trajectories, len(residuals)), seed, mask)
    return Calibration(fixed, tracker.quantiles, scale, paths)


def band(quantiles: Tensor, percent: int) -> tuple[Tensor, Tensor]:
    """Lower and upper end of the central interval with a coverage in percent, out of quantiles ``(..., Q)``."""
    return conformal.band(quantiles, percent / 100)
