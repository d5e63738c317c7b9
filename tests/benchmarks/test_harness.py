"""The form of the results, the meaning of each target, and the measuring itself."""

import json
import sys
import time
from pathlib import Path

import pytest

from benchmarks import demo, harness, results
from benchmarks.harness import Record, Timing


def test_a_time_is_better_when_it_is_lower_than_the_peers() -> None:
    assert Record("a", "training step", "ms", 2.0, peer="other", peer_value=6.0).ratio == 3.0
    assert Record("a", "memory", "MiB", 50.0, peer="other", peer_value=100.0).ratio == 2.0
    assert Record("a", "training step", "ms/step", 2.0, peer="other", peer_value=6.0).ratio == 3.0


@pytest.mark.parametrize("unit", ["samples/s", "GB/s", "windows/min", "", "points"])
def test_all_else_is_ours_over_the_peers(unit: str) -> None:
    assert Record("a", "rate", unit, 6.0, peer="other", peer_value=2.0).ratio == 3.0


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({"value": 0.39, "target": "<= 0.390"}, "met"),
        ({"value": 0.391, "target": "<= 0.390"}, "missed"),
        ({"value": 1.0, "unit": "s", "peer_value": 5.0, "target": ">= 5", "target_of": "ratio"}, "met"),
        ({"value": 1.01, "unit": "s", "peer_value": 5.0, "target": ">= 5", "target_of": "ratio"}, "missed"),
        ({"value": 3.0, "unit": "ms", "floor": 1.5, "target": "<= 2", "target_of": "floor"}, "met"),
        ({"value": 3.1, "unit": "ms", "floor": 1.5, "target": "<= 2", "target_of": "floor"}, "missed"),
        ({"value": 7.0}, "no target"),
    ],
)
def test_verdicts(values: dict, verdict: str) -> None:
    assert Record(**({"case": "a", "metric": "m", "unit": ""} | values)).verdict == verdict


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"target": "5"}, "expected the form"),
        ({"target": "< 5"}, "expected the form"),
        ({"target": ">= 5", "target_of": "ratio"}, "lacks its other half"),
        ({"target": ">= 5", "target_of": "floor"}, "lacks its other half"),
        ({"target_of": "spread"}, "expected value, ratio or floor"),
        ({"value": float("nan")}, "expected a finite number"),
        ({"peer_value": float("inf")}, "expected a finite number"),
    ],
)
def test_a_record_that_says_nothing_is_refused(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Record(**({"case": "a", "metric": "m", "unit": "s", "value": 1.0} | values))


def test_median_and_interquartile_range() -> None:
    timing = Timing((1.0, 2.0, 3.0, 4.0, 100.0))
    assert (timing.median, timing.spread) == (3.0, 2.0)
    assert Timing((2.0,)).spread == 0.0


def test_measure_calls_as_often_as_it_says() -> None:
    calls: list[int] = []
    timing = harness.measure(lambda: calls.append(1), repeats=5, warmup=2)
    assert len(calls) == 7
    assert len(timing.samples) == 5


def test_two_calls_are_measured_in_turns() -> None:
    calls: list[str] = []
    harness.measure_beside(lambda: calls.append("ours"), lambda: calls.append("peer"), repeats=3, warmup=1)
    assert calls == ["ours", "peer", "ours", "peer", "peer", "ours", "ours", "peer"]


def test_measured_time_is_that_of_the_call() -> None:
    timing = harness.measure(lambda: time.sleep(0.02), repeats=2, warmup=0)
    assert min(timing.samples) >= 0.02


def test_a_child_reports_its_memory_time_and_output() -> None:
    code = "import sys; block = bytearray(80_000_000); print(len(block)); print('oops', file=sys.stderr); sys.exit(3)"
    child = harness.run_child([sys.executable, "-c", code])
    assert child.code == 3
    assert set(child.output.split()) == {"80000000", "oops"}
    assert child.peak_bytes > 80_000_000
    assert child.cpu_seconds > 0


def test_written_file_has_the_common_form_and_reads_back(tmp_path: Path) -> None:
    records = [
        Record("small", "mse", "", 0.385, 0.001, target="<= 0.390"),
        Record("large", "step", "ms", 2.0, peer="other", peer_value=5.0, floor=1.0, device="another"),
    ]
    path = harness.write("sample", records, peers=["pytest"], folder=tmp_path)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert set(content) == {"command", "commit", "date", "device", "versions", "records"}
    assert content["command"].startswith("python ")
    assert {"python", "torch", "pytest"} <= set(content["versions"])
    assert set(content["records"][0]) == {
        "case",
        "metric",
        "unit",
        "value",
        "spread",
        "peer",
        "peer_value",
        "floor",
        "target",
        "target_of",
    }
    assert content["records"][1]["device"] == "another"
    assert results.read(path) == records
    assert [entry.name for entry in tmp_path.iterdir()] == ["sample.json"]


def test_two_records_of_one_figure_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no two of the same"):
        harness.write("sample", [Record("a", "m", "", 1.0), Record("a", "m", "", 2.0)], folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_table_says_what_is_met_and_what_is_not(tmp_path: Path) -> None:
    harness.write(
        "first",
        [Record("a", "mse", "", 0.5, target="<= 0.4"), Record("b", "mse", "", 0.3, target="<= 0.4")],
        folder=tmp_path,
    )
    harness.write("second", [Record("c", "step", "ms", 2.0, 0.1, peer="other", peer_value=6.0)], folder=tmp_path)
    lines = results.table(tmp_path).splitlines()
    assert lines[-1] == "1 met, 1 missed, 1 without a target"
    assert next(line for line in lines if line.startswith("first      a")).endswith("value <= 0.4  missed")
    assert "2 ± 0.1" in lines[4]
    assert "other 6" in lines[4]


def test_a_file_of_another_form_is_named(tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text('{"records": [{"case": "a"}]}')
    with pytest.raises(ValueError, match=r"odd\.json: not a result file"):
        results.table(tmp_path)


def test_no_results_is_said(tmp_path: Path) -> None:
    assert "no results" in results.table(tmp_path)


def test_committed_results_have_the_common_form() -> None:
    for path in harness.RESULTS.glob("*.json"):
        assert results.read(path)


def test_the_demo_benchmark_reports_each_stage_of_each_run() -> None:
    child = harness.Child(0, 70.0, 120.0, 2 * demo.GB, "")
    stages = {"data": {"seconds": 1.0, "cpu_seconds": 1.0}, "train": {"seconds": 50.0, "cpu_seconds": 100.0}}
    slower = {name: {key: value * 1.2 for key, value in stage.items()} for name, stage in stages.items()}
    records = {record.metric: record for record in demo._records("warm", [(child, stages), (child, slower)])}
    assert records["make demo"].verdict == "met"
    assert records["make demo, peak memory"].value == 2.0
    assert records["stage train"].value == 55.0
    assert records["stage train, processor time"].verdict == "met"
    assert records["stage data"].target is None
