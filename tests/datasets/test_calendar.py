import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from datasets import calendar
from datasets.errors import ForetideError

# The formulas of the published `utils/timefeatures.py`, on pandas.
PUBLISHED = {
    "second": lambda index: index.second / 59.0 - 0.5,
    "minute": lambda index: index.minute / 59.0 - 0.5,
    "hour": lambda index: index.hour / 23.0 - 0.5,
    "weekday": lambda index: index.day_of_week / 6.0 - 0.5,
    "day": lambda index: (index.day - 1) / 30.0 - 0.5,
    "yearday": lambda index: (index.day_of_year - 1) / 365.0 - 0.5,
    "week": lambda index: (index.isocalendar().week.to_numpy() - 1) / 52.0 - 0.5,
    "month": lambda index: (index.month - 1) / 11.0 - 0.5,
}


@pytest.mark.parametrize(
    ("frequency", "expected"),
    [
        ("s", ["second", "minute", "hour", "weekday", "day", "yearday"]),
        ("10min", ["minute", "hour", "weekday", "day", "yearday"]),
        ("h", ["hour", "weekday", "day", "yearday"]),
        ("6h", ["hour", "weekday", "day", "yearday"]),
        ("D", ["weekday", "day", "yearday"]),
        ("B", ["weekday", "day", "yearday"]),
        ("W-TUE", ["day", "week"]),
        ("MS", ["month"]),
        ("QS", ["month"]),
        ("YS", []),
    ],
)
def test_features_are_the_published_marks(frequency: str, expected: list[str]) -> None:
    index = pd.date_range("1959-12-28 00:00:07", periods=1009, freq=frequency)
    marks, names = calendar.features(index.to_numpy(), frequency)
    assert list(names) == expected
    assert marks.shape == (1009, len(expected)) and marks.dtype == np.float32
    for column, name in enumerate(names):
        np.testing.assert_allclose(marks[:, column], PUBLISHED[name](index), atol=1e-7, err_msg=name)


def test_every_day_of_a_century_is_placed_as_pandas_places_it() -> None:
    index = pd.date_range("1899-12-25", "2001-01-07", freq="D")
    marks, names = calendar.features(index.to_numpy(), "D", ["weekday", "day", "yearday", "week", "month"])
    expected = np.stack([PUBLISHED[name](index) for name in names], axis=1)
    np.testing.assert_allclose(marks, expected, atol=1e-7)
    assert np.abs(marks).max() <= 0.5


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_the_unit_of_the_stamps_does_not_matter(unit: str) -> None:
    stamps = np.datetime64("2020-02-29T23:45:30") + np.arange(40) * np.timedelta64(15, "m")
    reference, _ = calendar.features(stamps, "15min")
    marks, _ = calendar.features(stamps.astype(f"datetime64[{unit}]"), "15min")
    np.testing.assert_array_equal(marks, reference)


@pytest.mark.parametrize(
    ("alias", "same"),
    [
        ("60min", "h"),
        ("1440min", "D"),
        ("24h", "D"),
        ("7D", "W"),
        ("3600s", "h"),
        ("500ms", "s"),
        ("90min", "15min"),
        ("ME", "MS"),
        ("2MS", "MS"),
        ("QE-DEC", "QS"),
        ("YE-JUN", "YS"),
    ],
)
def test_aliases_of_one_step_have_the_same_features(alias: str, same: str) -> None:
    assert calendar.feature_names(alias) == calendar.feature_names(same)


@pytest.mark.parametrize("frequency", ["", "fortnight", "3", "h h"])
def test_unknown_frequency_is_an_error(frequency: str) -> None:
    with pytest.raises(ForetideError, match="expected a pandas alias such as h, 15min"):
        calendar.feature_names(frequency)


def test_unknown_feature_is_an_error() -> None:
    with pytest.raises(ForetideError, match="found 'moon', expected one of second, minute"):
        calendar.features(np.array(["2020-01-01"], dtype="datetime64[D]"), "D", ["moon"])


def test_holidays_agree_with_those_of_vic_elec(data_folder: Path) -> None:
    frame = pl.read_csv(gzip.decompress((data_folder / "vic_elec" / "vic_elec.csv.gz").read_bytes()))
    times = frame["Time"].str.strip_suffix("Z").to_numpy().astype("datetime64[s]")
    found = calendar.holiday_feature(times, "AU", "VIC", time_zone="Australia/Melbourne")
    theirs = frame["Holiday"].to_numpy()
    assert found.dtype == np.float32 and found.shape == theirs.shape
    assert (found[theirs] == 1).all()
    extra = sorted(set(frame["Date"].to_numpy()[(found == 1) & ~theirs]))
    assert extra == ["2012-04-07", "2013-03-30", "2014-04-19"]  # Easter Saturdays
    by_utc = calendar.holiday_feature(times, "AU", "VIC")
    assert not (by_utc[theirs] == 1).all()


def test_holidays_of_unknown_places_are_errors() -> None:
    times = np.array(["2020-01-01"], dtype="datetime64[D]")
    with pytest.raises(ForetideError, match="found country 'XX'"):
        calendar.holiday_feature(times, "XX")
    with pytest.raises(ForetideError, match=r"found subdivision 'ZZZ' of AU, expected one of .*VIC"):
        calendar.holiday_feature(times, "AU", "ZZZ")
    with pytest.raises(ForetideError, match="found 'Mars/Olympus'"):
        calendar.holiday_feature(times, "AU", time_zone="Mars/Olympus")
    assert calendar.holiday_feature(times[:0], "AU").shape == (0,)
