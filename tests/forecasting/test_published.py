"""Published scores: that they agree with the averages in print, and that every one of them can be run."""

import re
import statistics
from pathlib import Path

import pytest

from datasets import catalog
from datasets.errors import ForetideError
from datasets.options import build
from forecasting import models, published
from forecasting.config import read_config
from forecasting.published import Table

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
HORIZONS = (96, 192, 336, 720)
REPORTED = sorted({cell.model for cell in published.scores()} & set(models.names()))


def mean(model: str, dataset: str, metric: str) -> float:
    return statistics.fmean(getattr(cell, metric) for cell in published.scores(model, dataset, "M"))


@pytest.mark.parametrize("table", published._tables(), ids=lambda table: f"{table.model}-{table.source[:20]}")
def test_cells_average_to_what_the_table_prints(table: Table) -> None:
    for dataset, cells in table.scores.items():
        if published.AVERAGE in cells:
            for at, printed in enumerate(cells[published.AVERAGE]):
                own = statistics.fmean(pair[at] for name, pair in cells.items() if name != published.AVERAGE)
                assert own == pytest.approx(printed, abs=0.00051), f"{table.model} {dataset}"


@pytest.mark.parametrize(
    ("dataset", "mse", "mae"),
    [
        # iTransformer's table 10 prints these averages of Autoformer's own scores
        ("electricity", 0.227, 0.338),
        ("exchange_rate", 0.613, 0.539),
        ("traffic", 0.628, 0.379),
        ("weather", 0.338, 0.382),
    ],
)
def test_another_paper_prints_the_same_averages_of_autoformer(dataset: str, mse: float, mae: float) -> None:
    assert mean("autoformer", dataset, "mse") == pytest.approx(mse, abs=0.00051)
    assert mean("autoformer", dataset, "mae") == pytest.approx(mae, abs=0.00051)


@pytest.mark.parametrize(
    ("datasets", "mse", "mae"),
    [
        (("ETTh1", "ETTh2", "ETTm1", "ETTm2"), 0.383, 0.399),
        (("PEMS03", "PEMS04", "PEMS07", "PEMS08"), 0.119, 0.218),
    ],
)
def test_the_summary_row_of_itransformer_is_the_mean_of_its_datasets(
    datasets: tuple[str, ...], mse: float, mae: float
) -> None:
    averages = [published.average("itransformer", dataset) for dataset in datasets]
    assert statistics.fmean(pair[0] for pair in averages if pair) == pytest.approx(mse, abs=0.0011)
    assert statistics.fmean(pair[1] for pair in averages if pair) == pytest.approx(mae, abs=0.0011)


def test_a_cell_knows_where_it_comes_from() -> None:
    cell = published.find("autoformer", "ETTh1", 96)
    assert cell and (cell.mse, cell.mae, cell.origin, cell.dropped) == (0.449, 0.459, "re-run", 32)
    assert "FEDformer" in cell.source
    assert {c.origin for c in published.scores("autoformer", "national_illness")} == {"paper"}
    assert {c.origin for c in published.scores("tsmixer")} == {"recalled"}
    assert {c.dropped for c in published.scores("itransformer")} == {0}
    target = published.find("informer", "ETTh2", 168, "S")
    assert target and (target.mse, target.mae) == (0.232, 0.389)
    assert published.find("informer", "ETTh2", 96) is None and published.average("drift", "ETTh1") is None


def test_the_average_is_the_printed_one_or_that_of_the_cells() -> None:
    assert published.average("itransformer", "ETTh1") == (0.454, 0.447)
    assert published.average("tsmixer", "ETTh1") == pytest.approx((0.408, 0.42975))


def test_no_cell_is_there_twice_and_all_are_about_catalogued_data() -> None:
    keys = [(c.model, c.dataset, c.features, c.horizon) for c in published.scores()]
    assert len(set(keys)) == len(keys) > 200
    assert all(catalog.find(c.dataset).name == c.dataset for c in published.scores())


def test_a_damaged_table_is_refused() -> None:
    with pytest.raises(ForetideError, match="ETTh1: 96: found"):
        build(Table, {"model": "m", "source": "s", "scores": {"ETTh1": {96: [0.1]}}}, "published.yaml")
    with pytest.raises(ForetideError, match="ETTh1: long: found 'long', expected a horizon"):
        build(Table, {"model": "m", "source": "s", "scores": {"ETTh1": {"long": [0.1, 0.2]}}}, "published.yaml")


@pytest.mark.parametrize("model", REPORTED)
def test_every_published_score_has_its_settings_and_the_other_way_round(model: str) -> None:
    runs = [read_config(path) for path in (CONFIGS / model).glob("*.yaml")]
    written = {(model, r.data, "S" if len(r.reader.variates or ()) == 1 else "M", r.horizon) for r in runs}
    reported = {(model, c.dataset, c.features, c.horizon) for c in published.scores(model)}
    assert len(written) == len(runs)
    assert written == reported


@pytest.mark.parametrize("model", REPORTED)
def test_settings_quote_the_published_scores(model: str) -> None:
    for path in (CONFIGS / model).glob("*.yaml"):
        run, head = read_config(path), path.read_text(encoding="utf-8").split("\ndata:")[0]
        quoted = re.search(r"MSE\s+(?:#\s+)?(\d\.\d+), MAE\s+(?:#\s+)?(\d\.\d+)", head)
        cell = published.find(model, run.data, run.horizon, "S" if len(run.reader.variates or ()) == 1 else "M")
        if quoted and cell:
            assert (float(quoted[1]), float(quoted[2])) == (cell.mse, cell.mae), path.name
