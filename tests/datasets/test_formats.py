from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr

from datasets import catalog, formats, schema
from datasets.errors import ForetideError
from datasets.schema import LongSeries


def test_arrays_give_their_first_channel_with_counted_stamps(tmp_path: Path) -> None:
    entry = replace(catalog.find("PEMS08"), rows=600, variates=5)
    data = np.random.default_rng(0).random((600, 5, 3)).astype(np.float32)
    path = tmp_path / "PEMS08.npz"
    np.savez(path, data=data)
    found = formats.read(entry, path)
    assert isinstance(found, xr.Dataset)
    schema.validate(found)
    np.testing.assert_array_equal(found["value"].values, data[:, :, 0].astype(np.float64))
    assert schema.infer_frequency(found["time"].values) == entry.frequency == found.attrs["frequency"]
    assert found["time"].values[0] == np.datetime64("2016-07-01")
    assert found.attrs["checksum"] == catalog.checksum(path)


def test_arrays_of_another_shape_or_kind_are_errors(tmp_path: Path) -> None:
    entry = catalog.find("PEMS08")
    path = tmp_path / "PEMS08.npz"
    np.savez(path, data=np.zeros((4, 3, 1)))
    with pytest.raises(ForetideError, match=r"PEMS08\.npz: found \(4, 3\) times and sensors, expected \(17856, 170\)"):
        formats.read(entry, path)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(ForetideError, match=r"PEMS08\.npz: cannot be read .* expected an \.npz file with an array"):
        formats.read(entry, path)
    np.savez(path, data=np.array([[[{}]]], dtype=object))
    with pytest.raises(ForetideError, match="allow_pickle"):
        formats.read(entry, path)
    path.write_text("no archive")
    with pytest.raises(ForetideError, match=r"PEMS08\.npz: cannot be read"):
        formats.read(entry, path)


def test_series_of_tourism_au_are_named_by_three_columns(data_folder: Path) -> None:
    entry = catalog.find("tourism_au")
    found = formats.read(entry, data_folder / "tourism_au" / "tourism.csv.gz")
    assert isinstance(found, LongSeries)
    sizes = found.frame.group_by("unique_id").len()
    assert sizes.height == entry.series == 304 and sizes["len"].unique().to_list() == [80]
    one = found.frame.filter(pl.col("unique_id") == "South Australia/Adelaide/Business")
    assert one["y"][:2].to_list() == [135.0776903, 109.987316]
    assert [str(stamp) for stamp in one["ds"][:2]] == ["1998-01-01 00:00:00", "1998-04-01 00:00:00"]
    assert (found.frequency, found.unit, found.checksum) == ("QS", "thousand trips", entry.sha256)


def test_a_missing_key_column_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "tourism.csv"
    path.write_text("Quarter,Region,Purpose,Trips\n1998 Q1,a,b,1\n")
    with pytest.raises(ForetideError, match=r"tourism\.csv: there is no column 'State'"):
        formats.read(catalog.find("tourism_au"), path)


def test_competitions_are_read_by_group(data_folder: Path) -> None:
    found = formats.read(catalog.find("M1"), data_folder / "M1" / "m1_data.json.gz", "yearly")
    assert isinstance(found, LongSeries) and found.title == "M1 yearly"
