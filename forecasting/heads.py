"""Heads: what the last axis of a model's output means, its loss, and how it moves with an affine map of the target."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from forecasting import losses
from forecasting.config import HeadOptions
from forecasting.conformal import LEVELS


class Head(ABC):
    """Interprets outputs ``(B, H, C, P)``.

    Attributes:
        size: P, the number of outputs per step and variate.
    """

    size: int

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Sum of the loss over the scored elements of ``target (B, H, C)``."""

    @abstractmethod
    def affine(self, output: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        """The outputs for ``target · scale + location``, given those for ``target``; both ``(B, 1, C)``."""

    @abstractmethod
    def point(self, output: Tensor) -> Tensor:
        """Point forecast ``(B, H, C)``."""

    def quantiles(self, output: Tensor, levels: Tensor) -> Tensor | None:
        """Quantiles ``(B, H, C, Q)``, or None for a head that has none of its own."""
        return None


class PointHead(Head):
    """One number per step, trained by MSE, MAE or Huber."""

    size = 1

    def __init__(self, loss: str, delta: float) -> None:
        self._loss, self._delta = loss, delta

    def loss(self, output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """See `Head.loss`."""
        value = output[..., 0].float()
        if self._loss == "huber":
            return losses.huber(value, target, mask, self._delta)
        return {"mse": losses.squared, "mae": losses.absolute}[self._loss](value, target, mask)

    def affine(self, output: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        """See `Head.affine`."""
        return output * scale[..., None] + location[..., None]

    def point(self, output: Tensor) -> Tensor:
        """See `Head.point`."""
        return output[..., 0]


class QuantileHead(Head):
    """Quantiles at fixed levels, trained by the pinball loss; crossing is undone by sorting."""

    def __init__(self, levels: tuple[float, ...] = tuple(LEVELS)) -> None:
        self.levels, self.size = levels, len(levels)

    def loss(self, output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """See `Head.loss`."""
        return losses.pinball(output.float(), target, mask, output.new_tensor(self.levels, dtype=torch.float32))

    def affine(self, output: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        """See `Head.affine`."""
        return output * scale[..., None] + location[..., None]

    def point(self, output: Tensor) -> Tensor:
        """The median."""
        return output.sort(dim=-1).values[..., self.size // 2]

    def quantiles(self, output: Tensor, levels: Tensor) -> Tensor:
        """Linear interpolation between the trained levels; the outermost ones are held beyond them."""
        ordered, known = output.sort(dim=-1).values, output.new_tensor(self.levels)
        right = torch.searchsorted(known, levels.to(known)).clamp(1, self.size - 1)
        share = ((levels.to(known) - known[right - 1]) / (known[right] - known[right - 1])).clamp(0, 1)
        return ordered[..., right - 1] * (1 - share) + ordered[..., right] * share


class StudentTHead(Head):
    """Mixture of Student-t distributions; outputs are K weights, locations, scales and degrees of freedom."""

    def __init__(self, components: int) -> None:
        self.components, self.size = components, 4 * components

    def _parameters(self, output: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        weights, location, scale, freedom = output.float().chunk(4, dim=-1)
        # more than two degrees of freedom, so that mean and variance exist
        return F.log_softmax(weights, dim=-1), location, scale.exp().clamp(min=1e-5), 2.0 + F.softplus(freedom)

    def loss(self, output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """See `Head.loss`."""
        return losses.student_t_mixture(*self._parameters(output), target=target, mask=mask)

    def affine(self, output: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        """Moves the locations and adds to the logarithms of the scales; weights and freedoms stay."""
        weights, mean, log_scale, freedom = output.chunk(4, dim=-1)
        scale, location = scale[..., None], location[..., None]
        return torch.cat([weights, mean * scale + location, log_scale + scale.log(), freedom], dim=-1)

    def point(self, output: Tensor) -> Tensor:
        """The mean of the mixture."""
        log_weights, location, _, _ = self._parameters(output)
        return (log_weights.exp() * location).sum(-1)

    def quantiles(self, output: Tensor, levels: Tensor, points: int = 64) -> Tensor:
        """Quantiles of the mixture from ``points`` equally likely support points of each component.

        Deterministic, and the same whatever else is in the batch, which sampling would not be. The share of the mixture
        below a quantile is within 0.001 of its level for one component, and within 0.01 for several.
        """
        log_weights, location, scale, freedom = self._parameters(output)
        grid = (torch.arange(points, device=output.device) + 0.5) / points
        support = location[..., None] + scale[..., None] * student_t_quantile(
            grid, freedom[..., None]
        )  # (B, H, C, K, points)
        mass = (log_weights.exp() / points)[..., None].expand(support.shape)
        support, order = support.flatten(-2).sort(dim=-1)
        cumulative = mass.flatten(-2).gather(-1, order).cumsum(-1)
        middle = cumulative - 0.5 * mass.flatten(-2).gather(-1, order)
        wanted = levels.to(middle).expand(*middle.shape[:-1], len(levels)).contiguous()
        right = torch.searchsorted(middle.contiguous(), wanted).clamp(1, middle.shape[-1] - 1)
        low, high = middle.gather(-1, right - 1), middle.gather(-1, right)
        share = ((wanted - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
        return support.gather(-1, right - 1) * (1 - share) + support.gather(-1, right) * share


def student_t_quantile(level: Tensor, freedom: Tensor) -> Tensor:
    """Quantiles of Student's t by Hill's asymptotic expansion (CACM 13, 1970, algorithm 396).

    Relative error below 1e-4 from 2.5 degrees of freedom on, and below 1.4e-3 for all above two.
    """
    tail = 2 * torch.minimum(level, 1 - level)
    a = 1 / (freedom - 0.5)
    b = 48 / a**2
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * torch.sqrt(a * torch.pi / 2) * freedom
    y = (d * tail) ** (2 / freedom)
    far = (
        (1 / (((freedom + 6) / (freedom * y) - 0.089 * d - 0.822) * (freedom + 2) * 3) + 0.5 / (freedom + 4)) * y - 1
    ) * (freedom + 1) / (freedom + 2) + 1 / y
    x = torch.special.ndtri(tail / 2)
    z = x**2
    c = torch.where(freedom < 5, c + 0.3 * (freedom - 4.5) * (x + 0.6), c)
    c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c
    near = (((((0.4 * z + 6.3) * z + 36) * z + 94.5) / c - z - 3) / b + 1) * x
    near = torch.expm1(a * near**2)
    size = torch.sqrt(freedom * torch.where(y > 0.05 + a, near, far).clamp(min=0))
    return torch.where(level < 0.5, -size, size)


def make_head(options: HeadOptions) -> Head:
    """The head that the options describe."""
    if options.kind == "quantile":
        return QuantileHead()
    if options.kind == "student_t":
        return StudentTHead(options.components)
    return PointHead(options.loss, options.huber_delta)
