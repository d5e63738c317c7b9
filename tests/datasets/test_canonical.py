"""Series written for a compute node come back as they were, without polars."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from datasets import canonical, schema, sources
from datasets.errors import ForetideError
from datasets.readers import ReaderOptions


def _series(frequency: str = "10min") -> xr.Dataset:
    times = schema.continue_times(np.datetime64("2020-01-01", "ns"), frequency, 50)
    values = np.arange(100.0).reshape(50, 2)
    values[3, 1] = np.nan
    return schema.series(
        values,
        times,
        ["load", "wärme"],
        units={"load": "kW"},
        source="a.csv",
        checksum="c" * 64,
        title="a",
        future={"temperature": np.linspace(0, 1, 50)},
    )


@pytest.mark.parametrize("frequency", ["10min", "h", "MS", "7D", "250ms"])
def test_a_series_comes_back_as_it_was(tmp_path: Path, frequency: str) -> None:
    data = _series(frequency)
    path = canonical.write(data, tmp_path / "a.nc")
    again = canonical.read(path)
    assert again is not None
    xr.testing.assert_identical(again, data)


def test_the_one_door_opens_it_and_knows_the_catalogue(tmp_path: Path) -> None:
    series = sources.load("ETTh1").series
    assert isinstance(series, xr.Dataset)
    loaded = sources.load(canonical.write(series, tmp_path / "any-name.nc"))
    assert loaded.entry is not None and loaded.entry.name == "ETTh1"
    assert loaded.report.rows == 17420 and loaded.report.clean
    xr.testing.assert_identical(loaded.series, series)


def test_polars_is_not_imported(tmp_path: Path) -> None:
    path = canonical.write(_series(), tmp_path / "a.nc")
    code = f"import sys; from datasets import sources; sources.load({str(path)!r}); sys.exit('polars' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_variates_that_are_wanted_are_chosen(tmp_path: Path) -> None:
    series = _series()
    path = canonical.write(series, tmp_path / "a.nc")
    names = [str(name) for name in series["variate"].values]
    chosen = sources.load(path, ReaderOptions(variates=names[-1:])).series
    assert isinstance(chosen, xr.Dataset)
    xr.testing.assert_identical(chosen, series.sel(variate=names[-1:]))
    assert chosen.attrs["checksum"] == series.attrs["checksum"]
    with pytest.raises(ForetideError, match=r"a\.nc: found no variate 'nothing', expected some of"):
        sources.load(path, ReaderOptions(variates=["nothing"]))


def test_other_files_are_left_to_the_readers(tmp_path: Path) -> None:
    path = tmp_path / "other.nc"
    xr.Dataset({"x": ("time", [1.0, 2.0])}).to_netcdf(path, engine="scipy")
    assert canonical.read(path) is None


def test_a_damaged_file_and_a_later_form_are_refused(tmp_path: Path) -> None:
    path = canonical.write(_series(), tmp_path / "a.nc")
    content = path.read_bytes()
    (tmp_path / "cut.nc").write_bytes(content[: len(content) // 2])
    with pytest.raises(ForetideError, match=r"cut\.nc"):
        canonical.read(tmp_path / "cut.nc")
    later = _series().assign_attrs({canonical.MARK: canonical.VERSION + 1})
    later.to_netcdf(tmp_path / "later.nc", engine="scipy")
    with pytest.raises(ForetideError, match="later form"):
        canonical.read(tmp_path / "later.nc")
    with pytest.raises(ForetideError, match=r"ends in \.nc"):
        canonical.write(_series(), tmp_path / "a.csv")
