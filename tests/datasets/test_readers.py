"""Readers: every kind of file, and every mistake in one."""

import gzip
import hashlib
import sqlite3
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr

from datasets import readers
from datasets.errors import ForetideError
from datasets.readers import ReaderOptions

PLAIN = "date,a,b\n2020-01-01 00:00:00,1,10\n2020-01-01 01:00:00,2.5,20\n2020-01-01 02:00:00,-3e1,30\n"


def write(folder: Path, content: str | bytes, name: str = "plant.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(source: str | Path, **options: object) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(ForetideError) as caught:
        readers.read_table(source, ReaderOptions(**options))  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    return text


def stamps(path: Path, **options: object) -> list[str]:
    table = readers.read_table(path, ReaderOptions(**options))  # type: ignore[arg-type]
    return table.frame[table.time].dt.to_string("%Y-%m-%d %H:%M:%S").to_list()


def test_plain_csv(tmp_path: Path) -> None:
    table = readers.read_table(write(tmp_path, PLAIN))
    assert (table.time, table.variates, table.first_row, table.source) == ("date", ("a", "b"), 2, "plant.csv")
    assert table.frame.columns == ["date", "a", "b"]
    assert table.frame["a"].to_list() == [1.0, 2.5, -30.0]
    assert table.frame["date"].dtype == pl.Datetime("ns")
    assert table.checksum == hashlib.sha256(PLAIN.encode()).hexdigest()


@pytest.mark.parametrize(
    ("content", "options"),
    [
        pytest.param(PLAIN.replace(",", ";"), {}, id="semicolon"),
        pytest.param(PLAIN.replace(",", "\t"), {}, id="tab"),
        pytest.param(PLAIN.replace(",", "|"), {}, id="bar"),
        pytest.param(PLAIN.replace(",", "^"), {"delimiter": "^"}, id="given"),
        pytest.param(PLAIN.replace(",", ";").replace(".", ","), {"decimal": ","}, id="decimal comma"),
        pytest.param(PLAIN.replace("\n", "\r\n"), {}, id="CRLF"),
        pytest.param("\ufeff" + PLAIN, {}, id="BOM"),
        pytest.param(PLAIN.rstrip("\n"), {}, id="no last newline"),
        pytest.param(PLAIN.encode("utf-16"), {"encoding": "utf-16"}, id="utf-16"),
        pytest.param(gzip.compress(PLAIN.encode()), {}, id="gzip by content"),
        pytest.param(PLAIN.replace(",", " , "), {}, id="spaces around cells"),
        pytest.param("\n\n" + PLAIN, {}, id="blank lines first"),
        pytest.param(PLAIN.replace("1,10", '"1","10"'), {}, id="quoted numbers"),
    ],
)
def test_ways_to_write_the_same_table(tmp_path: Path, content: str | bytes, options: dict[str, str]) -> None:
    table = readers.read_table(write(tmp_path, content), ReaderOptions(**options))  # type: ignore[arg-type]
    expected = readers.read_table(write(tmp_path, PLAIN, "expected.csv"))
    assert table.frame.equals(expected.frame)


def test_a_header_longer_than_the_first_block(tmp_path: Path) -> None:
    names = [f"{'sensor ' * 10}{at}" for at in range(1200)]
    rows = "".join(f"2020-01-{day:02};" + ";".join(["1"] * len(names)) + "\n" for day in (1, 2))
    content = f"date;{';'.join(names)}\n{rows}"
    for name, data in (("wide[1].csv", content.encode()), ("wide.csv.gz", gzip.compress(content.encode()))):
        assert readers.read_table(write(tmp_path, data, name)).variates == tuple(names)


def test_latin_1_in_header_and_checksum_of_the_content(tmp_path: Path) -> None:
    raw = "date;Température\n2020-01-01;1\n2020-01-02;2\n".encode("latin-1")
    for name, content in (("a.csv", raw), ("a.csv.gz", gzip.compress(raw))):
        table = readers.read_table(write(tmp_path, content, name), ReaderOptions(encoding="latin-1"))
        assert table.variates == ("Température",)
        assert table.checksum == hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize("cell", ["", "NA", "NaN", "nan", "null", "-", '""', "N/A", "#N/A", "None"])
def test_words_for_missing(tmp_path: Path, cell: str) -> None:
    table = readers.read_table(write(tmp_path, PLAIN.replace("2.5", cell)))
    assert table.frame["a"].to_list() == [1.0, None, -30.0]
    assert not table.non_numeric


def test_numbers_are_read_to_the_last_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(42).standard_normal(200) * 10.0 ** np.arange(-100, 100)
    rows = "\n".join(f"2020-01-01 {at // 60:02}:{at % 60:02}:00,{value!r}" for at, value in enumerate(values.tolist()))
    table = readers.read_table(write(tmp_path, f"date,a\n{rows}\n"))
    np.testing.assert_array_equal(table.frame["a"].to_numpy(), values)


def test_text_cells_are_remembered_with_their_rows(tmp_path: Path) -> None:
    table = readers.read_table(write(tmp_path, PLAIN.replace("2.5", "broken")))
    cells = table.non_numeric["a"]
    assert cells.texts == ("broken",)
    assert table.rows(cells.positions) == [3]
    assert table.frame["a"].to_list() == [1.0, None, -30.0]


def test_blank_lines_keep_the_row_numbers(tmp_path: Path) -> None:
    table = readers.read_table(write(tmp_path, PLAIN.replace("\n2020-01-01 02", "\n\n\n2020-01-01 02") + "\n\n"))
    assert table.frame.height == 3
    assert table.rows([0, 1, 2]) == [2, 3, 6]


def test_columns_of_text_are_left_out_and_listed(tmp_path: Path) -> None:
    content = "date,a,remark,day\n2020-01-01,1,fine,2020-01-01\n2020-01-02,2,,2020-01-02\n"
    table = readers.read_table(write(tmp_path, content))
    assert table.variates == ("a",)
    assert table.unused == ("remark", "day")


def test_an_unnamed_index_column_is_no_variate(tmp_path: Path) -> None:
    table = readers.read_table(write(tmp_path, ",date,a\n0,2020-01-01,5\n1,2020-01-02,6\n"))
    assert (table.time, table.variates) == ("date", ("a",))


def test_time_column_may_come_last(tmp_path: Path) -> None:
    table = readers.read_table(write(tmp_path, "a,b,when\n1,2016,01.02.2020\n2,2017,02.02.2020\n"))
    assert (table.time, table.variates) == ("when", ("a", "b"))


def test_chosen_variates_and_covariates(tmp_path: Path) -> None:
    content = "date,a,b,holiday,height\n2020-01-01,1,2,TRUE,7\n2020-01-02,3,4,False,7\n"
    options = ReaderOptions(variates=["b"], past=["a"], future=["holiday"], static=["height"])
    table = readers.read_table(write(tmp_path, content), options)
    assert table.variates == ("b",) and table.covariates == ("a", "holiday", "height")
    assert table.frame["holiday"].to_list() == [1.0, 0.0]


def test_long_form(tmp_path: Path) -> None:
    content = "shop,date,y,price\nx,2020-01-01,1,9\nx,2020-01-02,2,9\ny,2020-01-01,3,8\n"
    path = write(tmp_path, content)
    table = readers.read_table(path, ReaderOptions(id="shop", future=["price"]))
    assert (table.id, table.variates, table.future) == ("shop", ("y",), ("price",))
    assert table.frame["shop"].to_list() == ["x", "x", "y"]
    assert readers.read_table(path, ReaderOptions(id="shop", target="price")).variates == ("price",)
    renamed = write(tmp_path, content.replace(",y,", ",sales,"))
    assert "--reader.target" in refusal(renamed, id="shop")
    assert "row 3, column 'shop'" in refusal(write(tmp_path, content.replace("x,2020-01-02", ",2020-01-02")), id="shop")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["2020-02-01", "2020-02-02"], ["2020-02-01 00:00:00", "2020-02-02 00:00:00"]),
        (["2020-02-01T06:30", "2020-02-01T07:30"], ["2020-02-01 06:30:00", "2020-02-01 07:30:00"]),
        (["2020-02-01T06:30:00Z", "2020-02-01T07:30:00Z"], ["2020-02-01 06:30:00", "2020-02-01 07:30:00"]),
        (["2020-02-01 06:30:00+02:00", "2020-02-01 07:30:00+02:00"], ["2020-02-01 04:30:00", "2020-02-01 05:30:00"]),
        (["2020-02-01 06:30:00.250", "2020-02-01 06:30:01.250"], ["2020-02-01 06:30:00", "2020-02-01 06:30:01"]),
        (["2020-02-01T06:30:00Z", "2020-02-01T06:30:01.5Z"], ["2020-02-01 06:30:00", "2020-02-01 06:30:01"]),
        (["2020-02-01", "2020-02-01 01:00:00"], ["2020-02-01 00:00:00", "2020-02-01 01:00:00"]),
        (["2020/02/01 00:00", "2020/02/01 01:00"], ["2020-02-01 00:00:00", "2020-02-01 01:00:00"]),
        (["1.2.2020 6:30", "13.2.2020 6:30"], ["2020-02-01 06:30:00", "2020-02-13 06:30:00"]),
        (["01/02/2020", "13/02/2020"], ["2020-02-01 00:00:00", "2020-02-13 00:00:00"]),
        (["02/01/2020", "02/13/2020"], ["2020-02-01 00:00:00", "2020-02-13 00:00:00"]),
        (["02/01/2020 1:00:00 PM", "02/13/2020 1:00:00 PM"], ["2020-02-01 13:00:00", "2020-02-13 13:00:00"]),
        (["01.02.20", "13.02.20"], ["2020-02-01 00:00:00", "2020-02-13 00:00:00"]),
        (["1-Feb-2020", "2-Feb-2020"], ["2020-02-01 00:00:00", "2020-02-02 00:00:00"]),
        (["2020-02", "2020-03"], ["2020-02-01 00:00:00", "2020-03-01 00:00:00"]),
        (["2020 Q1", "2020 Q2"], ["2020-01-01 00:00:00", "2020-04-01 00:00:00"]),
        (["2020-W05", "2020-W06"], ["2020-01-27 00:00:00", "2020-02-03 00:00:00"]),
        (["20200201", "20200202"], ["2020-02-01 00:00:00", "2020-02-02 00:00:00"]),
        (["1998", "1999"], ["1998-01-01 00:00:00", "1999-01-01 00:00:00"]),
        (["1580515200", "1580518800"], ["2020-02-01 00:00:00", "2020-02-01 01:00:00"]),
    ],
)
def test_forms_of_dates(tmp_path: Path, texts: list[str], expected: list[str]) -> None:
    rows = "".join(f"{text},{at}\n" for at, text in enumerate(texts))
    assert stamps(write(tmp_path, f"date,a\n{rows}")) == expected


def test_a_given_time_format(tmp_path: Path) -> None:
    path = write(tmp_path, "date,a\n20200201 06,1\n20200201 07,2\n")
    assert stamps(path, time_format="%Y%m%d %H") == ["2020-02-01 06:00:00", "2020-02-01 07:00:00"]
    assert "row 2, column 'date': found '20200201 06'" in refusal(path, time="date", time_format="%d.%m.%Y")


def test_dates_that_can_be_read_in_two_ways(tmp_path: Path) -> None:
    path = write(tmp_path, "date,a\n01/01/2020,1\n02/01/2020,2\n03/01/2020,3\n")
    assert "row 3, column 'date': '02/01/2020' can be day before month" in refusal(path)
    assert stamps(path, time_format="%d/%m/%Y")[1] == "2020-01-02 00:00:00"


def test_day_and_month_are_told_apart_by_any_row(tmp_path: Path) -> None:
    days = [f"{day:02}/{month:02}/2020" for month in range(1, 13) for day in range(1, 13)] + ["13/12/2020"]
    path = write(tmp_path, "date,a\n" + "".join(f"{day},1\n" for day in days))
    assert stamps(path)[-1] == "2020-12-13 00:00:00"


def test_local_time_becomes_utc(tmp_path: Path) -> None:
    local = ["00:00", "01:00", "02:00", "02:00", "03:00"]
    path = write(tmp_path, "date,a\n" + "".join(f"2020-10-25 {time},1\n" for time in local))
    table = readers.read_table(path, ReaderOptions(time_zone="Europe/Berlin"))
    hours = table.frame["date"].dt.to_string("%d %H").to_list()
    assert hours == ["24 22", "24 23", "25 00", "25 01", "25 02"]
    assert table.rows(table.clock.repeated) == [4, 5]
    assert table.time_zone == "Europe/Berlin"


def test_repeated_half_hours_and_series_by_series(tmp_path: Path) -> None:
    local = ["02:00", "02:30", "02:00", "02:30"]
    rows = "".join(f"{shop},2020-10-25 {time},1\n" for shop in "xy" for time in local)
    table = readers.read_table(write(tmp_path, f"id,date,y\n{rows}"), ReaderOptions(id="id", time_zone="Europe/Berlin"))
    assert table.frame["date"].dt.to_string("%H:%M").to_list() == ["00:00", "00:30", "01:00", "01:30"] * 2


def test_an_hour_that_does_not_exist(tmp_path: Path) -> None:
    local = ["01:00", "02:00", "03:00"]
    path = write(tmp_path, "date,a\n" + "".join(f"2020-03-29 {time},1\n" for time in local))
    table = readers.read_table(path, ReaderOptions(time_zone="Europe/Berlin"))
    assert table.rows(table.clock.skipped) == [3]
    assert table.frame["date"].dt.to_string("%H").to_list() == ["00", "01", "01"]


def test_days_stay_local_dates_and_offsets_win(tmp_path: Path) -> None:
    days = write(tmp_path, "date,a\n2020-03-28,1\n2020-03-29,2\n2020-03-30,3\n")
    assert stamps(days, time_zone="Europe/Berlin") == [
        "2020-03-28 00:00:00",
        "2020-03-29 00:00:00",
        "2020-03-30 00:00:00",
    ]
    offsets = write(tmp_path, "date,a\n2020-03-28T01:00:00+01:00,1\n2020-03-28T02:00:00+01:00,2\n")
    table = readers.read_table(offsets, ReaderOptions(time_zone="Europe/Berlin"))
    assert table.frame["date"].dt.hour().to_list() == [0, 1]
    assert (table.time_zone, readers.read_table(offsets).time_zone) == ("Europe/Berlin", "UTC")


def test_parquet_file_and_folder(tmp_path: Path) -> None:
    plain = readers.read_table(write(tmp_path, PLAIN))
    plain.frame.write_parquet(tmp_path / "plant.parquet")
    assert readers.read_table(tmp_path / "plant.parquet").frame.equals(plain.frame)
    folder = tmp_path / "parts"
    folder.mkdir()
    plain.frame[:2].write_parquet(folder / "1.parquet")
    plain.frame[2:].write_parquet(folder / "2.parquet")
    table = readers.read_table(folder, ReaderOptions(variates=["b"]))
    assert table.frame.equals(plain.frame.select("date", "b"))
    assert table.rows([0]) == [1]
    first = table.checksum
    plain.frame[1:].write_parquet(folder / "2.parquet")
    assert readers.read_table(folder).checksum != first
    assert "no column 'c'" in refusal(folder, variates=["c"])
    assert "cannot be read as Parquet" in refusal(write(tmp_path, "no parquet", "broken.parquet"))
    (tmp_path / "empty").mkdir()
    assert "holds no Parquet file" in refusal(tmp_path / "empty")


def test_parquet_with_a_zone(tmp_path: Path) -> None:
    times = (
        pl.Series("t", ["2020-07-01 00:00", "2020-07-01 01:00"])
        .str.to_datetime("%Y-%m-%d %H:%M")
        .dt.replace_time_zone("Europe/Berlin")
    )
    pl.DataFrame([times, pl.Series("a", [1, 2])]).write_parquet(tmp_path / "z.parquet")
    table = readers.read_table(tmp_path / "z.parquet")
    assert table.time_zone == "Europe/Berlin"
    assert table.frame["t"].dt.to_string("%d %H").to_list() == ["30 22", "30 23"]


def test_days_with_offsets_stay_local_dates(tmp_path: Path) -> None:
    offsets = ["2020-03-28T00:00:00+01:00", "2020-03-29T00:00:00+01:00", "2020-03-30T00:00:00+02:00"]
    path = write(tmp_path, "date,a\n" + "".join(f"{text},1\n" for text in offsets))
    assert [text[8:10] for text in stamps(path, time_zone="Europe/Berlin")] == ["28", "29", "30"]
    days = pl.Series("t", ["2020-03-28", "2020-03-29", "2020-03-30"]).str.to_datetime("%Y-%m-%d")
    pl.DataFrame([days.dt.replace_time_zone("Europe/Berlin"), pl.Series("a", [1, 2, 3])]).write_parquet(
        tmp_path / "d.parquet"
    )
    assert [text[8:10] for text in stamps(tmp_path / "d.parquet")] == ["28", "29", "30"]


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = tmp_path / "plant.db"
    connection = sqlite3.connect(path)
    connection.execute("create table meters (date text, a real, b integer)")
    rows = [("2020-01-01 00:00:00", 1.5, 1), ("2020-01-01 01:00:00", None, 2), ("2020-01-01 02:00:00", 3.5, 3)]
    connection.executemany("insert into meters values (?, ?, ?)", rows)
    connection.execute("create table notes (text text)")
    connection.commit()
    connection.close()
    return f"sqlite:///{path}"


def test_sql(database: str) -> None:
    table = readers.read_table(database, ReaderOptions(table="meters"))
    assert table.frame["a"].to_list() == [1.5, None, 3.5]
    assert table.frame["date"].dtype == pl.Datetime("ns")
    query = readers.read_table(database, ReaderOptions(table="SELECT date, b FROM meters WHERE b > 1;"))
    assert query.frame["b"].to_list() == [2.0, 3.0]
    assert table.checksum != query.checksum
    assert table.checksum == readers.read_table(database, ReaderOptions(table="meters")).checksum


@pytest.mark.parametrize(
    "table",
    [
        "drop table meters",
        "select 1; drop table meters",
        "delete from meters where 1",
        "with x as (select 1) select * from x",
        "pragma foo = 1",
    ],
)
def test_sql_refuses_anything_but_one_select(database: str, table: str) -> None:
    assert "expected the name of a table or one SELECT" in refusal(database, table=table)
    assert readers.read_table(database, ReaderOptions(table="meters")).frame.height == 3


def test_sql_mistakes(database: str, tmp_path: Path) -> None:
    assert "expected one of 'meters', 'notes'" in refusal(database)
    assert "no table 'meter'" in refusal(database, table="meter")
    assert "no such column" in refusal(database, table="select c from meters")
    missing = tmp_path / "missing.db"
    assert "no such database file" in refusal(f"sqlite:///{missing}", table="meters")
    assert not missing.exists()
    text = refusal("postgresql+psycopg://me:secret@127.0.0.1:1/plant", table="meters")
    assert "secret" not in text and "refuse" in text
    assert "driver" in refusal("mysql+nonesuch://h/d", table="t") or "URL" in refusal("mysql+nonesuch://h/d", table="t")


def test_postgres(postgres: str) -> None:
    import sqlalchemy as sa

    engine = sa.create_engine(postgres)
    with engine.begin() as connection:
        connection.execute(sa.text("create table flows (ds timestamptz, y double precision)"))
        connection.execute(
            sa.text(
                "insert into flows select t, 1 "
                "from generate_series(timestamptz '2020-01-01 00:00Z', '2020-01-01 05:00Z', '1 hour') t"
            )
        )
    engine.dispose()
    table = readers.read_table(postgres, ReaderOptions(table="public.flows"))
    assert table.frame.height == 6 and table.time_zone == "UTC"
    assert "read-only transaction" in refusal(postgres, table="select * into copied from flows")


def test_netcdf_and_zarr_series(tmp_path: Path) -> None:
    times = np.datetime64("2020-01-01", "ns") + np.arange(4) * np.timedelta64(1, "h")
    data = xr.Dataset(
        {
            "flow": ("time", [1.0, 2.0, np.nan, 4.0], {"units": "m3/s"}),
            "level": ("time", [1, 2, 3, 4]),
            "wide": (("gauge", "time"), np.ones((2, 4))),
        },
        coords={"time": times, "gauge": [1, 2]},
    )
    data.to_netcdf(tmp_path / "river.nc")
    data.to_zarr(tmp_path / "river.zarr", consolidated=False)
    for name in ("river.nc", "river.zarr"):
        table = readers.read_table(tmp_path / name)
        assert table.variates == ("flow", "level") and table.units["flow"] == "m3/s"
        assert table.frame["flow"].to_list() == [1.0, 2.0, None, 4.0]
        assert readers.read_table(tmp_path / name, ReaderOptions(variable="wide")).variates == ("1", "2")
        assert not readers.is_field(tmp_path / name)
        assert "--reader.variable" in refusal(tmp_path / name, variable="depth")
    (tmp_path / "broken.nc").write_bytes(b"CDF\x01 and then nonsense")
    assert "cannot be opened as NetCDF" in refusal(tmp_path / "broken.nc")
    for content in (b"", b"junk", gzip.compress(b"junk")):
        assert "expected a NetCDF file" in refusal(write(tmp_path, content, "junk.nc"))


def test_a_file_without_header_and_stamps(tmp_path: Path) -> None:
    path = write(tmp_path, "1,2\n3,4\n5,6\n", "solar.txt")
    table = readers.read_table(path, ReaderOptions(start="2006-01-01", frequency="10min"))
    assert table.variates == ("0", "1") and table.first_row == 1
    assert table.frame["time"].dt.minute().to_list() == [0, 10, 20]
    assert "line 1 holds numbers" in refusal(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param("", "the file is empty", id="empty"),
        pytest.param("\n\n", "the file is empty", id="blank"),
        pytest.param("date,a\n", "found a header and no row of data", id="header only"),
        pytest.param("date,a\n\n\n", "found a header and no row of data", id="header and blank lines"),
        pytest.param("a,b\n1,2\n", "no column holds dates", id="no dates"),
        pytest.param("date,a\n2020-01-01,1\n2020-01-02,2,9\n", "row 3 has 3 cells, expected 2", id="too many cells"),
        pytest.param("date,a,a\n2020-01-01,1,2\n", "names the column 'a' twice", id="column twice"),
        pytest.param('date,a\n2020-01-01,"1\n2020-01-02,2\n', "quotation mark", id="open quotation"),
        pytest.param(
            "date,a\n2020-01-01,1\nyesterday,2\n2020-01-03,3\n",
            "row 3, column 'date': found 'yesterday'",
            id="bad date",
        ),
        pytest.param(
            "date,a\n2020-01-01,1\n2020-02-30,2\n2020-03-01,2\n",
            "row 3, column 'date': found '2020-02-30'",
            id="no such day",
        ),
        pytest.param(
            "date,a\n2020-01-01,1\n,2\n2020-01-03,3\n", "row 3, column 'date': found an empty cell", id="no date"
        ),
        pytest.param("date,a\n0020-01-01,1\n2020-01-02,1\n", "row 2, column 'date': found '0020-01-01'", id="year 20"),
        pytest.param("date,a\n2020-01-01,x\n2020-01-02,y\n", "no column holds numbers", id="no numbers"),
        pytest.param("date;a\n2020-01-01;1,5\n2020-01-02;2,5\n", "decimal comma", id="decimal comma"),
        pytest.param(
            "date,ä\n2020-01-01,1\n".encode("latin-1"), "line 1 is not utf-8 (byte 0xe4)", id="latin-1 header"
        ),
        pytest.param("date\n2020-01-01\n", "expected at least one to forecast", id="time alone"),
        pytest.param(b"date,a\n2020-01-01,\xe9\n", "line 2 is not utf-8 (byte 0xe9)", id="latin-1"),
        pytest.param("date,a\n2020-01-01,1\n".encode("utf-16"), "--reader.encoding utf-16", id="utf-16"),
        pytest.param(b"\x80\x04\x95\0\0pickle", "binary data", id="binary"),
        pytest.param("date,a\r2020-01-01,1\r2020-01-02,2\r", "carriage return alone", id="CR"),
        pytest.param(gzip.compress(b"date,a\n" * 100)[:-20], "damaged or cut short", id="cut gzip"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: str | bytes, expected: str) -> None:
    text = refusal(write(tmp_path, content))
    assert text.startswith("plant.csv: ") and expected in text


def test_columns_that_do_not_exist_are_answered_with_those_that_do(tmp_path: Path) -> None:
    path = write(tmp_path, PLAIN)
    for option in (
        {"time": "tiem"},
        {"variates": ["tiem"]},
        {"past": ["tiem"]},
        {"future": ["tiem"]},
        {"static": ["tiem"]},
        {"id": "tiem"},
    ):
        text = refusal(path, **option)
        assert "no column 'tiem'" in text and "'date', 'a', 'b'" in text and f"reader.{next(iter(option))}" in text
    assert "row 2, column 'a': found '1', expected a date" in refusal(path, time="a")


def test_missing_files_and_foreign_kinds(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "nowhere.csv")
    assert "save the sheet as CSV" in refusal(write(tmp_path, "x", "table.xlsx"))
    assert "a pickle is never loaded" in refusal(write(tmp_path, "x", "table.pkl"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"delimiter": ";;"}, "reader.delimiter"),
        ({"decimal": "x"}, "reader.decimal"),
        ({"encoding": "klingon"}, "reader.encoding"),
        ({"encoding": "rot13"}, "reader.encoding"),
        ({"time_zone": "Mars/Olympus"}, "reader.time_zone"),
        ({"frequency": "fortnight"}, "reader.frequency"),
        ({"time_format": "dd.mm.yyyy"}, "reader.time_format"),
        ({"target": "y"}, "reader.target"),
        ({"start": "2020-01-01"}, "reader.start"),
        ({"variates": []}, "reader.variates"),
        ({"past": ["a"], "future": ["a"]}, "reader.future"),
    ],
)
def test_options_out_of_range(options: dict[str, object], expected: str) -> None:
    with pytest.raises(ForetideError, match=expected):
        ReaderOptions(**options)  # type: ignore[arg-type]


def test_options_on_top_of_others() -> None:
    base = ReaderOptions(time="date", units={"a": "K"}, time_zone="UTC")
    assert ReaderOptions(variates=["a"], time_zone="Europe/Berlin").overlaid(base) == ReaderOptions(
        time="date", units={"a": "K"}, variates=["a"], time_zone="Europe/Berlin"
    )


@pytest.mark.parametrize(
    ("path", "variable", "shape", "units"),
    [
        ("air_temperature/air_temperature.nc.gz", "air", (2920, 25, 53), "degK"),
        ("era5_t2m_uk/era5-2mt-2019-03-uk.nc", "t2m", (744, 33, 49), "K"),
        ("ersst_v5/sst.mnmean.nc", "sst", (128, 89, 180), "degC"),
    ],
)
def test_real_fields(data_folder: Path, path: str, variable: str, shape: tuple[int, ...], units: str) -> None:
    field = readers.read_field(data_folder / path)
    assert list(field.data_vars) == [variable]
    assert field[variable].dims == ("time", "lat", "lon") and field[variable].shape == shape
    assert field[variable].attrs["units"] == units
    assert not field[variable].variable._in_memory
    assert readers.is_field(data_folder / path)
    assert len(field.attrs["checksum"]) == 64 and field.attrs["source"] == Path(path).name
    np.testing.assert_allclose(
        field[variable][0].mean().item(), float(field[variable].values[0][~np.isnan(field[variable].values[0])].mean())
    )


def test_a_field_is_no_table(data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ForetideError, match=r"--reader\.variable"):
        readers.read_table(data_folder / "ersst_v5/sst.mnmean.nc")
    with pytest.raises(ForetideError, match="'depth'"):
        readers.read_field(data_folder / "ersst_v5/sst.mnmean.nc", ReaderOptions(variable="depth"))


def test_fields_in_zarr_with_other_names(tmp_path: Path) -> None:
    data = xr.Dataset(
        {"t": (("latitude", "longitude", "valid_time"), np.arange(24.0).reshape(2, 3, 4), {"units": "K"})},
        coords={
            "valid_time": np.datetime64("2020-01-01", "ns") + np.arange(4) * np.timedelta64(6, "h"),
            "latitude": [1.0, 0.0],
            "longitude": [0.0, 1.0, 2.0],
        },
    )
    data.to_zarr(tmp_path / "grid.zarr", consolidated=False)
    field = readers.read_field(tmp_path / "grid.zarr")
    assert field["t"].dims == ("time", "lat", "lon") and field.attrs["frequency"] == "6h"
    np.testing.assert_array_equal(field["t"].values, data["t"].transpose("valid_time", "latitude", "longitude").values)
    assert readers.is_field(tmp_path / "grid.zarr")


def test_weather(data_folder: Path) -> None:
    table = readers.read_table(data_folder / "weather/weather.csv.gz")
    assert table.frame.shape == (52696, 22) and len(table.variates) == 21
    assert table.checksum == "34ee981d07313e51da2a50bb600072c8ae4a69cb4b0651f4cb93a069d7a2ba63"
    assert "SWDR (W/m\ufffd)" in table.variates and table.variates[-1] == "OT"
