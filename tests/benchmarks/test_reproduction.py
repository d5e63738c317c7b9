"""Records of reproductions: what is judged by what, and the page that is made of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from app import figures
from benchmarks import reproduction, reproduction_page
from benchmarks.harness import Record
from benchmarks.reproduction import Case

NAIVE = "conformal seasonal naive"


def over(mean: float, std: float | None = None, count: int = 1) -> dict[str, Any]:
    return {"mean": mean, "std": std, "count": count}


def cell(horizon: int, mse: float, std: float | None, count: int, published: float, **more: Any) -> dict[str, Any]:
    extra = {"mse_dropped": over(mse - 0.01), "mae_dropped": over(mse)} if more.get("dropped") else {}
    known = {"mse": published, "mae": published, "source": "a table", "origin": "paper", "dropped": 0, "note": ""}
    return {
        "features": more.get("features", "M"),
        "horizon": horizon,
        "lookback": 96,
        "windows": 2785,
        "published": known,
        "measured": {
            "mse": over(mse, std, count),
            "mae": over(mse, std, count),
            **extra,
            "crps": over(1.0),
            "scaled_crps": over(0.5),
            "naive_crps": over(1.5),
            "naive_scaled_crps": over(0.75),
            **{f"coverage_{percent}": over(percent + 3.0) for percent in (80, 95)},
            **{f"coverage_error_{percent}": over(1.5) for percent in (80, 95)},
        },
        "seconds": over(12.0, 1.0),
    }


def summary(model: str, dataset: str, cells: list[dict[str, Any]], averages: Any = ()) -> dict[str, Any]:
    versions = {"torch": "2.13.0", "python": "3.11.7"}
    return {
        "model": model,
        "dataset": dataset,
        "cells": cells,
        "averages": list(averages),
        "devices": ["some GPU"],
        "versions": versions,
    }


def average(mse: float, published: float, seeds: int) -> dict[str, Any]:
    scores = {metric: over(mse, None, seeds) for metric in ("mse", "mae")}
    known = {"mse": published, "mae": published}
    return {"features": "M", "horizons": [96], "seeds": list(range(seeds)), "published": known, "measured": scores}


def by_metric(made: list[Record], case: str) -> dict[str, Record]:
    return {record.metric: record for record in made if record.case == case}


@pytest.mark.parametrize(
    ("case", "text"),
    [
        (Case("ETTh1", False, 96, 720, 3), "ETTh1, 96 -> 720, 3 seeds"),
        (Case("ETTh2", True, 720, 24, 1), "ETTh2 target alone, 720 -> 24, 1 seed"),
        (Case("exchange_rate", False, None, None, 1), "exchange_rate, average, 1 seed"),
    ],
)
def test_a_case_is_text_and_back(case: Case, text: str) -> None:
    assert str(case) == text and Case.of(text) == case
    with pytest.raises(ValueError, match="not a case"):
        Case.of(f"{text}!")


def test_cells_of_three_seeds_are_judged_by_their_spread_or_by_a_share() -> None:
    narrow, wide = cell(96, 0.4, 0.001, 3, 0.39), cell(192, 0.4, 0.01, 3, 0.39)
    made = reproduction.records(summary("itransformer", "ETTh1", [narrow, wide], [average(0.4, 0.39, 3)]))
    assert by_metric(made, "ETTh1, 96 -> 96, 3 seeds")["MSE"].target == "<= 0.3959"
    assert by_metric(made, "ETTh1, 96 -> 192, 3 seeds")["MAE"].target == "<= 0.4100"
    mean = by_metric(made, "ETTh1, average, 3 seeds")
    assert (mean["MSE"].target, mean["MSE"].verdict, mean["MSE"].peer_value) == ("<= 0.3939", "missed", 0.39)
    assert {record.device for record in made} == {"some GPU"}


def test_one_seed_is_judged_by_the_average_alone() -> None:
    cells = [cell(24, 0.5, None, 1, 0.39, dropped=32)]
    made = reproduction.records(summary("informer", "ETTh1", cells, [average(0.4, 0.39, 1)]))
    found = by_metric(made, "ETTh1, 96 -> 24, 1 seed")
    assert found["MSE"].target is None and found["MSE"].peer == "published"
    assert found["MSE without the last incomplete batch"].value == pytest.approx(0.49)
    assert by_metric(made, "ETTh1, average, 1 seed")["MSE"].target == "<= 0.4017"


def test_the_targets_of_a_recalled_table_are_those_that_were_set() -> None:
    made = reproduction.records(
        summary("tsmixer", "ETTh1", [cell(96, 0.37, 0.01, 3, 0.368)], [average(0.41, 0.408, 3)])
    )
    assert by_metric(made, "ETTh1, 96 -> 96, 3 seeds")["MSE"].target == "<= 0.371"
    assert by_metric(made, "ETTh1, average, 3 seeds")["MSE"].target == "<= 0.412"


def test_coverage_is_judged_on_the_two_hourly_datasets() -> None:
    here = by_metric(
        reproduction.records(summary("autoformer", "ETTh2", [cell(96, 1, None, 1, 1)])), "ETTh2, 96 -> 96, 1 seed"
    )
    there = by_metric(
        reproduction.records(summary("autoformer", "weather", [cell(96, 1, None, 1, 1)])), "weather, 96 -> 96, 1 seed"
    )
    name = "|coverage - 80 %|, mean over steps"
    assert (here[name].value, here[name].target, here[name].verdict) == (1.5, "<= 2", "met")
    assert there[name].target is None
    assert here["coverage of the 95 % band"].value == 98 and here["coverage of the 95 % band"].target is None
    crps = here["CRPS in original units"]
    assert (crps.value, crps.peer, crps.peer_value) == (1.0, NAIVE, 1.5)
    assert here["test windows"].value == 2785 and here["run, beside others"].unit == "s"


def test_results_of_other_datasets_are_kept(tmp_path: Path) -> None:
    first = summary("itransformer", "ETTh1", [cell(96, 0.4, 0.01, 3, 0.39)])
    second = summary("itransformer", "ETTh2", [cell(96, 0.3, 0.01, 3, 0.29)])
    (path,) = reproduction.store([first], tmp_path)
    reproduction.store([second], tmp_path)
    reproduction.store([summary("itransformer", "ETTh1", [cell(96, 0.39, 0.01, 3, 0.39)])], tmp_path)
    content = json.loads(path.read_text())
    assert path.name == "reproduction_itransformer.json"
    assert content["device"] == "some GPU" and content["versions"]["torch"] == "2.13.0"
    values = {record["case"]: record["value"] for record in content["records"] if record["metric"] == "MSE"}
    assert values == {"ETTh1, 96 -> 96, 3 seeds": 0.39, "ETTh2, 96 -> 96, 3 seeds": 0.3}


@pytest.fixture
def results() -> dict[str, list[Record]]:
    """Two models on ETTh1, one of which misses a target."""
    good = summary("itransformer", "ETTh1", [cell(96, 0.38, 0.01, 3, 0.386)], [average(0.45, 0.454, 3)])
    alone = cell(24, 0.1, None, 1, 0.098, dropped=32, features="S")
    bad = summary("informer", "ETTh1", [cell(24, 0.6, None, 1, 0.577, dropped=32), alone], [average(1.2, 0.9, 1)])
    return {found["model"]: reproduction.records(found) for found in (good, bad)}


def test_the_page_has_the_tables_between_its_marks(results: dict[str, list[Record]]) -> None:
    text = "\n\n".join(reproduction_page.sections(results))
    assert "targets are met. Devices: some GPU." in text
    lines = text.splitlines()
    assert "| Informer | ETTh1, average, 1 seed | MSE | 1.2000 | <= 0.9270 |" in lines
    row = next(line for line in lines if line.startswith("| iTransformer | 96 | 3 |"))
    assert "| 0.386 | 0.3800 ± 0.0100 | 0.984 |" in row and row.endswith("| 2,785 | 12 | met |")
    assert any(line.startswith("| Informer | 24, target alone | 1 | 0.098 |") for line in lines)
    assert "0.5900 / 0.6000" in text and "83.0 %" in text
    assert "- iTransformer on ETTh1: Liu et al. (iTransformer), ICLR 2024, table 10." in lines
    assert any("table 1, as updated" in line and "batch of 32" in line for line in lines)
    widths = [line.count("|") for line in lines if line.startswith("| iTransformer | 96")]
    assert all(line.count("|") in widths for line in lines if line.startswith("| Informer | 24"))


def test_without_results_the_page_says_so() -> None:
    assert list(reproduction_page.sections({})) == ["Nothing has been measured yet."]


def test_the_page_is_made_anew_in_place(tmp_path: Path) -> None:
    (tmp_path / "reproduction.md").write_text("before\n\n<!-- results -->\nold\n<!-- end of results -->\n\nafter\n")
    assert reproduction_page.write_page({}, tmp_path)
    text = (tmp_path / "reproduction.md").read_text()
    assert text == "before\n\n<!-- results -->\n\nNothing has been measured yet.\n\n<!-- end of results -->\n\nafter\n"
    reproduction_page.write_page({}, tmp_path)
    assert (tmp_path / "reproduction.md").read_text() == text


def test_the_figure_shows_percent_above_the_published_score(results: dict[str, list[Record]]) -> None:
    figure = figures.reproduction(reproduction_page.picture_rows("ETTh1", results))
    drawn = {trace.name: trace for trace in figure.data}
    assert list(drawn["iTransformer, MSE"].x) == pytest.approx([100 * (0.38 / 0.386 - 1), 100 * (0.45 / 0.454 - 1)])
    assert list(drawn["iTransformer, MSE"].error_x.array) == pytest.approx([200 * 0.01 / 0.386, 0])
    assert list(figure.layout.yaxis.ticktext) == [
        "iTransformer, 96",
        "iTransformer, average",
        "Informer, 24",
        "Informer, 24, target alone",
        "Informer, average",
    ]
    assert {trace.name for trace in figure.data if trace.showlegend is None} == {"MSE", "MAE"}


@pytest.mark.usefixtures("chromium")
def test_the_figure_becomes_a_picture(results: dict[str, list[Record]], tmp_path: Path) -> None:
    (tmp_path / "reproduction.md").write_text("<!-- results --><!-- end of results -->\n")
    assert reproduction_page.write_page(results, tmp_path)
    assert (tmp_path / "images/reproduction_ETTh1.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_without_summaries_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no summary of a reproduction"):
        reproduction.main([str(tmp_path)])
