"""Figures: the right traces, names, units, colors and marks, in light arrays."""

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
import pytest

from app import figures
from app.figures import style, table
from app.figures.horizon import bands
from datasets import schema

if TYPE_CHECKING:
    from tests.app.figures.conftest import Example


def traces(figure: go.Figure) -> dict[str, Any]:
    """Traces by name; the last one of a name."""
    return {trace.name: trace for trace in figure.data}


def test_forecast_shows_history_model_bands_and_naive(example: "Example") -> None:
    figure = figures.forecast(example.history, example.forecast, "load", naive=example.naive, last=100)
    found = traces(figure)
    assert set(found) == {
        "History",
        "iTransformer",
        "Seasonal naive",
        *(f"{p} %" for p in (50, 80, 95)),
        *(f"{p} % lower" for p in (50, 80, 95)),
        *(f"{p} % interval" for p in (50, 80, 95)),
    }
    assert len(found["History"].y) == 100 and len(found["iTransformer"].y) == example.forecast.sizes["time"]
    np.testing.assert_allclose(found["iTransformer"].y, example.forecast["forecast"].sel(variate="load"), rtol=1e-6)
    assert figure.layout.yaxis.title.text == "load (MW)"
    assert found["History"].line.color == style.HISTORY
    assert found["iTransformer"].line.color == figures.color("itransformer")


def test_bands_are_nested_and_equal_the_quantiles(example: "Example") -> None:
    found = traces(figures.forecast(example.history, example.forecast, "flow"))
    for inner, outer in ((50, 80), (80, 95)):
        assert (found[f"{outer} % lower"].y <= found[f"{inner} % lower"].y).all()
        assert (found[f"{outer} %"].y >= found[f"{inner} %"].y).all()
    lower, upper = bands(example.forecast, "flow")[80]
    np.testing.assert_array_equal(lower, example.forecast["quantile"].sel(variate="flow", level=0.1).values)
    np.testing.assert_array_equal(upper, example.forecast["quantile"].sel(variate="flow", level=0.9).values)


def test_forecast_without_quantiles_has_no_bands(example: "Example") -> None:
    found = traces(figures.forecast(example.history, example.forecast.drop_vars("quantile"), "load"))
    assert set(found) == {"History", "iTransformer"}


def test_vertical_line_stands_at_the_forecast_start(example: "Example") -> None:
    figure = figures.forecast(example.history, example.forecast, "load")
    (line,) = [shape for shape in figure.layout.shapes if shape.name == "forecast start"]
    first = example.forecast["time"].values[0].astype("datetime64[ms]").astype(np.int64)
    assert line.x0 == line.x1 == first
    assert line.yref == "y domain" and (line.y0, line.y1) == (0, 1)


def test_what_happened_is_drawn_from_history_or_from_actual(example: "Example") -> None:
    start = example.check["time"].values[0]
    from_history = traces(figures.forecast(example.history, example.check, "load"))
    known = example.history.sel(time=example.history["time"] < start)
    later = example.history.sel(time=example.history["time"] >= start)
    given = traces(figures.forecast(known, example.check, "load", actual=later))
    for found in (from_history, given):
        np.testing.assert_allclose(found["Actual"].y, later["value"].sel(variate="load"), rtol=1e-6)
        assert found["Actual"].line.color == style.INK
        assert found["History"].x[-1] < found["Actual"].x[0]
    assert "Actual" not in traces(figures.forecast(known, example.check, "load"))


def test_dropdown_shows_one_variate_at_a_time(example: "Example") -> None:
    figure = figures.forecasts(example.history, example.forecast, naive=example.naive, selected="flow")
    (menu,) = figure.layout.updatemenus
    assert [button.label for button in menu.buttons] == ["load", "temperature", "flow"] and menu.active == 2
    shown = np.array([button.args[0]["visible"] for button in menu.buttons])
    assert (shown.sum(axis=0) == 1).all() and len(set(shown.sum(axis=1))) == 1
    assert [trace.visible for trace in figure.data] == list(shown[2])
    assert [button.args[1]["yaxis.title.text"] for button in menu.buttons] == ["load (MW)", "temperature (°C)", "flow"]


def test_dropdown_is_limited_and_keeps_the_selected_one(example: "Example") -> None:
    figure = figures.forecasts(example.history, example.forecast, limit=1, selected="flow")
    assert [button.label for button in figure.layout.updatemenus[0].buttons] == ["load", "flow"]
    assert not figures.forecasts(example.history, example.forecast, variates=["load"]).layout.updatemenus


def test_time_axes_are_numbers_and_values_float32(example: "Example") -> None:
    figure = json.loads(figures.forecast(example.history, example.forecast, "load", naive=example.naive).to_json())
    arrays = [trace for trace in figure["data"] if trace["mode"] == "lines"]
    assert {trace["x"]["dtype"] for trace in arrays} == {"f8"} and {trace["y"]["dtype"] for trace in arrays} == {"f4"}
    assert figure["layout"]["xaxis"]["type"] == "date"


def test_time_zone_is_said(example: "Example") -> None:
    assert figures.forecast(example.history, example.forecast, "load").layout.xaxis.title.text is None
    zoned = example.forecast.assign_attrs(time_zone="Europe/Paris")
    assert figures.forecast(example.history, zoned, "load").layout.xaxis.title.text == "Time (UTC)"


def test_picture_is_opaque_and_titled(example: "Example") -> None:
    figure = figures.forecast_picture(example.history, example.forecast, "load", sentence="Better than seasonal naive.")
    assert (figure.layout.width, figure.layout.height) == (1400, 800)
    assert figure.layout.paper_bgcolor == style.SURFACE
    assert figure.layout.title.text == "<b>load (MW): 24 steps ahead by iTransformer</b>"
    assert figure.layout.title.subtitle.text == "Better than seasonal naive."


def test_thinning_keeps_extremes_gaps_and_ends() -> None:
    times = np.datetime64("2020-01-01T00", "ns") + np.arange(20_000) * np.timedelta64(1, "h")
    values = np.sin(np.arange(20_000) / 50.0)
    values[7_777], values[12_345], values[5_000:5_050] = 9.0, -9.0, np.nan
    x, y = style.thin(times, values)
    assert len(x) == len(y) <= style.THINNED_POINTS + 1
    assert np.nanmax(y) == 9.0 and np.nanmin(y) == -9.0
    assert np.isnan(y).sum() == 1 and x[np.isnan(y)][0] == style.epochs(times)[5_000]
    assert (np.diff(x) > 0).all() and x[0] == style.epochs(times)[0] and x[-1] == style.epochs(times)[-1]


def test_short_lines_are_not_thinned_and_an_empty_one_survives() -> None:
    times = np.datetime64("2020-01-01T00", "ns") + np.arange(6_000) * np.timedelta64(1, "h")
    assert len(style.thin(times[:5_000], np.zeros(5_000))[1]) == 5_000
    assert np.isnan(style.thin(times, np.full(6_000, np.nan))[1]).all()


def test_models_have_fixed_colors_that_are_seen_on_both_grounds() -> None:
    known = {model: figures.color(model) for model in style._MODELS}
    assert len(set(known.values())) == len(known)
    assert figures.color("somebody_elses") == figures.color("somebody_elses") != figures.color("itransformer")
    assert figures.label("somebody_elses") == "somebody elses" and figures.label("dlinear") == "DLinear"
    for tone in [*known.values(), *style._SPARE, style.HISTORY]:
        assert contrast(tone, style.SURFACE) >= 3 and contrast(tone, style.DARK[style.SURFACE]) >= 3


def test_text_reaches_the_contrast_of_text_in_both_themes() -> None:
    for text in (style.INK, style.MUTED):
        assert contrast(text, style.SURFACE) >= 4.5
        assert contrast(style.DARK[text], style.DARK[style.SURFACE]) >= 4.5


def test_dark_theme_replaces_the_tokens_and_nothing_else(example: "Example") -> None:
    light = figures.forecast(example.history, example.check, "load")
    dark = figures.themed(light, "dark")
    assert figures.themed(light, "light") is light
    assert traces(dark)["Actual"].line.color == style.DARK[style.INK]
    assert traces(dark)["iTransformer"].line.color == traces(light)["iTransformer"].line.color
    back = style.replace_tokens(dark.to_json(), {new: old for old, new in style.DARK.items()})
    assert json.loads(back) == json.loads(light.to_json())


def test_every_figure_is_described_themed_and_never_shared(example: "Example") -> None:
    metrics = example.metrics
    made = [
        figures.forecast(example.history, example.forecast, "load"),
        figures.skill_bars(metrics),
        figures.forecasts(example.history, example.forecast),
        figures.scores_table(metrics),
        figures.error_by_step(metrics),
        figures.coverage_by_step(metrics),
        figures.comparison(metrics),
        figures.error_by_variate(metrics, "itransformer"),
        figures.training_curve(metrics),
        figures.overview(example.history),
        figures.missing_map(example.history),
    ]
    for figure in made:
        assert len(figure.layout.meta["description"]) > 20 and figure.layout.height >= 90
        assert figure.layout.template.layout.paper_bgcolor == style.CLEAR
        assert "sendChartToCloud" in figure.layout.template.layout.modebar.remove


@pytest.mark.parametrize("metric", ["mae", "mse"])
def test_error_by_step_has_a_line_per_model(example: "Example", metric: Any) -> None:
    figure = figures.error_by_step(example.metrics, metric, step="1 hour")
    assert [trace.name for trace in figure.data] == ["Seasonal naive", "iTransformer"], "the model is drawn on top"
    for trace, model in zip(figure.data, ("seasonal_naive", "itransformer"), strict=True):
        np.testing.assert_allclose(trace.y, example.metrics["by_step"][model][metric], rtol=1e-6)
        assert list(trace.x) == list(range(1, 25)) and trace.line.color == figures.color(model)
    assert figure.layout.yaxis.title.text == f"{metric.upper()} (standardized data)"
    assert figure.layout.xaxis.title.text == "Horizon step (1 hour each)"


def test_coverage_by_step_has_the_nominal_lines(example: "Example") -> None:
    figure = figures.coverage_by_step(example.metrics)
    nominal = {shape.name: (shape.y0, shape.y1) for shape in figure.layout.shapes}
    assert nominal == {"nominal 95 %": (95, 95), "nominal 80 %": (80, 80)}
    on_top = [trace for trace in figure.data if trace.name == "iTransformer"]
    for trace, key in zip(on_top, ("coverage_95", "coverage_80"), strict=True):
        np.testing.assert_allclose(trace.y, 100 * np.array(example.metrics["by_step"]["itransformer"][key]), rtol=1e-5)
    assert [trace.showlegend for trace in on_top] == [True, False]


def test_skill_bars_leave_the_reference_out(example: "Example") -> None:
    figure = figures.skill_bars(example.metrics)
    assert list(figure.data[0].y) == ["iTransformer"]
    assert figure.data[0].x[0] == pytest.approx(100 * example.metrics["scores"]["itransformer"]["skill_mae"])
    assert {shape.name for shape in figure.layout.shapes} == {"seasonal naive"}


def test_comparison_is_relative_to_the_baseline(example: "Example") -> None:
    entry = example.metrics["comparison"][0]
    figure = figures.comparison(example.metrics)
    assert [trace.name for trace in figure.data] == ["MAE vs Seasonal naive", "MSE vs Seasonal naive"]
    trace, scale = figure.data[1], 100 / entry["baseline_score"]
    assert trace.x[0] == pytest.approx(scale * entry["difference"])
    assert trace.x[0] - trace.error_x.arrayminus[0] == pytest.approx(scale * entry["lower"])
    assert trace.x[0] + trace.error_x.array[0] == pytest.approx(scale * entry["upper"])
    assert trace.marker.color == style.GOOD and "better" in trace.y[0]
    low, high = figure.layout.xaxis.range
    assert low < scale * entry["lower"] and high > 0


def test_comparison_without_baseline_scores_is_absolute(example: "Example") -> None:
    entry = {key: value for key, value in example.metrics["comparison"][0].items() if key != "baseline_score"}
    figure = figures.comparison({"comparison": [entry]})
    assert figure.data[0].x[0] == entry["difference"] and figure.layout.xaxis.title.text == "Difference of error"
    assert not figures.comparison({"comparison": []}).data


def test_error_by_variate_is_relative_and_shows_the_worst(example: "Example") -> None:
    own, base = (example.metrics["by_variate"][model]["mae"] for model in ("itransformer", "seasonal_naive"))
    figure = figures.error_by_variate(example.metrics, "itransformer")
    shown = dict(zip(figure.data[0].y, figure.data[0].x, strict=True))
    assert shown == pytest.approx({name: 100 * (1 - own[name] / base[name]) for name in own})
    worst = figures.error_by_variate(example.metrics, "itransformer", limit=1)
    assert list(worst.data[0].y) == [min(shown, key=lambda name: shown[name])]
    alone = figures.error_by_variate(example.metrics, "seasonal_naive")
    assert dict(zip(alone.data[0].y, alone.data[0].x, strict=True)) == base


def test_training_curve_marks_the_kept_epoch(example: "Example") -> None:
    figure = figures.training_curve(example.metrics)
    found = traces(figure)
    assert list(found["Validation"].y) == [e["validation_loss"] for e in example.metrics["training"]["epochs"]]
    (kept,) = figure.layout.shapes
    assert kept.x0 == kept.x1 == 3
    assert not figures.training_curve({"training": {"epochs": [], "best_epoch": 0}}).layout.shapes


def test_scores_table_prints_the_rows_and_sets_the_best_in_bold(example: "Example") -> None:
    (drawn,) = figures.scores_table(example.metrics).data
    assert drawn.header["values"][0] == "Model" and list(drawn.cells["values"][0]) == ["iTransformer", "Seasonal naive"]
    mse = example.metrics["scores"]
    assert list(drawn.cells["values"][1]) == [
        f"<b>{mse['itransformer']['mse']:.3f}</b>",
        f"{mse['seasonal_naive']['mse']:.3f}",
    ]


def test_best_value_by_direction_nominal_share_and_ties() -> None:
    scores = {
        "itransformer": {"mse": 0.3861, "mae": 0.40, "coverage_80": 0.83, "skill_mae": 0.2, "width_80": 2.0},
        "dlinear": {"mse": 0.3864, "mae": 0.41, "coverage_80": 0.78, "skill_mae": 0.1, "width_80": 2.5},
        "drift": {"mse": 0.9, "mae": float("nan"), "coverage_80": 0.9, "skill_mae": -0.3},
    }
    rows = {row.model: row.cells for row in table.rows({"scores": scores})}
    keys = [score.key for score in table.columns({"scores": scores})]
    best = {key: [model for model, cells in rows.items() if cells[at].best] for at, key in enumerate(keys)}
    assert best == {
        "mse": ["itransformer", "dlinear"],
        "mae": ["itransformer"],
        "coverage_80": ["dlinear"],
        "skill_mae": ["itransformer"],
        "width_80": [],
    }
    assert rows["drift"][keys.index("mae")].text == "\N{EN DASH}"
    assert rows["drift"][keys.index("skill_mae")].text == "\N{MINUS SIGN}30.0 %"
    equal = {"scores": {"a": {"mse": 0.5}, "b": {"mse": 0.5001}}}
    assert not any(cell.best for row in table.rows(equal) for cell in row.cells)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (0.01234, "0.0123"),
        (37.06, "37.1"),
        (123.4, "123"),
        (999.7, "1,000"),
        (12_345.6, "12,346"),
        (None, "\N{EN DASH}"),
    ],
)
def test_digits(value: float | None, text: str) -> None:
    score = next(score for score in table.SCORES if score.key == "crps")
    assert score.text(value) == text


def test_overview_shades_gaps(example: "Example") -> None:
    data = example.history.copy(deep=True)
    data["value"][100:110, 1] = np.nan
    figure = figures.overview(data, limit=2)
    assert [trace.name for trace in figure.data] == ["load", "temperature"]
    assert [note.text for note in figure.layout.annotations] == ["load (MW)", "temperature (°C)"]
    (gap,) = [shape for shape in figure.layout.shapes if shape.name == "missing"]
    assert (gap.x0, gap.x1) == tuple(style.epochs(data["time"].values[[99, 110]])) and gap.yref == "y2 domain"


def test_missing_map_counts_shares() -> None:
    times = np.datetime64("2020-01-01", "ns") + np.arange(1_000) * np.timedelta64(1, "D")
    values = np.ones((1_000, 2))
    values[500:, 1] = np.nan
    (drawn,) = figures.missing_map(schema.series(values, times, ["a", "b"])).data
    shares = np.asarray(drawn.z)
    assert shares.shape == (2, 400) and list(drawn.y) == ["a", "b"]
    assert (shares[0] == 0).all() and (shares[1, :200] == 0).all() and (shares[1, 200:] == 100).all()


def contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2.2."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    """Relative luminance of WCAG 2.2."""
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
