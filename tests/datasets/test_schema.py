"""The canonical form of series: construction, validation, and the grids that frequencies name."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from datasets import schema
from datasets.errors import ForetideError

STAMPS = np.datetime64("2024-01-01T00") + np.arange(6) * np.timedelta64(1, "h")


def grid(alias: str, rows: int, start: str = "2023-12-31 21:45") -> np.ndarray:
    return pd.date_range(start, periods=rows, freq=alias).to_numpy()


def test_series_has_the_canonical_form() -> None:
    values = np.arange(12.0).reshape(6, 2)
    values[2, 1] = np.nan
    made = schema.series(
        values,
        STAMPS,
        ["load", "temperature"],
        units={"temperature": "°C"},
        source="a.csv",
        past={"wind": np.arange(6)},
        future={"price": np.ones(6), "holiday": np.zeros(6)},
        static={"area": 2.5},
    )
    assert made["value"].dims == ("time", "variate") and made["value"].dtype == np.float64
    np.testing.assert_array_equal(made["value"].values, values)
    assert made["unit"].values.tolist() == ["", "°C"]
    assert made["time"].dtype == np.dtype("datetime64[ns]")
    assert made["past"].dims == ("time", "past_variate") and made["past_variate"].values.tolist() == ["wind"]
    assert made["future"].sel(future_variate="price").values.tolist() == [1.0] * 6
    assert made["static"].sel(static_variate="area").item() == 2.5
    assert made.attrs == {"frequency": "h", "source": "a.csv", "checksum": "", "time_zone": "", "title": "a.csv"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.drop_vars("value"), "expected a variable 'value'"),
        (lambda d: d.transpose("variate", "time"), "(time, variate)"),
        (lambda d: d.assign_attrs({"frequency": "h"}).drop_attrs(), "attribute 'frequency' is missing"),
        (lambda d: d.assign_coords(variate=["a", "a"]), "the variate 'a' occurs twice"),
        (lambda d: d.isel(time=slice(0, 0)), "no row"),
        (lambda d: d.isel(time=[0, 1, 3, 2]), "time stamp 4 "),
        (lambda d: d.isel(time=[0, 1, 1, 2]), "time stamp 3 "),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(change: object, words: str) -> None:
    data = schema.series(np.zeros((6, 2)), STAMPS, ["a", "b"])
    schema.validate(data)
    with pytest.raises(ForetideError) as caught:
        schema.validate(change(data))  # type: ignore[operator]
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "alias", ["s", "10s", "min", "5min", "15min", "30min", "h", "6h", "D", "7D", "W-TUE", "MS", "ME", "QS", "YS", "B"]
)
def test_a_frequency_continues_the_grid_that_it_was_inferred_from(alias: str) -> None:
    whole = grid(alias, 60, start="2023-10-27")
    found = schema.infer_frequency(whole[:40])
    np.testing.assert_array_equal(schema.continue_times(whole[39], found, 20), whole[40:])


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("h", "h"),
        ("60min", "h"),
        ("900s", "15min"),
        ("24h", "D"),
        ("7D", "7D"),
        ("500ms", "500ms"),
        ("MS", "MS"),
        ("YS", "YS-JAN"),
    ],
)
def test_a_frequency_has_its_usual_name(alias: str, name: str) -> None:
    assert schema.infer_frequency(grid(alias, 24, start="2024-01-01")) == name


def test_no_frequency_without_a_grid() -> None:
    with pytest.raises(ForetideError, match="found 2 time stamps, expected at least 3"):
        schema.infer_frequency(STAMPS[:2])
    with pytest.raises(ForetideError, match="regular grid"):
        schema.infer_frequency(STAMPS[[0, 1, 3, 4, 5]])


def test_months_continue_over_a_leap_day() -> None:
    assert schema.continue_times(np.datetime64("2024-02-28T23"), "h", 2).astype(str).tolist() == [
        "2024-02-29T00:00:00.000000000",
        "2024-02-29T01:00:00.000000000",
    ]
    assert schema.continue_times(np.datetime64("2024-01-31"), "ME", 2).astype("datetime64[D]").astype(str).tolist() == [
        "2024-02-29",
        "2024-03-31",
    ]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("h", "60min", True),
        ("h", "h", True),
        ("15min", "900s", True),
        ("7D", "W-TUE", True),
        ("W-MON", "W-SUN", True),
        ("D", "24h", True),
        ("MS", "MS", True),
        ("h", "30min", False),
        ("D", "B", False),
        ("MS", "QS", False),
        ("7D", "D", False),
        ("QS", "QS-OCT", True),
        ("YS", "YS-JAN", True),
    ],
)
def test_two_names_of_one_step(one: str, other: str, same: bool) -> None:
    assert schema.same_frequency(one, other) is same


@pytest.mark.parametrize(
    ("alias", "rows"),
    [
        ("5min", 288),
        ("10min", 144),
        ("15min", 96),
        ("h", 24),
        ("3h", 8),
        ("D", 7),
        ("7D", 52),
        ("W-TUE", 52),
        ("MS", 12),
        ("ME", 12),
        ("QS", 4),
        ("YS", 1),
        ("B", 5),
    ],
)
def test_the_usual_season(alias: str, rows: int) -> None:
    assert schema.season_of(alias) == rows


def test_the_last_row_with_any_observation() -> None:
    values = np.ones((6, 2))
    values[4:, 0] = np.nan
    values[5] = np.nan
    assert schema.last_observed(schema.series(values, STAMPS, ["a", "b"])) == 4
    empty: xr.Dataset = schema.series(np.full((6, 2), np.nan), STAMPS, ["a", "b"], source="x.csv")
    with pytest.raises(ForetideError, match=r"x\.csv: every value is missing"):
        schema.last_observed(empty)
