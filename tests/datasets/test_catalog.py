import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from datasets import catalog
from datasets.errors import ForetideError
from datasets.readers import ReaderOptions
from datasets.schema import same_frequency, season_of

HERE = [
    "ETTh1",
    "ETTh2",
    "ETTm1",
    "weather",
    "national_illness",
    "M1",
    "M3",
    "M4",
    "tourism",
    "tourism_au",
    "vic_elec",
    "air_temperature",
    "era5_t2m",
    "ersst",
]

# Windows of the published loaders at lookback 96 and horizon 96 (PEMS: 12).
WINDOWS = {
    "ETTh1": (8449, 2785, 2785),
    "ETTh2": (8449, 2785, 2785),
    "ETTm1": (34369, 11425, 11425),
    "ETTm2": (34369, 11425, 11425),
    "exchange_rate": (5120, 665, 1422),
    "weather": (36696, 5175, 10444),
    "electricity": (18221, 2537, 5165),
    "traffic": (12089, 1661, 3413),
    "solar": (36601, 5161, 10417),
    "PEMS03": (15618, 5135, 5135),
    "PEMS04": (10088, 3291, 3292),
    "PEMS07": (16827, 5538, 5538),
    "PEMS08": (10606, 3464, 3465),
}


def read_rows(path: Path) -> list[list[str]]:
    with catalog.open_content(path) as content:
        return list(csv.reader(content.read().decode("utf-8").splitlines()))


def test_every_dataset_of_the_benchmarks_is_there() -> None:
    assert set(WINDOWS) | set(HERE) == set(catalog.ENTRIES)
    for name, entry in catalog.ENTRIES.items():
        assert entry.name == name and entry.licence and entry.publisher and entry.quirks and entry.title
        assert (entry.grid != ()) == (entry.form == "field")
        assert entry.competition or (entry.rows and entry.frequency)


@pytest.mark.parametrize("name", WINDOWS)
def test_published_splits_give_the_published_numbers_of_windows(name: str) -> None:
    entry = catalog.find(name)
    lookback, horizon = 96, 12 if name.startswith("PEMS") else 96
    assert entry.split is not None and entry.rows is not None
    borders = entry.split.borders(entry.rows)
    spans = [borders.rows(part, lookback) for part in ("train", "validation", "test")]
    assert tuple(end - first - lookback - horizon + 1 for first, end in spans) == WINDOWS[name]


@pytest.mark.parametrize("name", [name for name, entry in catalog.ENTRIES.items() if not entry.competition])
def test_seasons_are_those_of_the_frequencies(name: str) -> None:
    entry = catalog.ENTRIES[name]
    without_season = {"exchange_rate": 1}
    assert entry.season == without_season.get(name, season_of(entry.frequency))


@pytest.mark.parametrize("name", HERE)
def test_files_match_their_checksums(name: str, data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETIDE_DATA", str(data_folder))
    entry = catalog.find(name)
    path = catalog.locate(entry)
    assert path.is_relative_to(data_folder)
    catalog.verify(entry, path)
    assert entry.sha256 is not None or any(all(group.files.values()) for group in entry.groups)


@pytest.mark.parametrize("name", ["ETTh1", "ETTh2", "ETTm1", "weather", "national_illness", "vic_elec", "tourism_au"])
def test_tables_are_as_their_entries_say(name: str, data_folder: Path) -> None:
    entry = catalog.find(name)
    path = catalog.member(data_folder, entry.path)
    assert path is not None
    header, *rows = read_rows(path)
    assert len(rows) == entry.rows
    time = entry.reader["time"]
    columns = entry.reader.get("variates") or [column for column in header if column not in {time, *entry.keys}]
    assert len(columns) == entry.variates
    assert {time, *columns, *entry.reader.get("units", {}), *entry.reader.get("future", []), *entry.keys} <= set(header)
    if entry.keys:
        assert len({tuple(row[header.index(key)] for key in entry.keys) for row in rows}) == entry.series
        return
    stamps = np.array([row[header.index(time)].rstrip("Z") for row in rows[:50]], dtype="datetime64[s]")
    step = int((stamps[1] - stamps[0]).astype(int))
    assert (np.diff(stamps).astype(int) == step).all() and same_frequency(f"{step}s", entry.frequency)


@pytest.mark.parametrize("name", ["air_temperature", "era5_t2m", "ersst"])
def test_grids_have_the_shape_of_their_entries(name: str, data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETIDE_DATA", str(data_folder))
    entry = catalog.find(name)
    path = catalog.locate(entry)
    with catalog.open_content(path) as content, xr.open_dataset(content if path.suffix == ".gz" else path) as data:
        assert data[entry.reader["variable"]].shape == entry.shape


def test_shipped_sample_is_the_published_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORETIDE_DATA", raising=False)
    entry = catalog.find("ETTh1")
    path = catalog.locate(entry)
    assert path == catalog.SAMPLE / "ETTh1.csv.gz"
    catalog.verify(entry, path)
    assert "Attribution-NoDerivatives" in (catalog.SAMPLE / "LICENSE-ETTh1.txt").read_text()


def test_names_are_found_in_any_case_and_close_ones_are_suggested() -> None:
    assert catalog.find("etth1") is catalog.ENTRIES["ETTh1"]
    assert catalog.find("m4:Hourly") is catalog.ENTRIES["M4"]
    with pytest.raises(ForetideError, match="no dataset 'ETTh3' in the catalogue; did you mean ETTh"):
        catalog.find("ETTh3")
    with pytest.raises(ForetideError, match="expected one of ETTh1, ETTh2"):
        catalog.find("zzz")
    with pytest.raises(ForetideError, match="found 'M3:hourly', expected one of M3:yearly, M3:quarterly, M3:monthly"):
        catalog.find("M3:hourly")
    with pytest.raises(ForetideError, match="found 'weather:hourly', expected weather alone"):
        catalog.find("weather:hourly")


def test_root_is_the_data_folder_or_below_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETIDE_DATA", "/somewhere/else")
    assert catalog.data_root() == Path("/somewhere/else")
    monkeypatch.delenv("FORETIDE_DATA")
    assert catalog.data_root() == home / "data"
    monkeypatch.delenv("FORETIDE_HOME")
    assert catalog.data_root() == Path(".foretide/data")


def test_missing_file_says_who_offers_it_and_where_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETIDE_DATA", str(tmp_path))
    with pytest.raises(ForetideError) as caught:
        catalog.locate(catalog.find("electricity"))
    message = str(caught.value)
    assert str(tmp_path / "electricity" / "electricity.csv") in message
    assert "thuml/Autoformer" in message and "FORETIDE_DATA" in message and "\n" not in message


@pytest.mark.parametrize("place", ["traffic/traffic.csv", "traffic/traffic.csv.gz", "traffic.csv", "traffic.csv.gz"])
def test_files_are_found_plain_or_gzipped_with_or_without_their_folder(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORETIDE_DATA", str(tmp_path))
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"date,OT\n")
    assert catalog.locate(catalog.find("traffic")) == file


def test_altered_and_damaged_files_are_named(tmp_path: Path) -> None:
    entry = catalog.find("ETTh1")
    packed = (catalog.SAMPLE / "ETTh1.csv.gz").read_bytes()
    content = gzip.decompress(packed)
    plain = tmp_path / "ETTh1.csv"
    plain.write_bytes(content)
    catalog.verify(entry, plain)
    plain.write_bytes(content.replace(b"5.827", b"5.828", 1))
    with pytest.raises(ForetideError, match=r"ETTh1\.csv: the sha256 .* is [0-9a-f]{64}, expected f18de3ad"):
        catalog.verify(entry, plain)
    truncated = tmp_path / "ETTh1.csv.gz"
    truncated.write_bytes(packed[:1000])
    with pytest.raises(ForetideError, match=r"ETTh1\.csv\.gz: cannot be read"):
        catalog.verify(entry, truncated)


@pytest.mark.parametrize("name", catalog.ENTRIES)
def test_reader_options_are_accepted(name: str) -> None:
    options = ReaderOptions(**catalog.ENTRIES[name].reader)
    assert options.variates is None or len(options.variates) == catalog.ENTRIES[name].variates
