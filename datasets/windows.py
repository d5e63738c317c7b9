"""Windows as indices into one tensor: a batch is one gather, and no window is ever stored."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch import Tensor

from datasets.errors import ForetideError
from datasets.panel import Panel
from datasets.splits import Borders, Part


@dataclass
class Batch:
    """What a model sees. Letters: B batch, L lookback, H horizon, C variates, F calendar features, P, K, J covariates.

    Args:
        past, past_mask: ``(B, L, C)`` values and whether they are observed.
        past_calendar, future_calendar: ``(B, L, F)``, ``(B, H, F)``.
        future, future_mask: ``(B, H, C)``, the target; absent when forecasting.
        past_covariates: ``(B, L, P)``, known up to the origin.
        future_covariates: ``(B, L + H, K)``, known over the horizon too.
        static: ``(B, J)``.
        series, origin: ``(B,)`` which series, and the row in it of the first target.
    """

    past: Tensor
    past_mask: Tensor
    past_calendar: Tensor
    future_calendar: Tensor
    series: Tensor
    origin: Tensor
    future: Tensor | None = None
    future_mask: Tensor | None = None
    past_covariates: Tensor | None = None
    future_covariates: Tensor | None = None
    static: Tensor | None = None

    def __len__(self) -> int:
        return self.past.shape[0]

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        moved = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return Batch(**{k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in moved.items()})

    def replace(self, **changes: Tensor | None) -> "Batch":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def variates(self, chosen: Tensor) -> "Batch":
        """The same windows with a subset of the variates."""
        names = ("past", "past_mask", "future", "future_mask")
        return self.replace(**{n: t[..., chosen] for n in names if (t := getattr(self, n)) is not None})


def _held(batch: Batch) -> tuple[list[Tensor], list[str]]:
    names = [field.name for field in dataclasses.fields(batch) if getattr(batch, field.name) is not None]
    return [getattr(batch, name) for name in names], names


def _held_with_keys(batch: Batch) -> tuple[list[tuple[pytree.KeyEntry, Tensor]], list[str]]:
    tensors, names = _held(batch)
    return [(pytree.MappingKey(name), tensor) for name, tensor in zip(names, tensors, strict=True)], names


# for torch.export; keys rather than attributes, because its guards confuse attributes of which one begins like another
pytree.register_pytree_node(
    Batch,
    _held,
    lambda tensors, names: Batch(**dict(zip(names, tensors, strict=True))),
    serialized_type_name="datasets.windows.Batch",
    flatten_with_keys_fn=_held_with_keys,
)


class Windows:
    """All windows of one part of a panel.

    Memory does not grow with the number of windows: each series contributes a range of origins, and an index is
    resolved by a binary search over their cumulative counts.

    Args:
        panel: Scaled panel, on the device where batches are wanted.
        lookback: L.
        horizon: H.
        origins: For each series ``(first, end)``, the half-open range of rows at which a horizon may start.
        stride: Rows between two origins.
        with_future: Whether batches carry the target.
    """

    def __init__(
        self,
        panel: Panel,
        lookback: int,
        horizon: int,
        origins: Sequence[tuple[int, int]],
        stride: int = 1,
        with_future: bool = True,
    ) -> None:
        device = panel.value.device
        first = np.array([first for first, _ in origins], dtype=np.int64)
        counts = np.array([max(0, -(-(end - first) // stride)) for first, end in origins], dtype=np.int64)
        self.panel, self.lookback, self.horizon, self.stride, self.with_future = (
            panel,
            lookback,
            horizon,
            stride,
            with_future,
        )
        self._first = torch.from_numpy(first).to(device)
        self._ends = torch.from_numpy(np.cumsum(counts)).to(device)
        self._counts = torch.from_numpy(counts).to(device)
        self._past_steps = torch.arange(-lookback, 0, device=device)
        self._steps = torch.arange(-lookback, horizon, device=device)
        self._length = int(counts.sum())
        # one expanded value stands for a mask of ones, so complete data pays nothing for the support of holes
        last_target = torch.from_numpy(first + (counts - 1) * stride + (horizon if with_future else 0)).to(device)
        self._complete = panel.complete and bool((first >= lookback).all()) and bool((last_target <= panel.ends).all())
        self._true = torch.ones(1, 1, 1, dtype=torch.bool, device=device)

    def __len__(self) -> int:
        return self._length

    @property
    def device(self) -> torch.device:
        """Where batches are made."""
        return self.panel.value.device

    def locate(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Series ``(B,)`` and origin row inside it ``(B,)`` of windows, in the order series, then time."""
        series = torch.searchsorted(self._ends, indices.contiguous(), right=True)
        return series, self._first[series] + (indices - (self._ends[series] - self._counts[series])) * self.stride

    def batch(self, indices: Tensor) -> Batch:
        """The windows with these indices ``(B,)``, as one gather per tensor."""
        panel, indices = self.panel, indices.to(self.device)
        series, origin = self.locate(indices)
        start = panel.offsets[series]
        relative = origin[:, None] + self._steps  # (B, L + H)
        # rows before the start of a short series are masked; the clamp only keeps the gather inside the tensor
        rows = start[:, None] + relative.clamp(min=0)
        past_rows, future_rows = rows[:, : self.lookback], rows[:, self.lookback :]
        shape = (len(indices), self.lookback, len(panel.variates))
        if self._complete:
            past_mask, past = self._true.expand(shape), panel.value[past_rows]
        else:
            past_mask = panel.observed[past_rows] & (relative[:, : self.lookback, None] >= 0)
            past = torch.where(past_mask, panel.value[past_rows], 0.0)
        batch = Batch(past, past_mask, panel.calendar[past_rows], panel.calendar[future_rows], series, origin)
        if self.with_future:
            batch.future = panel.value[future_rows]
            batch.future_mask = self._true.expand(batch.future.shape) if self._complete else panel.observed[future_rows]
        if panel.past is not None:
            batch.past_covariates = panel.past[past_rows]
        if panel.future is not None:
            batch.future_covariates = panel.future[rows]
        if panel.static is not None:
            batch.static = panel.static[series]
        return batch


def part_windows(
    panel: Panel,
    borders: Sequence[Borders],
    part: Part,
    lookback: int,
    horizon: int,
    *,
    min_history: int | None = None,
    stride: int = 1,
) -> Windows:
    """All windows of one part of a split.

    Args:
        borders: One for each series.
        min_history: Rows that must lie before an origin; fewer than the lookback means that the missing ones are
            masked.

    Raises:
        ForetideError: No series is long enough for a single window.
    """
    need = lookback if min_history is None else min(min_history, lookback)
    origins = []
    for border, length in zip(borders, panel.ends.tolist(), strict=True):
        low, end = border.rows(part, need)
        first_target = getattr(border, part)[0]
        origins.append((max(low + need, first_target), min(end, length) - horizon + 1))
    windows = Windows(panel, lookback, horizon, origins, stride)
    if not len(windows):
        longest = int(panel.ends.max())
        raise ForetideError(
            f"the {part} part holds no window: lookback {lookback} + horizon {horizon} = {lookback + horizon} rows "
            f"are needed, the longest series has {longest} rows and its {part} part is {getattr(borders[0], part)}; "
            "shorten --lookback or --horizon, or change --split"
        )
    return windows


def forecast_windows(panel: Panel, lookback: int, horizon: int, min_history: int = 1) -> Windows:
    """One window for each series: the forecast after its last observed value."""
    short = [i for i, n in zip(panel.ids, panel.ends.tolist(), strict=True) if n < min_history]
    if short:
        raise ForetideError(
            f"series {short[0]!r} has fewer than {min_history} rows before the forecast; give at least the lookback "
            f"of {lookback} rows"
        )
    return Windows(panel, lookback, horizon, [(n, n + 1) for n in panel.ends.tolist()], with_future=False)
