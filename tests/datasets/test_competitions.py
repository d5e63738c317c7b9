import csv
import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from datasets import catalog
from datasets.competitions import HORIZONS, read_competition
from datasets.errors import ForetideError

JSON = {"M1": "M1/m1_data.json.gz", "M3": "M3/m3_data.json.gz", "tourism": "tourism/tcomp_data.json.gz"}
AT_HAND = [key for key in HORIZONS if key[0] in JSON or key[1] in ("hourly", "weekly")]
FIRST_STEP_DAYS = {"YS": 365, "QS": 90, "MS": 31, "7D": 7, "D": 1, "h": 1 / 24}


@pytest.mark.parametrize(("name", "group"), AT_HAND)
def test_every_series_is_its_history_and_its_test_part(name: str, group: str, data_folder: Path) -> None:
    entry = catalog.find(name)
    found = read_competition(entry, data_folder / JSON.get(name, "M4"), group)
    part = entry.group(group)
    frame = found.frame
    assert frame.schema == {"unique_id": pl.String, "ds": pl.Datetime("us"), "y": pl.Float64}
    assert frame["unique_id"].n_unique() == part.series
    assert frame["y"].is_finite().all()
    assert frame.equals(frame.sort("unique_id", "ds"))
    assert (found.frequency, found.title) == (part.frequency, f"{name} {group}")
    first, second = frame["ds"][:2]
    assert str(first) == "1970-01-01 00:00:00"
    assert (second - first).total_seconds() == FIRST_STEP_DAYS[part.frequency] * 86_400
    assert (frame.group_by("unique_id").len()["len"] > HORIZONS[name, group]).all()


@pytest.mark.parametrize("name", JSON)
def test_json_values_are_those_of_the_file(name: str, data_folder: Path) -> None:
    path = data_folder / JSON[name]
    entry = catalog.find(name)
    records = json.loads(gzip.decompress(path.read_bytes()))
    read = pl.concat(read_competition(entry, path, group.name).frame for group in entry.groups)
    assert read.height == entry.rows
    values = dict(read.group_by("unique_id").agg("y").iter_rows())
    assert values == {key: [*record["x"], *record["xx"]] for key, record in records.items()}


@pytest.mark.parametrize("group", ["Hourly", "Weekly"])
def test_test_part_of_m4_is_the_official_file(group: str, data_folder: Path) -> None:
    horizon = HORIZONS["M4", group.lower()]
    found = read_competition(catalog.find("M4"), data_folder / "M4", group)
    values = dict(found.frame.group_by("unique_id").agg("y").iter_rows())
    with open(data_folder / "M4" / f"{group}-test.csv", newline="") as file:
        official = {row[0]: [float(cell) for cell in row[1:]] for row in list(csv.reader(file))[1:]}
    assert {name: series[-horizon:] for name, series in values.items()} == official
    files = (data_folder / "M4" / f"{group}-train.csv.gz", data_folder / "M4" / f"{group}-test.csv")
    assert found.checksum == catalog.checksum(*files)


def small_m4(folder: Path, train: list[str], test: list[str]) -> Path:
    """Files of the weekly group, whose 359 series repeat the rows given."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, rows in (("train", train), ("test", test)):
        lines = [f'"W{number}",{rows[number % len(rows)]}' for number in range(359)]
        (folder / f"Weekly-{kind}.csv").write_text("\n".join(['"V1","V2"', *lines]) + "\n")
    return folder


THIRTEEN = ",".join(str(number) for number in range(13))


def test_short_rows_end_in_empty_cells(tmp_path: Path) -> None:
    folder = small_m4(tmp_path, ['"5","6",,', '"7",,,', '"1","2","3","4"'], [THIRTEEN])
    frame = read_competition(catalog.find("M4"), folder, "weekly").frame
    assert frame.filter(pl.col("unique_id") == "W0")["y"].to_list() == [5, 6, *range(13)]
    assert frame.filter(pl.col("unique_id") == "W1")["y"].to_list() == [7, *range(13)]
    steps = np.diff(frame.filter(pl.col("unique_id") == "W2")["ds"].to_numpy())
    assert (steps == np.timedelta64(7, "D")).all() and len(steps) == 4 + 13 - 1


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (['"5",x'], [THIRTEEN], r"Weekly-train\.csv: line 2: could not convert string to float: 'x'"),
        (['"5",,"6"'], [THIRTEEN], r"Weekly-train\.csv: line 2: could not convert"),
        (['"5"'], ["1,2"], r"Weekly-test\.csv: series 'W0' has 1 values .* of 2, expected .* a test part of 13"),
        ([","], [THIRTEEN], r"series 'W0' has 0 values"),
    ],
)
def test_broken_rows_are_named(train: list[str], test: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ForetideError, match=message):
        read_competition(catalog.find("M4"), small_m4(tmp_path, train, test), "weekly")


def test_series_missing_from_the_test_file_and_missing_files_are_named(tmp_path: Path) -> None:
    folder = small_m4(tmp_path, ['"5"'], [THIRTEEN])
    test = folder / "Weekly-test.csv"
    test.write_text("\n".join(test.read_text().splitlines()[:-1]))
    with pytest.raises(ForetideError, match=r"Weekly-test\.csv: there is no series 'W358'"):
        read_competition(catalog.find("M4"), folder, "weekly")
    with pytest.raises(ForetideError, match=r"M4: .*Monthly-train\.csv does not exist.*Mcompetitions/M4-methods"):
        read_competition(catalog.find("M4"), folder, "monthly")


def test_the_folders_of_the_publisher_are_found_too(tmp_path: Path) -> None:
    folder = small_m4(tmp_path, ['"5"'], [THIRTEEN])
    for kind in ("Train", "Test"):
        (folder / kind).mkdir()
        (folder / f"Weekly-{kind.lower()}.csv").rename(folder / kind / f"Weekly-{kind.lower()}.csv")
    assert read_competition(catalog.find("M4"), folder, "weekly").frame.height == 359 * 14


def test_a_group_must_be_named(data_folder: Path) -> None:
    with pytest.raises(ForetideError, match="found 'M1', expected one of M1:yearly, M1:quarterly, M1:monthly"):
        read_competition(catalog.find("M1"), data_folder / JSON["M1"])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[1, 2]",
        b'{"a": 1}',
        b'{"a": {"period": ["MONTHLY"], "x": ["b"], "xx": []}}',
        b"\xff",
    ],
)
def test_other_json_is_an_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m1_data.json"
    path.write_bytes(content)
    with pytest.raises(ForetideError, match=r"m1_data\.json"):
        read_competition(catalog.find("M1"), path, "monthly")


def test_a_file_with_too_few_series_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "m1_data.json"
    path.write_text(json.dumps({"a": {"period": ["MONTHLY"], "x": [1, 2], "xx": list(range(18))}}))
    with pytest.raises(ForetideError, match="found 1 monthly series, expected 617 for M1"):
        read_competition(catalog.find("M1"), path, "monthly")
