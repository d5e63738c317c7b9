"""Flat tensors of one or many series: what is observed, where each series lies, and what follows its end."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
import torch
import xarray as xr

from datasets import calendar, panel, schema
from datasets.errors import ForetideError
from datasets.schema import LongSeries

STAMPS = np.datetime64("2024-02-28T20") + np.arange(8) * np.timedelta64(1, "h")


def table(**covariates: object) -> xr.Dataset:
    values = np.arange(16.0).reshape(8, 2)
    values[3, 0] = np.nan
    values[6:] = np.nan
    return schema.series(values, STAMPS, ["a", "b"], units={"b": "kW"}, title="t", source="t.csv", **covariates)  # type: ignore[arg-type]


def frame(lengths: dict[str, int], start: str = "2024-01-30", **columns: list[float]) -> pl.DataFrame:
    first = datetime.fromisoformat(start)
    rows = [
        {"unique_id": name, "ds": first + timedelta(days=row), "y": 10.0 * number + row}
        for number, (name, length) in enumerate(lengths.items())
        for row in range(length)
    ]
    made = pl.DataFrame(rows).with_columns(pl.col("ds").cast(pl.Datetime("us")))
    return made.with_columns(**{name: pl.Series(values) for name, values in columns.items()})


def test_a_table_is_a_panel_of_one_series() -> None:
    made = panel.from_series(table())
    assert made.value.shape == (8, 2) and made.value.dtype == torch.float64
    assert made.offsets.tolist() == [0, 8] and made.ends.tolist() == [6]
    assert made.ids == ("t",) and made.variates == ("a", "b") and made.units == ("", "kW")
    assert made.observed.sum(0).tolist() == [5, 6]
    assert (made.value[~made.observed] == 0).all()
    assert not made.complete and panel.from_series(table().isel(time=slice(0, 3))).complete


def test_rows_for_a_forecast_are_added_where_they_are_missing() -> None:
    made = panel.from_series(table(), horizon=5)
    assert len(made.times) == 11
    np.testing.assert_array_equal(np.diff(made.times), np.timedelta64(1, "h"))
    assert not made.observed[6:].any()
    assert panel.from_series(table(), horizon=1).value.shape[0] == 8


def test_calendar_features_cover_the_future_rows() -> None:
    made = panel.from_series(table(), horizon=5, calendar_frequency="h")
    expected, names = calendar.features(made.times, "h")
    assert made.calendar_names == tuple(names) and made.calendar.dtype == torch.float32
    np.testing.assert_array_equal(made.calendar, expected)
    assert panel.from_series(table()).calendar.shape == (8, 0)


def test_covariates_keep_their_names_and_rows() -> None:
    made = panel.from_series(
        table(past={"p": np.arange(8)}, future={"f": np.arange(8) * 2, "g": np.ones(8)}, static={"s": 4.0, "u": 5.0}),
        horizon=2,
    )
    assert made.past is not None and made.future is not None and made.static is not None
    assert (made.past_names, made.future_names, made.static_names) == (("p",), ("f", "g"), ("s", "u"))
    assert made.past[:, 0].tolist() == list(range(8)) and made.future[:, 0].tolist() == list(range(0, 16, 2))
    assert made.static.tolist() == [[4.0, 5.0]]


def test_a_forecast_needs_the_future_covariates_of_its_horizon() -> None:
    data = table(future={"f": np.ones(8), "g": [1, 1, 1, 1, 1, 1, 1, np.nan]})
    panel.from_series(data, horizon=1)
    with pytest.raises(ForetideError, match=r"t\.csv: the future covariate 'g' has no value 2 steps after the last"):
        panel.from_series(data, horizon=2)
    with pytest.raises(ForetideError, match="'f' has no value 3 steps after"):
        panel.from_series(table(future={"f": np.ones(8)}), horizon=4)


def test_series_of_unequal_length_lie_behind_one_another() -> None:
    made = panel.from_long(LongSeries(frame({"b": 4, "a": 2, "c": 3}), "D", unit="kg"))
    assert made.ids == ("b", "a", "c") and made.units == ("kg",) and made.variates == ("y",)
    assert made.offsets.tolist() == [0, 4, 6, 9] and made.ends.tolist() == [4, 2, 3]
    assert made.value[:, 0].tolist() == [0, 1, 2, 3, 10, 11, 20, 21, 22]
    assert made.complete and made.rows(1) == slice(4, 6)
    assert str(made.times[5])[:10] == "2024-01-31"


def test_each_series_gets_its_own_future_rows() -> None:
    data = frame({"a": 4, "b": 2}).with_columns(y=pl.Series([1.0, None, 3.0, None, 5.0, 6.0]))
    made = panel.from_long(LongSeries(data, "D"), horizon=3)
    assert made.ends.tolist() == [3, 2] and made.offsets.tolist() == [0, 6, 11]
    assert made.observed[:, 0].tolist() == [True, False, True, False, False, False, True, True, False, False, False]
    assert (made.value[~made.observed] == 0).all() and not made.complete
    dates = made.times.astype("datetime64[D]").astype(str).tolist()
    assert dates[:6] == ["2024-01-30", "2024-01-31", "2024-02-01", "2024-02-02", "2024-02-03", "2024-02-04"]
    assert dates[6:] == dates[:5]


def test_covariates_of_many_series() -> None:
    data = frame({"a": 4, "b": 2}, p=[1.0, 2, 3, 4, 5, 6], f=[1.0, 2, 3, 4, 5, 6], s=[9.0, 9, 9, 9, 8, 8])
    data = data.with_columns(y=pl.Series([1.0, 2.0, None, None, 5.0, None]))
    made = panel.from_long(LongSeries(data, "D", past=("p",), future=("f",), static=("s",)), horizon=1)
    assert made.past is not None and made.future is not None and made.static is not None
    assert made.static.tolist() == [[9.0], [8.0]]
    assert made.future[made.offsets[0] + 2, 0] == 3.0
    with pytest.raises(ForetideError, match="series 'b': the future covariate 'f' has no value 2 steps after"):
        panel.from_long(LongSeries(data, "D", future=("f",)), horizon=2)


def test_a_series_without_a_value_is_named() -> None:
    data = frame({"a": 2, "b": 2}).with_columns(y=pl.Series([1.0, 2.0, None, None]))
    with pytest.raises(ForetideError, match="series 'b': every value is missing"):
        panel.from_long(LongSeries(data, "D"))


def test_either_form_becomes_a_panel() -> None:
    assert panel.of(table()).ids == ("t",)
    assert panel.of(LongSeries(frame({"a": 3}), "D"), horizon=2).offsets.tolist() == [0, 5]


def test_moving_a_panel_moves_every_tensor() -> None:
    made = panel.from_series(table(past={"p": np.arange(8)}), calendar_frequency="h").to("meta")
    assert made.past is not None
    tensors = (made.value, made.observed, made.calendar, made.offsets, made.ends, made.past)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
