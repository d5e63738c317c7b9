"""Forecast files: the same numbers in every format, in a form that other programs read."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import xarray as xr

from app.destinations import SUFFIXES, check_output, to_frame, write_forecast
from datasets import sources
from datasets.errors import ForetideError
from datasets.readers import ReaderOptions
from forecasting.predictor import Predictor
from tests.app.conftest import make_table, write_table

NUMBERS = ["forecast", "lower_95", "lower_80", "lower_50", "median", "upper_50", "upper_80", "upper_95"]


@pytest.fixture(scope="module")
def made(trained: Path) -> xr.Dataset:
    """A forecast of the stored model, with units."""
    (folder,) = (trained / ".foretide" / "artifacts").iterdir()
    options = ReaderOptions(units={"load": "MW", "temperature": "°C"})
    series: Any = sources.load(trained / "plant.csv", options).series
    return Predictor.load(folder).forecast(series, horizon=4, samples=3)


class TestToFrame:
    """The long form."""

    def test_one_row_for_each_variate_and_step(self, made: xr.Dataset) -> None:
        frame = to_frame(made)
        assert frame.columns == ["variate", "unit", "origin", "ds", *NUMBERS]
        assert frame["variate"].to_list() == ["load"] * 4 + ["temperature"] * 4
        assert frame["unit"].to_list() == ["MW"] * 4 + ["°C"] * 4
        assert (
            frame["ds"].to_list()[:4]
            == frame["ds"].to_list()[4:]
            == made["time"].values.astype("datetime64[us]").tolist()
        )
        assert (frame["origin"] < frame["ds"]).all()
        assert frame["origin"].dtype == frame["ds"].dtype == pl.Datetime("us")

    def test_numbers_are_those_of_the_dataset(self, made: xr.Dataset) -> None:
        frame = to_frame(made).filter(pl.col("variate") == "temperature")
        chosen = made.sel(variate="temperature")
        np.testing.assert_array_equal(frame["forecast"], chosen["forecast"])
        for column, level in (("lower_95", 0.025), ("lower_50", 0.25), ("median", 0.5), ("upper_80", 0.9)):
            np.testing.assert_array_equal(frame[column], chosen["quantile"].sel(level=level))

    def test_intervals_are_nested(self, made: xr.Dataset) -> None:
        values = to_frame(made).select(NUMBERS[1:]).to_numpy()
        assert (np.diff(values, axis=1) >= 0).all()

    def test_many_series(self, tmp_path: Path) -> None:
        stamps = np.datetime64("2024-01-01") + np.arange(2)
        many = xr.Dataset(
            {
                "forecast": (("unique_id", "step", "variate"), np.arange(4.0).reshape(2, 2, 1)),
                "quantile": (("unique_id", "step", "variate", "level"), np.zeros((2, 2, 1, 7))),
            },
            coords={
                "unique_id": ["a", "b"],
                "variate": ["y"],
                "unit": ("variate", ["t"]),
                "level": [0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975],
                "ds": (("unique_id", "step"), np.stack([stamps, stamps + 7]).astype("datetime64[ns]")),
                "origin": ("unique_id", np.array([stamps[0] - 1, stamps[0] + 6]).astype("datetime64[ns]")),
            },
        )
        frame = to_frame(many)
        assert frame.columns[:4] == ["unique_id", "unit", "origin", "ds"]
        assert frame["unique_id"].to_list() == ["a", "a", "b", "b"] and frame["forecast"].to_list() == [0, 1, 2, 3]
        assert [str(day)[:10] for day in frame["origin"]] == ["2023-12-31"] * 2 + ["2024-01-07"] * 2
        assert pl.read_parquet(write_forecast(many, tmp_path / "many.parquet")).equals(frame)


class TestWriteForecast:
    """Files."""

    def test_formats_agree(self, made: xr.Dataset, tmp_path: Path) -> None:
        paths = [write_forecast(made, tmp_path / f"f{suffix}") for suffix in SUFFIXES]
        parquet, csv = pl.read_parquet(paths[0]), pl.read_csv(paths[1], try_parse_dates=True)
        assert csv.with_columns(pl.col("ds", "origin").cast(pl.Datetime("us"))).equals(parquet)
        with xr.open_dataset(paths[2]) as stored:
            xr.testing.assert_allclose(stored["quantile"], made["quantile"])
            assert stored["unit"].values.tolist() == ["MW", "°C"]
            assert stored.attrs["model"] == "dlinear" and stored.attrs["origin"] == made.attrs["origin"]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["f.csv", "f.nc", "f.parquet"]

    def test_a_file_is_replaced(self, made: xr.Dataset, tmp_path: Path) -> None:
        target = tmp_path / "new" / "f.CSV"
        for _ in range(2):
            assert write_forecast(made, target) == target
        assert len(pl.read_csv(target)) == 8

    def test_a_csv_can_be_loaded_into_a_database(self, made: xr.Dataset, tmp_path: Path) -> None:
        frame = to_frame(made)
        with closing(sqlite3.connect(tmp_path / "f.db")) as connection:
            connection.execute(f"CREATE TABLE f ({', '.join(frame.columns)})")
            rows = frame.with_columns(pl.col("ds", "origin").cast(pl.String)).rows()
            connection.executemany(f"INSERT INTO f VALUES ({', '.join('?' * frame.width)})", rows)
            assert connection.execute("SELECT count(*) FROM f").fetchone() == (8,)

    @pytest.mark.parametrize("name", ["f.xlsx", "f", "f.csv.gz"])
    def test_another_suffix_is_refused(self, name: str, made: xr.Dataset, tmp_path: Path) -> None:
        for refuse in (lambda: check_output(tmp_path / name), lambda: write_forecast(made, tmp_path / name)):
            with pytest.raises(ForetideError, match=r"ends in \.parquet, \.csv, \.nc"):
                refuse()
        assert not list(tmp_path.iterdir())

    def test_checking_leaves_nothing(self, tmp_path: Path) -> None:
        check_output(tmp_path / "new" / "f.csv")
        assert not list(tmp_path.iterdir())


def test_make_table_is_a_table(tmp_path: Path) -> None:
    series: Any = sources.load(write_table(tmp_path / "a.csv", make_table(30))).series
    assert series.sizes == {"time": 30, "variate": 2} and series.attrs["frequency"] == "h"
