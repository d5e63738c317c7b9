"""Quality: what the report finds, and what each policy makes of it."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr

from datasets import quality, readers
from datasets.errors import ForetideError
from datasets.quality import Finding, QualityOptions, QualityReport
from datasets.readers import RawTable, ReaderOptions
from datasets.schema import LongSeries

HOURS = [f"2020-01-01 {hour:02}:00" for hour in range(24)]


def table(folder: Path, rows: list[str], header: str = "date,a", **options: object) -> RawTable:
    path = folder / "plant.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return readers.read_table(path, ReaderOptions(**options))  # type: ignore[arg-type]


def hourly(count: int = 24, **changes: str) -> list[str]:
    """Rows of an hourly series 0, 1, 2 …; ``h5="x"`` puts x into row 5."""
    return [f"{HOURS[hour]},{changes.get(f'h{hour}', str(hour))}" for hour in range(count)]


def found(report: QualityReport, kind: str) -> Finding:
    return next(finding for finding in report.findings if finding.kind == kind)


def kinds(report: QualityReport) -> list[str]:
    return [finding.kind for finding in report.findings]


def repaired(data: RawTable, policy: str, **options: object) -> xr.Dataset:
    chosen = QualityOptions(policy, **options)  # type: ignore[arg-type]
    made = quality.repair(data, quality.inspect(data), chosen)
    assert isinstance(made, xr.Dataset)
    return made


def repaired_long(data: RawTable, policy: str, **options: object) -> LongSeries:
    chosen = QualityOptions(policy, **options)  # type: ignore[arg-type]
    made = quality.repair(data, quality.inspect(data), chosen)
    assert isinstance(made, LongSeries)
    return made


def refused(data: RawTable, policy: str = "error") -> str:
    with pytest.raises(ForetideError) as caught:
        quality.repair(data, quality.inspect(data), QualityOptions(policy))  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text and text.startswith("plant.csv")
    return text


def values(data: xr.Dataset) -> list[float | None]:
    return [None if np.isnan(value) else value for value in data["value"].values[:, 0].tolist()]


def notes(data: xr.Dataset) -> list[str]:
    made: list[str] = json.loads(data.attrs["repairs"])
    return made


def test_a_clean_table_passes_untouched(tmp_path: Path) -> None:
    data = table(tmp_path, hourly())
    report = quality.inspect(data)
    assert report.clean and report.findings == []
    assert (report.rows, report.variates, report.frequency) == (24, ("a",), "h")
    assert (report.first, report.last) == ("2020-01-01 00:00:00", "2020-01-01 23:00:00")
    for policy in ("error", "mask", "interpolate", "drop"):
        made = repaired(data, policy)
        assert values(made) == list(range(24)) and notes(made) == []
        assert made.attrs["frequency"] == "h" and made.attrs["checksum"] == data.checksum


@pytest.mark.parametrize(
    ("kind", "rows", "expected_rows", "count", "detail"),
    [
        ("sentinel", hourly(h3="-9999", h4="-9999.0"), [5, 6], 2, "-9999 stands for a missing value"),
        ("missing", hourly(h3="", h7="NA"), [5, 9], 2, "an empty cell"),
        ("infinite", hourly(h3="inf", h4="-inf"), [5, 6], 2, "found +infinity"),
        ("non_numeric", hourly(h3="broken"), [5], 1, "found 'broken', expected a number"),
        ("gap", hourly()[:5] + hourly()[7:], [6], 2, "2 rows are missing after 2020-01-01 04:00:00"),
        (
            "duplicate",
            [*hourly()[:5], *hourly()[4:]],
            [7],
            1,
            "2020-01-01 04:00:00 occurs twice, first in row 6 with the same values",
        ),
        ("unsorted", [*hourly()[1:3], hourly()[0], *hourly()[3:]], [4], 1, "2020-01-01 00:00:00 is older"),
        (
            "mixed_frequency",
            [*hourly()[:5], "2020-01-01 04:10,1", *hourly()[5:]],
            [7],
            1,
            "2020-01-01 04:10:00 is off the grid of h",
        ),
        ("empty", [row.split(",")[0] + "," for row in hourly()], [], 1, "no value at all"),
    ],
)
def test_each_finding_that_blocks(
    tmp_path: Path, kind: str, rows: list[str], expected_rows: list[int], count: int, detail: str
) -> None:
    data = table(tmp_path, rows)
    report = quality.inspect(data)
    assert kinds(report) == [kind] and not report.clean
    finding = report.findings[0]
    assert (finding.rows, finding.count) == (expected_rows, count) and finding.blocking
    assert detail in finding.detail
    assert finding.column == ("a" if kind in ("sentinel", "missing", "infinite", "non_numeric", "empty") else "date")
    text = refused(data)
    assert detail in text and "--" in text
    assert not expected_rows or f"row {expected_rows[0]}, column " in text


def test_constant_and_outlier_do_not_block(tmp_path: Path) -> None:
    rows = [f"{row},7" for row in hourly(h3="1e6")]
    report = quality.inspect(table(tmp_path, rows, "date,a,b"))
    assert report.clean
    assert (found(report, "constant").column, found(report, "constant").detail) == ("b", "always 7")
    assert (found(report, "outlier").column, found(report, "outlier").rows) == ("a", [5])
    assert kinds(quality.inspect(table(tmp_path, rows, "date,a,b"), QualityOptions(outlier_limit=1e7))) == ["constant"]


def test_all_findings_at_once_in_the_order_of_mending(tmp_path: Path) -> None:
    rows = [*hourly(h2="x", h5="-9999", h6="inf", h8="")[:12], *hourly()[11:14], *hourly()[16:]]
    report = quality.inspect(table(tmp_path, rows))
    assert kinds(report) == ["non_numeric", "duplicate", "gap", "sentinel", "infinite", "missing"]
    assert "5 more findings block" in refused(table(tmp_path, rows))


def test_mask(tmp_path: Path) -> None:
    rows = [
        *hourly(h2="x", h5="-9999", h6="inf", h8="")[:12],
        "2020-01-01 11:00,99",
        *hourly()[14:16],
        *hourly()[12:13],
    ]
    made = repaired(table(tmp_path, rows), "mask")
    expected = [None if hour in (2, 5, 6, 8, 13) else hour for hour in range(16)]
    assert values(made) == expected
    np.testing.assert_array_equal(np.diff(made["time"].values), np.timedelta64(1, "h"))
    assert notes(made) == [
        "1 cell of text in 'a' became missing",
        "1 sentinel cell in 'a' became missing",
        "1 infinity cell in 'a' became missing",
        "1 row out of order sorted by time",
        "1 row with a repeated time stamp left out, the first kept",
        "1 row missing from the grid added without values",
    ]


def test_interpolate_up_to_a_limit(tmp_path: Path) -> None:
    rows = hourly(10, h0="", h2="", h4="", h5="", h9="")
    assert values(repaired(table(tmp_path, rows), "interpolate")) == [None, 1, 2, 3, 4, 5, 6, 7, 8, None]
    made = repaired(table(tmp_path, rows), "interpolate", max_gap=1)
    assert values(made) == [None, 1, 2, 3, None, None, 6, 7, 8, None]
    assert notes(made) == [
        "1 missing value interpolated in time",
        "4 missing values left at the ends or in gaps longer than the limit",
    ]


def test_interpolation_goes_by_time_not_by_row(tmp_path: Path) -> None:
    months = ["2020-01-01,0", "2020-02-01,", "2020-03-01,60"]
    made = repaired(table(tmp_path, months), "interpolate")
    assert values(made) == pytest.approx([0, 31, 60]) and made.attrs["frequency"] == "MS"


def test_drop_at_the_ends_and_never_inside(tmp_path: Path) -> None:
    rows = [f"{row}," for row in hourly(10, h0="", h1="-9999", h9="")]
    made = repaired(table(tmp_path, rows, "date,a,b"), "drop")
    assert values(made) == [2, 3, 4, 5, 6, 7, 8] and made["variate"].values.tolist() == ["a"]
    assert notes(made)[-2:] == ["the empty column 'b' left out", "3 incomplete rows at the ends left out"]
    text = refused(table(tmp_path, hourly(10, h4="")), "drop")
    assert "column 'a' has no value at 2020-01-01 04:00:00" in text and "interpolate" in text
    assert "every column to forecast is empty" in refused(table(tmp_path, [f"{hour}," for hour in HOURS]), "drop")


def test_rows_off_the_grid_are_left_out_under_mask(tmp_path: Path) -> None:
    made = repaired(table(tmp_path, ["2019-12-31 23:59,7", *hourly(5)]), "mask")
    assert values(made) == [0, 1, 2, 3, 4]
    assert notes(made) == ["1 row off the grid of h left out"]


def test_no_step_at_all(tmp_path: Path) -> None:
    days = (1, 2, 4, 8, 15, 31)
    data = table(tmp_path, [f"2020-01-{day:02},1" for day in days] + ["2020-03-20 07:00,2"])
    assert "no step prevails" in found(quality.inspect(data), "mixed_frequency").detail
    assert "--reader.frequency" in refused(data) and "--reader.frequency" in refused(data, "mask")
    one = table(tmp_path, ["2020-01-01,1"])
    assert "no two rows" in refused(one)
    assert values(repaired(table(tmp_path, ["2020-01-01,1"], frequency="D"), "error")) == [1]


def test_another_frequency_in_part_of_the_file(tmp_path: Path) -> None:
    half_hours = [f"2020-01-02 {at // 2:02}:{at % 2 * 30:02},1" for at in range(48)]
    report = quality.inspect(table(tmp_path, hourly() + half_hours))
    assert kinds(report) == ["mixed_frequency", "constant"] or kinds(report) == ["mixed_frequency"]
    assert "the step is h, not 30min" in found(report, "mixed_frequency").detail
    coarse = quality.inspect(table(tmp_path, hourly() + half_hours, frequency="h"))
    assert found(coarse, "mixed_frequency").count == 24


@pytest.mark.parametrize(
    ("stamps", "frequency"),
    [
        (["2020-01-01", "2020-01-02", "2020-01-04"], "D"),
        (["2020-01-07", "2020-01-14", "2020-01-28"], "7D"),
        (["2020-01-01", "2020-02-01", "2020-04-01"], "MS"),
        (["2020-01-31", "2020-02-29", "2020-04-30"], "ME"),
        (["2020-01-01", "2020-04-01", "2020-10-01"], "QS"),
        (["2020-02-01", "2020-05-01", "2020-11-01"], "QS-FEB"),
        (["2020-03-31", "2020-06-30", "2020-12-31"], "QE"),
        (["2020-01-01", "2021-01-01", "2023-01-01"], "YS"),
        (["2020-04-01", "2021-04-01", "2023-04-01"], "YS-APR"),
        (["2020-01-02", "2020-01-03", "2020-01-06", "2020-01-07", "2020-01-09"], "B"),
    ],
)
def test_frequencies_through_a_gap(tmp_path: Path, stamps: list[str], frequency: str) -> None:
    data = table(tmp_path, [f"{stamp},{at}" for at, stamp in enumerate(stamps)])
    report = quality.inspect(data)
    assert report.frequency == frequency
    assert (found(report, "gap").count, found(report, "gap").rows) == (1, [len(stamps)])
    made = repaired(data, "mask")
    assert made.sizes["time"] == len(stamps) + 1 and values(made)[-2] is None
    import pandas as pd

    expected = pd.date_range(stamps[0], periods=len(stamps) + 1, freq=frequency)
    np.testing.assert_array_equal(made["time"].values, expected.to_numpy())


def test_a_given_monthly_frequency_moves_stamps_to_the_first(tmp_path: Path) -> None:
    data = table(tmp_path, ["2020-01-15,1", "2020-02-15,2", "2020-03-15,3"], frequency="MS")
    made = repaired(data, "error")
    assert made["time"].values.astype("datetime64[D]").astype(str).tolist() == [
        "2020-01-01",
        "2020-02-01",
        "2020-03-01",
    ]
    assert notes(made) == ["3 rows moved to the grid of MS"]


def test_daylight_saving_without_a_zone(tmp_path: Path) -> None:
    spring = [f"2020-03-29 {hour:02}:00,{hour}" for hour in range(12) if hour != 2]
    report = quality.inspect(table(tmp_path, spring))
    assert (
        found(report, "daylight_saving").rows == [4] and "--reader.time_zone" in found(report, "daylight_saving").detail
    )
    zoned = quality.inspect(table(tmp_path, spring, time_zone="Europe/Berlin"))
    assert zoned.clean and kinds(zoned) == [] and zoned.first == "2020-03-28 23:00:00"


def test_daylight_saving_with_a_zone(tmp_path: Path) -> None:
    autumn = [f"2020-10-25 {hour:02}:00,{at}" for at, hour in enumerate([0, 1, 2, 2, 3, 4])]
    data = table(tmp_path, autumn, time_zone="Europe/Berlin")
    report = quality.inspect(data)
    assert report.clean and found(report, "daylight_saving").rows == [4, 5]
    made = repaired(data, "error")
    assert values(made) == [0, 1, 2, 3, 4, 5] and made.attrs["time_zone"] == "Europe/Berlin"


def test_future_covariates_reach_beyond_the_targets(tmp_path: Path) -> None:
    rows = [f"{HOURS[hour]},{hour if hour < 6 else ''},{hour * 2},{hour if hour < 6 else ''}" for hour in range(10)]
    data = table(tmp_path, rows, "date,a,plan,seen", variates=["a"], future=["plan"], past=["seen"])
    report = quality.inspect(data)
    assert report.clean
    for policy in ("error", "mask", "interpolate", "drop"):
        made = repaired(data, policy)
        assert made.sizes["time"] == 10 and values(made)[6:] == [None] * 4 and notes(made) == []
        assert made["future"].values[:, 0].tolist() == [hour * 2.0 for hour in range(10)]
        assert made["past_variate"].values.tolist() == ["seen"]
    hole = table(
        tmp_path,
        [row.replace(",14,", ",,") for row in rows],
        "date,a,plan,seen",
        variates=["a"],
        future=["plan"],
        past=["seen"],
    )
    assert found(quality.inspect(hole), "missing").column == "plan"


def test_static_covariates(tmp_path: Path) -> None:
    rows = [f"{row},3.5" for row in hourly(4)]
    made = repaired(table(tmp_path, rows, "date,a,height", static=["height"]), "error")
    assert made["static"].values.tolist() == [3.5]
    changing = [f"{row},{at}" for at, row in enumerate(hourly(4))]
    assert "static covariate has 4 values" in refused(table(tmp_path, changing, "date,a,height", static=["height"]))


LONG = [
    "y,2020-01-01,1,5",
    "y,2020-01-02,2,5",
    "y,2020-01-04,4,5",
    "x,2020-02-01,10,6",
    "x,2020-02-02,20,6",
    "x,2020-02-03,30,6",
]


def test_long_form(tmp_path: Path) -> None:
    data = table(tmp_path, LONG, "id,date,y,size", id="id", target="y", static=["size"])
    report = quality.inspect(data)
    assert (report.series, report.frequency, kinds(report)) == (2, "D", ["gap"])
    assert found(report, "gap").rows == [3] and "in series 'y'" in found(report, "gap").detail
    assert "in series 'y'" in refused(data)
    made = repaired_long(data, "interpolate")
    assert made.frame["unique_id"].to_list() == ["x"] * 3 + ["y"] * 4
    assert made.frame["y"].to_list() == [10, 20, 30, 1, 2, 3, 4]
    assert made.frame["size"].to_list() == [6] * 3 + [5] * 4
    assert made.frame.schema["ds"] == pl.Datetime("ns") and made.static == ("size",)
    assert repaired_long(data, "mask").frame["y"].to_list() == [10, 20, 30, 1, 2, None, 4]
    dropped = repaired_long(data, "drop")
    assert dropped.frame["unique_id"].unique().to_list() == ["x"]
    assert dropped.repairs[-1] == "1 series with problems left out: 'y'"


def test_names_of_the_long_form_are_not_for_covariates(tmp_path: Path) -> None:
    data = table(tmp_path, LONG[3:], "id,date,sales,y", id="id", target="sales", static=["y"])
    assert "a covariate is named 'y'" in refused(data)


def test_interpolation_stays_inside_a_series(tmp_path: Path) -> None:
    rows = ["a,2020-01-01,1", "a,2020-01-02,2", "a,2020-01-03,", "b,2020-01-01,", "b,2020-01-02,8", "b,2020-01-03,9"]
    made = repaired_long(table(tmp_path, rows, "id,date,y", id="id"), "interpolate")
    assert made.frame["y"].to_list() == [1, 2, None, None, 8, 9]


def test_whole_series_of_the_long_form(tmp_path: Path) -> None:
    rows = [f"{name},2020-01-0{day},{value}" for name, value in (("a", ""), ("b", "3"), ("c", "")) for day in (1, 2, 3)]
    report = quality.inspect(table(tmp_path, rows, "id,date,y", id="id"))
    assert (found(report, "empty").count, found(report, "empty").detail) == (2, "no value at all in 'a', 'c'")
    assert found(report, "constant").detail == "always 3 in 'b'"


def test_long_form_against_a_plain_loop(tmp_path: Path) -> None:
    random = np.random.default_rng(42)
    rows, expected = [], {}
    for name in ("north", "east", "south", "west"):
        days = np.sort(random.choice(40, size=25, replace=False))
        level = random.standard_normal(25).round(3)
        rows += [
            f"{name},{np.datetime64('2020-01-01') + int(day)},{value}" for day, value in zip(days, level, strict=True)
        ]
        grid = np.full(int(days[-1] - days[0]) + 1, np.nan)
        grid[days - days[0]] = level
        expected[name] = grid
    random.shuffle(rows)
    made = repaired_long(table(tmp_path, rows, "id,date,y", id="id"), "mask")
    for name, grid in expected.items():
        np.testing.assert_array_equal(made.frame.filter(unique_id=name)["y"].fill_null(np.nan).to_numpy(), grid)


def test_report_as_text_and_json(tmp_path: Path) -> None:
    rows = [f"{row},fine" for row in hourly(h3="-9999", h4="-9999", h9="-9999")]
    report = quality.inspect(table(tmp_path, rows, "date,a,note"))
    text = report.to_text()
    lines = text.splitlines()
    assert lines[0] == "plant.csv" and "  not used   note" in lines
    header = next(line for line in lines if "finding" in line)
    body = next(line for line in lines if line.strip().startswith("sentinel"))
    assert body.index("5-6, 11") == header.index("rows") and body.index("-9999") == header.index("detail")
    assert lines[-1].startswith("1 finding must be mended")
    again = json.loads(report.to_json())
    assert again == report.to_dict()
    assert again["findings"][0] == {
        "kind": "sentinel",
        "column": "a",
        "rows": [5, 6, 11],
        "count": 3,
        "detail": "-9999 stands for a missing value",
        "blocking": True,
    }


def test_counts_have_thousands_separators() -> None:
    report = QualityReport(
        "x.csv",
        1234567,
        1,
        ("a",),
        "",
        "",
        "h",
        findings=[Finding("missing", "a", list(range(2, 22)), 12345, "an empty cell")],
    )
    assert "1,234,567" in report.to_text() and "12,345" in report.to_text() and "2-21 …" in report.to_text()


def test_other_sentinels(tmp_path: Path) -> None:
    data = table(tmp_path, hourly(h3="-9999", h4="999"))
    assert quality.inspect(data, sentinels=(999.0,)).findings[0].rows == [6]
    assert kinds(quality.inspect(data, sentinels=())) == ["outlier"]


@pytest.mark.parametrize("options", [{"policy": "mend"}, {"max_gap": 0}, {"outlier_limit": 0.0}])
def test_options_out_of_range(options: dict[str, object]) -> None:
    with pytest.raises(ForetideError, match=f"quality.{next(iter(options))}"):
        QualityOptions(**options)  # type: ignore[arg-type]


def test_weather(data_folder: Path) -> None:
    data = readers.read_table(data_folder / "weather/weather.csv.gz")
    report = quality.inspect(data)
    sentinels = {finding.column: finding.count for finding in report.findings if finding.kind == "sentinel"}
    assert sorted(sentinels.values()) == [1, 30, 50]
    assert sentinels["wv (m/s)"] == 1 and sentinels["OT"] == 50
    duplicate, gap = found(report, "duplicate"), found(report, "gap")
    assert duplicate.count == 1 and "2020-05-12 06:00:00" in duplicate.detail
    assert gap.count == 9 and "2020-05-29 09:30:00" in gap.detail
    assert report.frequency == "10min" and not report.clean
    times = data.frame["date"]
    assert (
        str(times[duplicate.rows[0] - 2]) == "2020-05-12 06:00:00"
        and str(times[gap.rows[0] - 2]) == "2020-05-29 09:30:00"
    )
    made = repaired(data, "mask")
    assert made.sizes["time"] == 52696 - 1 + 9
    assert int(np.isnan(made["value"].values).sum()) == 81 + 9 * 21
    filled = repaired(data, "interpolate")
    assert not np.isnan(filled["value"].values).any()
    assert filled["value"].values.min() > -9999


def test_national_illness(data_folder: Path) -> None:
    data = readers.read_table(data_folder / "illness/national_illness.csv")
    report = quality.inspect(data)
    assert report.clean and report.frequency == "7D" and report.rows == 966
    made = repaired(data, "error")
    assert made.sizes == {"time": 966, "variate": 7} and notes(made) == []
