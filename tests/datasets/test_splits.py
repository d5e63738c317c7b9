"""Chronological splits against the arithmetic of the published loaders, and the windows that each part may hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.errors import ForetideError
from datasets.splits import Borders, Ratio, Split, by_dates, panel_borders


def test_counts_of_rows_leave_later_rows_unused() -> None:
    made = Split(8640, 2880, 2880).borders(17420)
    assert (made.train, made.validation, made.test) == ((0, 8640), (8640, 11520), (11520, 14400))
    with pytest.raises(ForetideError, match="8640 \\+ 2880 \\+ 2880 rows are asked for, the series has 14399"):
        Split(8640, 2880, 2880).borders(14399)


@given(st.integers(60, 100_000))
def test_shares_are_those_of_the_published_loaders(rows: int) -> None:
    # Dataset_Custom of Autoformer: both ends rounded down, validation is what is left
    train, test = int(rows * 0.7), int(rows * 0.2)
    assert Ratio(0.7, 0.1, 0.2).borders(rows) == Borders((0, train), (train, rows - test), (rows - test, rows))
    # Dataset_Solar of iTransformer: border2s = [num_train, num_train + num_vali, len]
    validation = int(rows * 0.1)
    assert Ratio(0.7, 0.1, 0.2, rounding="parts").borders(rows) == Borders(
        (0, train), (train, train + validation), (rows - test, rows)
    )
    # Dataset_PEMS: data[:int(0.6 n)], data[int(0.6 n):int((0.6 + 0.2) n)], data[int((0.6 + 0.2) n):]
    first, second = int(0.6 * rows), int((0.6 + 0.2) * rows)
    assert Ratio(0.6, 0.2, 0.2, overlap=False, rounding="edges").borders(rows) == Borders(
        (0, first), (first, second), (second, rows), overlap=False
    )


@pytest.mark.parametrize("shares", [(0.7, 0.1, 0.1), (0.0, 0.5, 0.5), (0.9, 0.1, 0.0), (1.2, -0.4, 0.2)])
def test_shares_that_do_not_add_up_are_refused(shares: tuple[float, float, float]) -> None:
    with pytest.raises(ForetideError, match="split"):
        Ratio(*shares)


def test_only_validation_and_test_look_back_over_their_border() -> None:
    borders = Borders((0, 100), (100, 150), (150, 200))
    assert borders.rows("train", 24) == (0, 100)
    assert borders.rows("validation", 24) == (76, 150)
    assert borders.rows("test", 180) == (0, 200)
    assert Borders((0, 100), (100, 150), (150, 200), overlap=False).rows("test", 24) == (150, 200)


def test_dates_begin_their_part() -> None:
    stamps = np.datetime64("2024-01-01") + np.arange(100) * np.timedelta64(1, "D")
    made = by_dates(stamps, "2024-02-01", "2024-03-01", "2024-04-01")
    assert (made.train, made.validation, made.test) == ((0, 31), (31, 60), (60, 91))
    assert by_dates(stamps, "2024-02-01", "2024-03-01").test == (60, 100)


@pytest.mark.parametrize(
    ("validation", "test", "words"),
    [
        ("2024-02-31", "2024-03-01", "validation date '2024-02-31' cannot be read"),
        ("2024-03-01", "2024-02-01", "leave a part empty"),
        ("2023-01-01", "2024-02-01", "leave a part empty"),
        ("2024-02-01", "2030-01-01", "leave a part empty"),
    ],
)
def test_dates_that_make_no_split_are_refused(validation: str, test: str, words: str) -> None:
    stamps = np.datetime64("2024-01-01") + np.arange(100) * np.timedelta64(1, "D")
    with pytest.raises(ForetideError, match=words):
        by_dates(stamps, validation, test)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=8), st.integers(1, 30), st.integers(1, 3), st.integers(1, 3))
def test_a_panel_gives_the_last_horizons_of_each_series(
    lengths: list[int], horizon: int, validation: int, test: int
) -> None:
    for length, made in zip(lengths, panel_borders(lengths, horizon, validation, test), strict=True):
        assert made.train[0] == 0 and made.train[1] == made.validation[0] and made.validation[1] == made.test[0]
        assert made.test[1] == length
        if length >= horizon * (validation + test):
            assert made.test[1] - made.test[0] == horizon * test
            assert made.validation[1] - made.validation[0] == horizon * validation
