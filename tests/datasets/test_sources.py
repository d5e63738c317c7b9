"""The one door to data: names, files and URLs, and every mistake that a user can make with them."""

import gzip
import sqlite3
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr

from datasets import catalog, schema, sources
from datasets.errors import ForetideError, ForetideWarning
from datasets.quality import QualityOptions
from datasets.readers import ReaderOptions
from datasets.schema import LongSeries

PLAIN = "date,a,b\n" + "".join(f"2020-01-01 {hour:02}:00,{hour},{hour * 2}\n" for hour in range(24))


def write(folder: Path, content: str | bytes, name: str = "plant.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(data: str | Path, quality: QualityOptions | None = None, **options: object) -> str:
    """The one line with which data is refused."""
    with pytest.raises(ForetideError) as caught:
        sources.load(data, ReaderOptions(**options), quality)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    return text


def wide(loaded: sources.Loaded) -> xr.Dataset:
    assert isinstance(loaded.series, xr.Dataset)
    return loaded.series


def test_a_file(tmp_path: Path) -> None:
    loaded = sources.load(write(tmp_path, PLAIN))
    data = wide(loaded)
    schema.validate(data)
    assert data["variate"].values.tolist() == ["a", "b"] and data.sizes["time"] == 24
    assert (data.attrs["frequency"], data.attrs["source"], data.attrs["title"]) == ("h", "plant.csv", "plant")
    assert loaded.report.clean and loaded.entry is None
    packed = write(tmp_path, gzip.compress(PLAIN.encode()), "plant.csv.gz")
    assert wide(sources.load(str(packed))).attrs["title"] == "plant"


def test_every_form_of_a_file_gives_the_same_series(tmp_path: Path) -> None:
    expected = wide(sources.load(write(tmp_path, PLAIN)))
    frame = pl.read_csv(tmp_path / "plant.csv", try_parse_dates=True)
    frame.write_parquet(tmp_path / "plant.parquet")
    expected.drop_vars("unit").to_netcdf(tmp_path / "plant.nc")
    expected.drop_vars("unit").to_zarr(tmp_path / "plant.zarr", consolidated=False)
    connection = sqlite3.connect(tmp_path / "plant.db")
    connection.execute("create table plant (date text, a real, b real)")
    connection.executemany(
        "insert into plant values (?, ?, ?)", [(f"2020-01-01 {h:02}:00:00", h, h * 2) for h in range(24)]
    )
    connection.commit()
    connection.close()
    for data in ("plant.parquet", "plant.nc", "plant.zarr"):
        xr.testing.assert_equal(wide(sources.load(tmp_path / data)), expected)
    url = f"sqlite:///{tmp_path / 'plant.db'}"
    xr.testing.assert_equal(wide(sources.load(url, ReaderOptions(table="plant"))), expected)


def test_units_from_a_sidecar_and_from_options(tmp_path: Path) -> None:
    path = write(tmp_path, PLAIN)
    write(tmp_path, "a: MW\nb: °C\n", "plant.csv.units.yaml")
    assert wide(sources.load(path))["unit"].values.tolist() == ["MW", "°C"]
    assert wide(sources.load(path, ReaderOptions(units={"a": "kW"})))["unit"].values.tolist() == ["kW", "°C"]
    assert wide(sources.load(path, ReaderOptions(variates=["b"])))["unit"].values.tolist() == ["°C"]
    assert "no column 'c'" in refusal(path, units={"c": "K"})
    write(tmp_path, "c: K\n", "plant.csv.units.yaml")
    assert "plant.csv.units.yaml: there is no column 'c'" in refusal(path)
    for broken in ("- a\n- b\n", "a: [\n", "a: 5\n", "a: !!python/object:os.system x\n"):
        write(tmp_path, broken, "plant.csv.units.yaml")
        assert refusal(path).startswith("plant.csv.units.yaml: ")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param("", "the file is empty", id="empty file"),
        pytest.param("date,a\n", "found a header and no row of data", id="header only"),
        pytest.param(
            PLAIN.replace("2020-01-01 05:00", "soon"), "row 7, column 'date': found 'soon', expected a date", id="date"
        ),
        pytest.param(PLAIN.replace(",5,", ",five,"), "row 7, column 'a': found 'five', expected a number", id="text"),
        pytest.param(
            "date,a,b\n2020-01-01,1,\n2020-01-02,2,\n2020-01-03,3,\n", "column 'b': no value at all", id="empty column"
        ),
        pytest.param(
            PLAIN + "2020-01-01 23:00,1,1\n",
            "row 26, column 'date': 2020-01-01 23:00:00 occurs twice, first in row 25",
            id="duplicate",
        ),
        pytest.param(
            PLAIN.replace(",5,", ",-9999,"), "row 7, column 'a': -9999 stands for a missing value", id="sentinel"
        ),
    ],
)
def test_bad_files(tmp_path: Path, content: str, expected: str) -> None:
    text = refusal(write(tmp_path, content))
    assert text.startswith("plant.csv: ") and expected in text


def test_bad_columns(tmp_path: Path) -> None:
    path = write(tmp_path, PLAIN)
    assert "no column 'tiem' (reader.time); expected one of 'date', 'a', 'b'" in refusal(path, time="tiem")
    assert "no column 'c' (reader.variates)" in refusal(path, variates=["a", "c"])


def test_missing_files_and_names(tmp_path: Path) -> None:
    text = refusal(tmp_path / "nowhere" / "plant.csv")
    assert "no such file" in text and "check the path" in text
    assert "the catalogue has ETTh1" in refusal("EETh1")
    assert "no such file" in refusal("a" * 300)
    assert "national_illness" in refusal("ilness/national_ilness.csv")


def test_a_missing_dataset_says_where_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETIDE_DATA", str(tmp_path))
    text = refusal("Electricity")
    assert "electricity.csv" in text and "publisher" in text


def test_the_shipped_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETIDE_DATA", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = sources.load("etth1")
    assert loaded.entry is not None and loaded.entry.name == "ETTh1"
    data = wide(loaded)
    assert data["value"].shape == (17420, 7) and data.attrs["title"] == "ETTh1"
    assert data.attrs["checksum"] == loaded.entry.sha256
    assert wide(sources.load("ETTh1", ReaderOptions(variates=["OT"])))["unit"].values.tolist() == ["°C"]


def test_a_changed_file_of_a_known_dataset_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETIDE_DATA", str(tmp_path))
    write(tmp_path, PLAIN.replace("date,a,b", "date,HUFL,OT"), "ETTh1.csv")
    with pytest.warns(ForetideWarning, match="scores may not compare"):
        sources.load("ETTh1")


@pytest.mark.parametrize("name", [n for n, e in catalog.ENTRIES.items() if e.sha256 is not None and not e.competition])
def test_real_datasets(data_folder: Path, name: str) -> None:
    policy = "mask" if name == "weather" else "error"
    loaded = sources.load(name.upper(), quality=QualityOptions(policy))  # type: ignore[arg-type]
    entry = loaded.entry
    assert entry is not None and entry.name == name
    assert loaded.report.rows == entry.rows
    made = loaded.series
    if isinstance(made, LongSeries):
        assert made.frame["unique_id"].n_unique() == entry.series
        assert schema.same_frequency(made.frequency, entry.frequency)
        return
    assert schema.same_frequency(made.attrs["frequency"], entry.frequency)
    assert made.attrs["checksum"] == entry.sha256
    if entry.form == "wide":
        assert made.sizes["variate"] == entry.variates and made.attrs["time_zone"] == entry.time_zone


def test_a_field(data_folder: Path) -> None:
    loaded = sources.load(data_folder / "era5_t2m_uk/era5-2mt-2019-03-uk.nc")
    field = wide(loaded)
    assert field["t2m"].dims == ("time", "lat", "lon") and field["t2m"].attrs["units"] == "K"
    assert (loaded.report.frequency, loaded.report.first) == ("h", "2019-03-01 00:00:00")


@pytest.mark.parametrize(
    ("name", "series", "frequency"),
    [("M3:quarterly", 756, "QS"), ("m1:Yearly", 181, "YS"), ("tourism:monthly", 366, "MS"), ("M4:hourly", 414, "h")],
)
def test_competitions(data_folder: Path, name: str, series: int, frequency: str) -> None:
    loaded = sources.load(name)
    assert isinstance(loaded.series, LongSeries) and loaded.series.frequency == frequency
    assert (loaded.report.series, loaded.report.frequency) == (series, frequency)
    assert loaded.report.clean


def test_competitions_need_a_group_that_exists(data_folder: Path) -> None:
    assert "M3:monthly" in refusal("M3")
    assert "M3:monthly" in refusal("M3:hourly")
    assert "no groups" in refusal("ETTh1:hourly")


def test_a_table_that_load_refuses_can_be_inspected(data_folder: Path) -> None:
    table = sources.open_table("weather")
    assert table.title == "weather" and table.units["T (degC)"] == "°C"
    assert "occurs twice" in refusal("weather")
    assert np.isfinite(table.frame["OT"].to_numpy()).all()
