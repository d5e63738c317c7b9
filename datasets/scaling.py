"""Scaling fitted on training rows only, and invertible transforms of bounded targets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from datasets.errors import ForetideError
from datasets.options import require
from datasets.panel import Panel


@dataclass(frozen=True)
class ScalingOptions:
    """How targets are brought to a common scale.

    Args:
        kind: ``standard`` subtracts the mean and divides by the standard deviation (ddof 0) of the training rows.
        transform: ``log`` for non-negative targets (log(1 + x)), ``logit`` for targets between ``lower`` and ``upper``;
            forecasts then stay inside those bounds.
        lower, upper: Bounds for ``logit``.
    """

    kind: Literal["standard", "none"] = "standard"
    transform: Literal["none", "log", "logit"] = "none"
    lower: float = 0.0
    upper: float = 1.0

    def __post_init__(self) -> None:
        require(self.lower < self.upper, "scaling.lower", self.lower, f"a bound below scaling.upper = {self.upper}")

    def forward(self, value: Tensor) -> Tensor:
        """Original units → unbounded numbers."""
        if self.transform == "log":
            return torch.log1p(value)
        if self.transform == "logit":
            # a value on the bound itself would be infinite: it is moved inside by a millionth of the range
            share = ((value - self.lower) / (self.upper - self.lower)).clamp(1e-6, 1 - 1e-6)
            return torch.logit(share)
        return value

    def inverse(self, value: Tensor) -> Tensor:
        """Unbounded numbers → original units; monotone, so quantiles stay quantiles."""
        if self.transform == "log":
            return torch.expm1(value).clamp(min=0.0)
        if self.transform == "logit":
            return self.lower + (self.upper - self.lower) * torch.sigmoid(value)
        return value

    def check(self, value: Tensor, observed: Tensor, names: Sequence[str], where: str) -> None:
        """Refuses values outside the bounds that the transform needs."""
        if self.transform == "none":
            return
        low, high = (0.0, float("inf")) if self.transform == "log" else (self.lower, self.upper)
        bad = observed & ((value < low) | (value > high))
        if bad.any():
            row, column = (int(x) for x in torch.nonzero(bad)[0])
            raise ForetideError(
                f"{where}: {names[column]!r} is {float(value[row, column]):g} in row {row + 1}, but scaling.transform "
                f"{self.transform} expects values from {low:g} to {high:g}; choose another transform or bounds"
            )


@dataclass(frozen=True)
class Scaler:
    """Fitted scaling of targets and covariates.

    Args:
        ids: Series for which ``location`` and ``scale`` ``(S, C)`` were fitted.
        covariates: ``kind → (location, scale)`` of the covariates, ``(P,)`` each, pooled over series.
    """

    options: ScalingOptions
    ids: tuple[str, ...]
    location: Tensor
    scale: Tensor
    covariates: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @staticmethod
    def fit(panel: Panel, rows: Sequence[tuple[int, int]], options: ScalingOptions) -> "Scaler":
        """Fits on the rows ``(first, end)`` of each series: the training rows, and no others.

        Args:
            panel: In original units.
        """
        chosen = torch.zeros(len(panel.times), dtype=torch.bool)
        for start, (first, end) in zip(panel.offsets[:-1].tolist(), rows, strict=True):
            chosen[start + first : start + end] = True
        options.check(panel.value, panel.observed, panel.variates, panel.ids[0])
        value = options.forward(panel.value)
        location, scale = [], []
        for series in range(len(panel.ids)):
            span = panel.rows(series)
            use = panel.observed[span] & chosen[span, None]
            mean, deviation = _moments(value[span], use)
            location.append(mean)
            scale.append(deviation)
        covariates = {}
        for kind in ("past", "future"):
            table = getattr(panel, kind)
            if table is not None:
                covariates[kind] = _moments(table, torch.isfinite(table) & chosen[:, None])
        if panel.static is not None:
            covariates["static"] = _moments(panel.static, torch.isfinite(panel.static))
        fitted = Scaler(options, panel.ids, torch.stack(location), torch.stack(scale), covariates)
        if options.kind == "none":
            fitted = replace(fitted, location=torch.zeros_like(fitted.location), scale=torch.ones_like(fitted.scale))
        return fitted

    def match(self, panel: Panel) -> "Scaler":
        """The scaler for another panel: known series keep their statistics, new ones take those of their history."""
        if panel.ids == self.ids:
            return self
        if len(panel.ids) == 1 and len(self.ids) == 1 and self.location.shape[1] == len(panel.variates):
            return replace(self, ids=panel.ids)
        known = {name: row for row, name in enumerate(self.ids)}
        own = Scaler.fit(panel, [(0, n) for n in panel.ends.tolist()], self.options)
        location, scale = own.location.clone(), own.scale.clone()
        for row, name in enumerate(panel.ids):
            if name in known:
                location[row], scale[row] = self.location[known[name]], self.scale[known[name]]
        return replace(self, ids=panel.ids, location=location, scale=scale)

    def apply(self, panel: Panel) -> Panel:
        """The panel in scaled units, float32; unobserved values and covariates become 0."""
        counts = panel.offsets.diff()
        location = self.location.repeat_interleave(counts, dim=0)
        scale = self.scale.repeat_interleave(counts, dim=0)
        self.options.check(panel.value, panel.observed, panel.variates, panel.ids[0])
        scaled = (self.options.forward(panel.value) - location) / scale
        tables: dict[str, Any] = {}
        for kind, (mean, deviation) in self.covariates.items():
            table = getattr(panel, kind)
            if table is not None:
                tables[kind] = torch.nan_to_num((table - mean) / deviation).float()
        return replace(panel, value=torch.where(panel.observed, scaled, 0.0).float(), **tables)

    def inverse(self, value: Tensor, series: Tensor) -> Tensor:
        """Scaled ``(B, H, C)`` or ``(B, H, C, Q)`` → original units.

        Args:
            series: ``(B,)`` the series of each row.
        """
        shape = (len(series), 1, self.location.shape[1]) + (1,) * (value.dim() - 3)
        location = self.location.to(value.device, value.dtype)[series].reshape(shape)
        scale = self.scale.to(value.device, value.dtype)[series].reshape(shape)
        return self.options.inverse(value * scale + location)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``scaling.json``."""
        from datasets.options import plain

        return {
            "options": plain(self.options),
            "ids": list(self.ids),
            "location": self.location.tolist(),
            "scale": self.scale.tolist(),
            "covariates": {
                kind: {"location": m.tolist(), "scale": s.tolist()} for kind, (m, s) in self.covariates.items()
            },
        }

    @staticmethod
    def from_dict(stored: Mapping[str, Any], where: str = "scaling.json") -> "Scaler":
        """The inverse of `to_dict`."""
        from datasets.options import build

        try:
            covariates = {kind: (_table(v["location"]), _table(v["scale"])) for kind, v in stored["covariates"].items()}
            return Scaler(
                build(ScalingOptions, stored["options"], where),
                tuple(stored["ids"]),
                _table(stored["location"]),
                _table(stored["scale"]),
                covariates,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ForetideError(f"{where}: {error} does not fit the stored form; export the model again") from error


def _table(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _moments(value: Tensor, use: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (ddof 0) over the first axis of the values in use; a constant gets the scale 1."""
    count = use.sum(0).clamp(min=1)
    mean = torch.where(use, value, 0.0).sum(0) / count
    variance = torch.where(use, (value - mean) ** 2, 0.0).sum(0) / count
    deviation = variance.sqrt()
    return mean, torch.where(deviation > 1e-12 * (1.0 + mean.abs()), deviation, 1.0)
