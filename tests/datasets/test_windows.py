"""Windows as indices: the same as plain slices, none dropped, holes and short series masked, memory bounded."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from datasets import panel as panels
from datasets import schema
from datasets.errors import ForetideError
from datasets.panel import Panel
from datasets.schema import LongSeries
from datasets.splits import Borders, Part, Ratio, Split, panel_borders
from datasets.windows import Windows, forecast_windows, part_windows

PARTS: tuple[Part, ...] = ("train", "validation", "test")


def one(
    rows: int, variates: int = 2, *, holes: Sequence[tuple[int, int]] = (), horizon: int = 0, **covariates: object
) -> Panel:
    """A panel of one series, whose value in row r of variate c is 100 r + c."""
    values = 100.0 * np.arange(rows)[:, None] + np.arange(variates)
    for row, variate in holes:
        values[row, variate] = np.nan
    stamps = np.datetime64("2024-01-01") + np.arange(rows) * np.timedelta64(1, "h")
    data = schema.series(values, stamps, [f"v{c}" for c in range(variates)], title="t", **covariates)  # type: ignore[arg-type]
    return panels.from_series(data, horizon, calendar_frequency="h")


def many(*lengths: int) -> Panel:
    """A panel whose series s has the value 1000 s + r in its row r."""
    frames = [
        pl.DataFrame(
            {
                "unique_id": f"s{s}",
                "ds": pl.datetime_range(
                    pl.datetime(2020, 1, 1), pl.datetime(2020, 1, 1) + pl.duration(days=n - 1), "1d", eager=True
                ),
                "y": [1000.0 * s + r for r in range(n)],
            }
        )
        for s, n in enumerate(lengths)
    ]
    return panels.from_long(LongSeries(pl.concat(frames), "D"), calendar_frequency="D")


def everything(windows: Windows) -> Tensor:
    return torch.arange(len(windows))


def test_every_window_is_the_plain_slice() -> None:
    past = {"p": np.arange(60) * 2.0}
    future = {"f": np.arange(60) * 3.0}
    panel = one(60, past=past, future=future, static={"s": 5.0})
    windows = Windows(panel, 7, 4, [(7, 57)])
    batch = windows.batch(everything(windows))
    assert len(windows) == len(batch) == 50
    for number, origin in enumerate(range(7, 57)):
        seen, ahead = slice(origin - 7, origin), slice(origin, origin + 4)
        assert batch.origin[number] == origin and batch.series[number] == 0
        assert torch.equal(batch.past[number], panel.value[seen]) and batch.past_mask[number].all()
        assert batch.future is not None and torch.equal(batch.future[number], panel.value[ahead])
        assert batch.future_mask is not None and batch.future_mask[number].all()
        assert torch.equal(batch.past_calendar[number], panel.calendar[seen])
        assert torch.equal(batch.future_calendar[number], panel.calendar[ahead])
        assert batch.past_covariates is not None and batch.future_covariates is not None and batch.static is not None
        assert batch.past_covariates[number, :, 0].tolist() == past["p"][seen].tolist()
        assert batch.future_covariates[number, :, 0].tolist() == future["f"][origin - 7 : origin + 4].tolist()
        assert batch.static[number].tolist() == [5.0]


@pytest.mark.parametrize("stride", [1, 2, 3, 7, 100])
def test_a_stride_steps_over_origins(stride: int) -> None:
    windows = Windows(one(60), 5, 3, [(5, 41)], stride)
    assert windows.batch(everything(windows)).origin.tolist() == list(range(5, 41, stride))


def test_series_come_one_after_another_and_empty_ranges_hold_nothing() -> None:
    panel = many(30, 8, 25, 40)
    windows = Windows(panel, 6, 2, [(6, 20), (9, 3), (10, 13), (6, 7)])
    series, origin = windows.locate(everything(windows))
    assert list(zip(series.tolist(), origin.tolist(), strict=True)) == [
        *[(0, o) for o in range(6, 20)],
        *[(2, o) for o in range(10, 13)],
        (3, 6),
    ]
    batch = windows.batch(everything(windows))
    assert torch.equal(batch.past[:, :, 0], 1000.0 * series[:, None] + origin[:, None] + torch.arange(-6, 0))
    assert batch.future is not None
    assert torch.equal(batch.future[:, :, 0], 1000.0 * series[:, None] + origin[:, None] + torch.arange(2))


def test_any_order_of_indices_gives_the_same_windows() -> None:
    windows = Windows(many(30, 25), 6, 2, [(6, 20), (10, 13)])
    order = torch.randperm(len(windows))
    whole, shuffled = windows.batch(everything(windows)), windows.batch(order)
    for field in dataclasses.fields(whole):
        value = getattr(whole, field.name)
        assert value is None or torch.equal(value[order], getattr(shuffled, field.name))


@pytest.mark.parametrize(("lookback", "horizon"), [(96, 96), (96, 192), (96, 336), (96, 720), (336, 96)])
def test_counts_are_those_of_the_published_ett_loader(lookback: int, horizon: int) -> None:
    borders, panel = Split(8640, 2880, 2880).borders(17420), one(17420, 1)
    counts = {part: len(part_windows(panel, [borders], part, lookback, horizon)) for part in PARTS}
    # rows between its two borders, less lookback and horizon, plus one; validation and test begin a lookback early
    later = 2880 - horizon + 1
    assert counts == {"train": 8640 - lookback - horizon + 1, "validation": later, "test": later}
    if (lookback, horizon) == (96, 96):
        assert tuple(counts.values()) == (8449, 2785, 2785)


@pytest.mark.parametrize(
    "borders",
    [
        Ratio().borders(203),
        Ratio(0.6, 0.2, 0.2, overlap=False, rounding="edges").borders(203),
        Ratio(rounding="parts").borders(203),
        Split(100, 40, 40).borders(203),
    ],
)
def test_no_window_of_a_part_is_dropped_and_none_leaves_it(borders: Borders) -> None:
    panel, lookback, horizon = one(203, 1), 13, 5
    for part in PARTS:
        first, end = getattr(borders, part)
        reach = 0 if part != "train" and borders.overlap else first
        possible = [o for o in range(203) if o >= first and o - lookback >= reach and o + horizon <= end]
        windows = part_windows(panel, [borders], part, lookback, horizon)
        assert windows.batch(everything(windows)).origin.tolist() == possible


def test_a_part_without_a_window_says_how_many_rows_are_needed() -> None:
    words = r"test part holds no window: lookback 20 \+ horizon 50 = 70 rows are needed"
    with pytest.raises(ForetideError, match=words):
        part_windows(one(203), [Ratio().borders(203)], "test", 20, 50)


def test_short_series_are_padded_in_front_and_masked() -> None:
    panel, lengths = many(4, 30, 12), (4, 30, 12)
    borders = panel_borders(lengths, 2)
    windows = part_windows(panel, borders, "test", 10, 2, min_history=2)
    batch = windows.batch(everything(windows))
    assert batch.series.tolist() == [0, 1, 2] and batch.origin.tolist() == [2, 28, 10]
    assert batch.past_mask[:, :, 0].sum(1).tolist() == [2, 10, 10]
    assert batch.past_mask[0, :, 0].tolist() == [False] * 8 + [True] * 2
    assert batch.past[0, :, 0].tolist() == [0.0] * 8 + [0.0, 1.0]
    assert batch.future is not None and batch.future_mask is not None and batch.future_mask.all()
    assert batch.future[:, :, 0].tolist() == [[2, 3], [1028, 1029], [2010, 2011]]
    with pytest.raises(ForetideError, match="no window"):
        part_windows(many(4, 5), panel_borders((4, 5), 2), "test", 10, 2)


def test_holes_are_masked_whatever_stands_there() -> None:
    holes = [(10, 0), (11, 0), (11, 1), (20, 1)]
    panel = one(60, holes=holes)
    spoilt = dataclasses.replace(panel, value=torch.where(panel.observed, panel.value, 1e9))
    clean, dirty = (Windows(p, 7, 4, [(7, 57)]) for p in (panel, spoilt))
    one_batch, other = clean.batch(everything(clean)), dirty.batch(everything(dirty))
    assert torch.equal(one_batch.past, other.past) and torch.equal(one_batch.past_mask, other.past_mask)
    assert one_batch.future_mask is not None
    for number, origin in enumerate(range(7, 57)):
        for row, variate in holes:
            if origin - 7 <= row < origin:
                assert not one_batch.past_mask[number, row - origin + 7, variate]
                assert one_batch.past[number, row - origin + 7, variate] == 0
            elif origin <= row < origin + 4:
                assert not one_batch.future_mask[number, row - origin, variate]
    inside = [(7 <= row < 60) for row, _ in holes]
    assert (~one_batch.future_mask).sum() == 4 * sum(inside)


def test_targets_after_the_last_observation_are_masked() -> None:
    panel = one(40, horizon=4)
    batch = Windows(panel, 7, 4, [(37, 41)]).batch(torch.arange(4))
    assert batch.future_mask is not None
    assert batch.future_mask[:, :, 0].sum(1).tolist() == [3, 2, 1, 0]


def test_a_forecast_window_ends_at_the_last_observation_of_each_series() -> None:
    panel = many(30, 8, 12)
    windows = forecast_windows(panel, 10, 0)
    batch = windows.batch(everything(windows))
    assert batch.origin.tolist() == [30, 8, 12] and batch.future is None and batch.future_mask is None
    assert batch.past[:, -1, 0].tolist() == [29, 1007, 2011]
    assert batch.past_mask[1, :, 0].tolist() == [False] * 2 + [True] * 8
    with pytest.raises(ForetideError, match="series 's1' has fewer than 9 rows"):
        forecast_windows(panel, 10, 0, min_history=9)


def test_a_batch_of_some_variates() -> None:
    batch = Windows(one(30, 4, holes=[(9, 2)]), 7, 4, [(7, 27)]).batch(torch.tensor([0, 5]))
    some = batch.variates(torch.tensor([1, 2]))
    assert some.future is not None and batch.future is not None and some.future_mask is not None
    assert torch.equal(some.past, batch.past[..., 1:3]) and torch.equal(some.future, batch.future[..., 1:3])
    assert some.past_mask.shape == some.past.shape and some.future_mask.shape == some.future.shape
    assert torch.equal(some.past_calendar, batch.past_calendar)


def own_bytes(windows: Windows) -> int:
    """Bytes of all that windows hold besides the panel."""
    panel = {id(getattr(windows.panel, field.name)) for field in dataclasses.fields(windows.panel)}
    tensors = [t for t in vars(windows).values() if isinstance(t, Tensor) and id(t) not in panel]
    return sum(t.untyped_storage().nbytes() for t in tensors)


def test_memory_does_not_grow_with_the_number_of_windows() -> None:
    panel = one(20_000, 1)
    few, all_of_them = (Windows(panel, 48, 12, [(48, end)]) for end in (60, 19_988))
    assert len(few) == 12 and len(all_of_them) == 19_940
    assert own_bytes(few) == own_bytes(all_of_them) < 1000
    assert all_of_them.panel.value.data_ptr() == panel.value.data_ptr()
    batch = all_of_them.batch(torch.arange(32))
    assert batch.past.untyped_storage().nbytes() == 32 * 48 * panel.value.element_size()
    # complete data pays one byte for its masks
    assert batch.past_mask.untyped_storage().nbytes() == 1
