"""The same training and the same scores on a GPU, and on two."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from datasets import canonical, schema
from datasets.options import plain
from forecasting import artifact
from forecasting.backtest import evaluate_stored
from forecasting.experiment import run
from forecasting.predictor import Predictor
from forecasting.protocol import prepare

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="not here: no GPU")
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, daily: Make) -> str:
    """The tiny series with holes, as a file that needs no reader."""
    values = daily()
    values[np.random.default_rng(1).random(values.shape) < 0.05] = np.nan
    stamps = np.datetime64("2024-01-01T00") + np.arange(len(values)) * np.timedelta64(1, "h")
    series = schema.series(values, stamps, ["a", "b", "c"], title="tiny", source="tiny", checksum="ab" * 32)
    return str(canonical.write(series, tmp_path_factory.mktemp("data") / "tiny.nc"))


def test_batches_are_made_on_the_device(config: Make, data: str) -> None:
    prepared = prepare(config(data=data))
    here, there = (prepared.windows("train", device) for device in ("cpu", "cuda"))
    indices = torch.randperm(len(here))[:50]
    one, other = here.batch(indices), there.batch(indices)
    for name in ("past", "past_mask", "future", "future_mask", "past_calendar", "origin"):
        assert getattr(other, name).device.type == "cuda"
        assert torch.equal(getattr(one, name), getattr(other, name).cpu())


@pytest.mark.parametrize("head", ["point", "student_t"])
def test_scores_and_forecasts_do_not_depend_on_the_device(config: Make, data: str, tmp_path: Path, head: str) -> None:
    chosen = config(data=data, head={"kind": head}, intervals={"method": "adaptive" if head == "point" else "head"})
    made = run(chosen, tmp_path / "run", visible=False)
    assert made is not None
    predictor, series = Predictor(made.artifact, "cuda"), made.prepared.series
    metrics = evaluate_stored(predictor, series, data)
    for name in ("itransformer", "seasonal_naive"):
        assert metrics["scores"][name] == pytest.approx(made.artifact.metrics["scores"][name], rel=1e-4, abs=1e-4)
    here, there = Predictor(made.artifact).forecast(series), predictor.forecast(series)
    np.testing.assert_allclose(there["quantile"], here["quantile"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head", ["point", "quantile", "student_t"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_training_on_a_gpu(config: Make, data: str, tmp_path: Path, head: str, precision: str) -> None:
    training = {
        "accelerator": "gpu",
        "precision": precision,
        "gradient_clip": 1.0,
        "deterministic": True,
        "max_epochs": 6,
    }
    options = {"data": data, "head": {"kind": head}, "baselines": ["seasonal_naive"]}
    if head != "point":
        options["intervals"] = {"method": "head"}
    runs = [run(config(**options, training=training), tmp_path / name, visible=False) for name in ("one", "two")]
    first, second = (made.artifact for made in runs if made is not None)
    assert first.metrics["scores"]["itransformer"]["skill_mae"] > -0.1
    assert all(torch.equal(tensor, second.weights[name]) for name, tensor in first.weights.items() if "model." in name)


def test_two_gpus_take_the_steps_of_one(config: Make, data: str, tmp_path: Path, python: Make) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("not here: one GPU")
    options = {"data": data, "architecture": {"layers": 1, "d_model": 16, "d_ff": 16, "heads": 2, "dropout": 0.0}}
    training = {"max_epochs": 5, "batch_size": 46, "patience": 0, "learning_rate": 1e-3, "accelerator": "gpu"}
    shared = config(**options, training={**training, "devices": 2, "strategy": "ddp"})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(plain(shared)), encoding="utf-8")
    process = python("-m", "forecasting", tmp_path / "run.yaml", tmp_path / "two")
    text = process.communicate()[0]
    assert process.returncode == 0, text
    one, two = (
        run(config(**options, training=training), tmp_path / "one", visible=False),
        artifact.load(tmp_path / "two"),
    )
    assert one is not None
    for name, tensor in one.artifact.weights.items():
        if not name.endswith("project_in.bias"):
            torch.testing.assert_close(two.weights[name], tensor, atol=1e-4, rtol=0, equal_nan=True)
    mine, theirs = (made.metrics["scores"]["itransformer"] for made in (one.artifact, two))
    assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-4)
