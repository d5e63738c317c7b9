"""The report: one file that loads nothing, holds what it promises, and draws in a browser."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
import pytest

from app import figures, report
from app.figures import style
from datasets.errors import ForetideError

if TYPE_CHECKING:
    from tests.app.figures.conftest import Example

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
OTHER = {"light": "dark", "dark": "light"}
INK = {"light": style.INK, "dark": style.DARK[style.INK]}
ACTUAL_HAS_COLOR = "c => document.querySelector('#plot-check').data.find(t => t.name === 'Actual').line.color === c"
SENTENCE = "iTransformer is better than seasonal naive on <Plant>."
QUALITY = {
    "rows": 1440,
    "unused": ["comment"],
    "findings": [
        {
            "kind": "mixed_frequency",
            "column": None,
            "rows": list(range(2, 22)),
            "count": 1234,
            "detail": "two steps",
            "blocking": True,
        },
        {
            "kind": "outlier",
            "column": "load",
            "rows": [77],
            "count": 1,
            "detail": "robust z-score 11",
            "blocking": False,
        },
    ],
}
RUN = {
    "run_id": "20240301-plant",
    "command": "foretide train --data 'my plant.csv' --horizon 24",
    "seed": 2021,
    "started": "2024-03-01T10:00:00+00:00",
    "seconds": 84.2,
    "device": "cpu",
    "commit": None,
    "versions": {"foretide": "0.1.0", "torch": "2.13.0"},
}
CONFIG = {"model": "itransformer", "lookback": 168, "training": {"learning_rate": 1e-4}}


class Page(HTMLParser):
    """Tags with their attributes, and the text of scripts, cells and headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def text(self, *tags: str) -> list[str]:
        return [text for tag, text in self.texts if tag in tags]


@pytest.fixture(scope="module")
def written(example: "Example", tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(example, tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page(written.read_text(encoding="utf-8"))


def write(example: "Example", target: Path, **changed: Any) -> Path:
    """The report of the example, with some arguments changed."""
    given: dict[str, Any] = {
        "title": "Plant: the next day",
        "sentence": SENTENCE,
        "forecast": example.forecast,
        "history": example.history,
        "metrics": example.metrics,
        "quality": QUALITY,
        "run": RUN,
        "config": CONFIG,
        "naive": example.naive,
        "check": example.check,
        "check_naive": example.check_naive,
        "files": ["next day.parquet"],
    }
    return report.write_report(target, **(given | changed))


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    assert not [script for script in page.named("script") if "src" in script]
    assert [link["href"] for link in page.named("link")] == ["data:,"]
    assert not page.named("img") and not page.named("iframe")
    assert all(not str(link["href"]).startswith(("http", "//")) for link in page.named("a"))
    (policy,) = [meta["content"] for meta in page.named("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("default-src 'none'") and "http" not in str(policy)


def test_plotly_is_there_once(written: Path) -> None:
    assert written.read_text(encoding="utf-8").count("plotly.js v") == 1


def test_every_plot_has_its_figure_description_and_title(page: Page) -> None:
    figures_by_id = {str(script["id"]) for script in page.named("script") if script.get("type") == "application/json"}
    plots = [tag for tag in page.named("div") if tag.get("class") == "plot"]
    assert {
        f"data-{key}"
        for key in (
            "forecast",
            "check",
            "comparison",
            "skill",
            "error-by-step",
            "coverage-by-step",
            "error-by-variate",
            "training",
            "overview",
        )
    } == figures_by_id - {"tokens"}
    assert {plot["data-figure"] for plot in plots} == figures_by_id - {"tokens"}
    assert all(len(str(plot["aria-label"])) > 20 for plot in plots)
    identifiers = [str(attributes["id"]) for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert {figure["aria-labelledby"] for figure in page.named("figure")} <= set(identifiers)
    assert {str(link["href"])[1:] for link in page.named("a") if str(link["href"]).startswith("#")} <= set(identifiers)


def test_figures_in_the_page_are_the_figures(page: Page, example: "Example") -> None:
    stored = [json.loads(text) for text in page.text("script") if text.startswith('{"data"')]
    assert json.loads(figures.training_curve(example.metrics).to_json()) in stored


def test_verdict_numbers_and_scores_are_readable_without_scripts(page: Page, example: "Example") -> None:
    assert SENTENCE in page.text("p"), "escaped in the source, whole on the page"
    (verdict,) = [tag for tag in page.named("div") if str(tag.get("class")).startswith("verdict")]
    assert verdict["class"] == "verdict good"
    own, naive = (example.metrics["scores"][model] for model in ("itransformer", "seasonal_naive"))
    assert f"{own['mse']:.3f}" in page.text("dd") and f"+{100 * own['skill_mae']:.1f} %" in page.text("dd")
    assert f"published scale; naive {naive['mse']:.3f}" in page.text("dd")
    assert {f"{own['mae']:.3f}", f"{naive['mae']:.3f}", f"{100 * own['coverage_95']:.1f} %"} <= set(page.text("td"))
    best = [tag for tag in page.named("td") if "best" in str(tag.get("class"))]
    assert len(best) >= 4


@pytest.mark.parametrize(("verdict", "tone"), [("worse", "bad"), ("no clear difference", "even")])
def test_verdict_has_its_tone(example: "Example", tmp_path: Path, verdict: str, tone: str) -> None:
    metrics = {**example.metrics, "comparison": [{**example.metrics["comparison"][0], "verdict": verdict}]}
    assert f'class="verdict {tone}"' in write(example, tmp_path / "r.html", metrics=metrics).read_text(encoding="utf-8")


def test_data_report_lists_findings_with_rows(page: Page) -> None:
    cells = page.text("td", "th", "span")
    assert {"Mixed frequency", "all", "1,234", "two steps", "needs a repair", "for information"} <= set(cells)
    assert "2, 3, 4, 5, 6, 7, 8, 9, …" in cells
    assert "2 findings, of which 1 needed a repair." in page.text("p")
    assert {"ab" * 32, "1 hour", "comment", "1,440"} <= set(page.text("dd"))


def test_command_versions_and_configuration_are_there(page: Page) -> None:
    labels = [str(button["aria-label"]) for button in page.named("button")]
    assert f"Copy the command: {RUN['command']}" in labels
    assert all(f"Copy the command: {command}" in labels for _, command in report.OWN_FILE)
    assert {"0.1.0", "2.13.0", "20240301-plant", "1 min 24 s", "2021"} <= set(page.text("dd"))
    assert "Commit" not in page.text("dt"), "what is not known is not listed"
    assert any("learning_rate: 0.0001" in text for text in page.text("code"))
    assert [link["href"] for link in page.named("a") if "parquet" in str(link["href"])] == ["next%20day.parquet"]


def test_missing_values_get_a_map_and_repairs_a_list(example: "Example", tmp_path: Path) -> None:
    history = example.history.copy(deep=True).assign_attrs(repairs=json.dumps(["3 rows were put in as gaps"]))
    history["value"][50:60, 0] = np.nan
    text = write(example, tmp_path / "r.html", history=history).read_text(encoding="utf-8")
    assert 'id="data-missing"' in text and "3 rows were put in as gaps" in text


def test_report_of_a_bare_forecast(example: "Example", tmp_path: Path) -> None:
    metrics = {"scores": {"itransformer": {"mse": 0.5}}}
    bare: dict[str, Any] = {
        "metrics": metrics,
        "quality": {},
        "run": {},
        "config": {},
        "naive": None,
        "check": None,
        "check_naive": None,
        "files": [],
    }
    text = write(example, tmp_path / "r.html", **bare).read_text(encoding="utf-8")
    assert 'class="verdict plain"' in text and "Every check passed." in text and 'id="data-skill"' not in text


def test_markup_in_names_stays_text(example: "Example", tmp_path: Path) -> None:
    named = "</script><script>alert(1)</script>"
    renamed = {
        key: getattr(example, key).assign_coords(variate=[named, "temperature", "flow"])
        for key in ("forecast", "history", "naive", "check", "check_naive")
    }
    page = Page(write(example, tmp_path / "r.html", title=named, **renamed).read_text(encoding="utf-8"))
    assert "alert(1)" not in page.text("script")
    assert named in page.text("h1")


def test_report_is_whole_or_not_there(example: "Example", tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ForetideError, match=r"file/r\.html: cannot be written"):
        write(example, tmp_path / "file" / "r.html")
    broken = {**example.metrics, "by_step": {"itransformer": {"mae": ["x"]}}}
    with pytest.raises(ValueError, match="x"):
        write(example, tmp_path / "r.html", metrics=broken)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_browser_draws_every_plot_without_complaint(
    written: Path, chromium: Path, theme: Any, require: Callable[[str], ModuleType]
) -> None:
    complaints: list[str] = []
    with require("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=FLAGS)
        tab = browser.new_page(color_scheme=theme, viewport={"width": 390, "height": 844})
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda sent: None if sent.url.startswith("file:") else complaints.append(sent.url))
        tab.goto(written.as_uri())
        tab.wait_for_selector("html[data-drawn]")
        drawn = tab.evaluate("[...document.querySelectorAll('.plot')].map(p => p.querySelectorAll('.main-svg').length)")
        assert len(drawn) == 9 and min(drawn) >= 1
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390, "nothing sticks out on a phone"
        tab.select_option("#forecast figure >> nth=0 >> select", label="temperature")
        assert tab.text_content("#plot-forecast .ytitle") == "temperature (°C)"
        tab.wait_for_function(ACTUAL_HAS_COLOR, arg=INK[theme])
        tab.emulate_media(color_scheme=OTHER[theme])
        tab.wait_for_function(ACTUAL_HAS_COLOR, arg=INK[OTHER[theme]])
        assert tab.text_content("#plot-forecast .ytitle") == "temperature (°C)", "a change of theme keeps the choice"
        assert tab.pdf().startswith(b"%PDF")
        assert tab.evaluate("document.querySelector('#plot-forecast').layout.width") is None, "as before the print"
        assert tab.locator(".modebar-btn[data-title^=Share]").count() == 0
        browser.close()
    assert complaints == []


def test_picture_where_a_browser_is_found(example: "Example", chromium: Path, tmp_path: Path) -> None:
    figure = figures.forecast_picture(example.history, example.forecast, "load")
    assert report.write_picture(tmp_path / "forecast.png", figure)
    image = (tmp_path / "forecast.png").read_bytes()
    assert image.startswith(b"\x89PNG")
    assert (int.from_bytes(image[16:20], "big"), int.from_bytes(image[20:24], "big")) == (1400, 800)


def test_no_picture_where_none_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "nowhere"))
    assert report.browser() is None
    assert not report.write_picture(tmp_path / "forecast.png", go.Figure())
    assert not list(tmp_path.iterdir()) and capfd.readouterr() == ("", "")
    assert "\n" not in report.picture_hint() and "apt-get install chromium" in report.picture_hint()
