"""Training that can be repeated, broken off, shared between processes and cut short; prediction in bounded memory."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from datasets.errors import ForetideError
from datasets.options import plain
from forecasting import artifact
from forecasting.config import RunConfig, TrainingOptions
from forecasting.engine import Fit, WholeFiles, fit, predict
from forecasting.experiment import build_model, run
from forecasting.forecaster import Forecaster, rate_factor
from forecasting.protocol import Prepared, prepare

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def prepared(config: Callable[..., Any]) -> Prepared:
    return prepare(config())


def train(
    chosen: RunConfig, prepared: Prepared, folder: Path, model: Forecaster | None = None, **options: Any
) -> tuple[Forecaster, Fit]:
    made = model or build_model(chosen, prepared)
    return made, fit(made, prepared.windows, chosen.training, folder, visible=False, **options)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def validation_loss(model: Forecaster, prepared: Prepared) -> float:
    """Mean squared error over all validation windows, by hand."""
    total, count = 0.0, 0
    for prediction in predict(model, prepared.windows("validation"), batch_size=17):
        assert prediction.batch.future is not None
        error = (prediction.point - prediction.batch.future).double()
        total, count = total + float((error**2).sum()), count + error.numel()
    return total / count


def test_two_fits_in_one_process_are_equal(config: Callable[..., Any], prepared: Prepared, tmp_path: Path) -> None:
    first, _ = train(config(), prepared, tmp_path / "1")
    torch.rand(17)
    second, _ = train(config(), prepared, tmp_path / "2")
    assert same(first.state_dict(), second.state_dict())
    other, _ = train(config(training={"seed": 5}), prepared, tmp_path / "3")
    assert not same(first.state_dict(), other.state_dict())


def test_the_best_epoch_is_kept(config: Callable[..., Any], prepared: Prepared, tmp_path: Path) -> None:
    chosen = config(training={"max_epochs": 6, "learning_rate": 0.05, "schedule": "constant", "patience": 0})
    model, fitted = train(chosen, prepared, tmp_path)
    losses = [row["validation_loss"] for row in fitted.epochs]
    assert len(losses) == 6 and fitted.best_epoch == 1 + int(np.argmin(losses)) and not fitted.stopped_early
    assert validation_loss(model, prepared) == pytest.approx(min(losses), rel=1e-5)


def test_early_stopping(config: Callable[..., Any], prepared: Prepared, tmp_path: Path) -> None:
    chosen = config(training={"max_epochs": 40, "learning_rate": 0.05, "schedule": "constant", "patience": 2})
    model, fitted = train(chosen, prepared, tmp_path)
    losses = [row["validation_loss"] for row in fitted.epochs]
    assert fitted.stopped_early and len(losses) == fitted.best_epoch + 2 < 40
    assert validation_loss(model, prepared) == pytest.approx(min(losses), rel=1e-5)
    # a kill between the last epoch and the note that the training is finished
    (tmp_path / "fit.json").unlink()
    again, repeated = train(chosen, prepared, tmp_path)
    assert repeated == fitted and same(again.state_dict(), model.state_dict())


def test_a_finished_training_is_not_repeated(config: Callable[..., Any], prepared: Prepared, tmp_path: Path) -> None:
    model, fitted = train(config(), prepared, tmp_path)
    idle = build_model(config(), prepared)
    idle.training_step = None  # type: ignore[method-assign, assignment]
    again, repeated = train(config(), prepared, tmp_path, idle)
    assert repeated == fitted and same(again.state_dict(), model.state_dict())


def test_a_rate_is_kept_for_two_epochs_and_halved_after(
    config: Callable[..., Any], prepared: Prepared, tmp_path: Path
) -> None:
    _, fitted = train(config(training={"max_epochs": 4, "learning_rate": 0.008, "patience": 0}), prepared, tmp_path)
    assert [row["learning_rate"] for row in fitted.epochs] == pytest.approx([0.008, 0.008, 0.004, 0.002])
    cosine = TrainingOptions(schedule="cosine", max_epochs=4)
    assert [rate_factor(cosine, e) for e in range(5)] == pytest.approx([1, 0.5 + 8**-0.5, 0.5, 0.5 - 8**-0.5, 0])
    assert rate_factor(TrainingOptions(schedule="constant"), 7) == 1


def watched(model: Forecaster, look: Callable[[], Any]) -> list[Any]:
    """What ``look`` sees after each step, before the gradients are cleared."""
    seen: list[Any] = []
    model.on_train_batch_end = lambda *_: seen.append(look())  # type: ignore[method-assign]
    return seen


def gradient_norm(model: Forecaster) -> float:
    return float(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped(config: Callable[..., Any], prepared: Prepared, tmp_path: Path, precision: str) -> None:
    norms = {}
    for clip in (None, 0.05):
        chosen = config(training={"gradient_clip": clip, "precision": precision, "max_epochs": 1})
        model = build_model(chosen, prepared)
        norms[clip] = watched(model, partial(gradient_norm, model))
        train(chosen, prepared, tmp_path / str(clip), model)
    assert max(norms[0.05]) <= 0.05 * 1.001 and min(norms[None]) > 0.05


def test_mixed_precision(config: Callable[..., Any], prepared: Prepared, tmp_path: Path) -> None:
    chosen = config(training={"precision": "bf16-mixed"})
    model: Any = build_model(chosen, prepared)
    seen: list[torch.dtype] = []
    model.embed.register_forward_hook(lambda *a: seen.append(a[2].dtype) if model.training else None)
    _, fitted = train(chosen, prepared, tmp_path / "bf16", model)
    assert set(seen) == {torch.bfloat16} and {p.dtype for p in model.parameters()} == {torch.float32}
    _, full = train(config(), prepared, tmp_path / "fp32")
    assert fitted.epochs[-1]["validation_loss"] == pytest.approx(full.epochs[-1]["validation_loss"], rel=0.05)
    with pytest.raises(ForetideError, match="16-mixed: needs a GPU"):
        train(config(training={"precision": "16-mixed"}), prepared, tmp_path / "fp16")


def test_deterministic_mode_holds_in_training(config: Callable[..., Any], prepared: Prepared, tmp_path: Path) -> None:
    for deterministic in (True, False):
        chosen = config(training={"deterministic": deterministic})
        model = build_model(chosen, prepared)
        seen = watched(model, torch.are_deterministic_algorithms_enabled)
        train(chosen, prepared, tmp_path / str(deterministic), model)
        assert set(seen) == {deterministic}
        assert not torch.are_deterministic_algorithms_enabled()


def test_a_share_of_the_variates_is_trained_and_all_are_forecast(
    config: Callable[..., Any], prepared: Prepared, tmp_path: Path
) -> None:
    chosen = config(training={"variate_fraction": 0.6})
    model: Any = build_model(chosen, prepared)
    seen: list[tuple[bool, Tensor]] = []
    model.register_forward_pre_hook(lambda module, arguments: seen.append((module.training, arguments[0].past)))
    _, fitted = train(chosen, prepared, tmp_path, model)
    assert {past.shape[2] for training, past in seen if training} == {2}
    assert {past.shape[2] for training, past in seen if not training} == {3}
    assert next(predict(model, prepared.windows("test"))).point.shape[2] == 3
    assert fitted.epochs[-1]["validation_loss"] < 0.5
    again, _ = train(chosen, prepared, tmp_path / "again")
    assert same(model.state_dict(), again.state_dict())


def test_training_ends_after_so_many_steps(config: Callable[..., Any], prepared: Prepared, tmp_path: Path) -> None:
    model = build_model(config(), prepared)
    steps = watched(model, lambda: 1)
    _, fitted = train(config(), prepared, tmp_path, model, validate=False, max_steps=23)
    assert len(steps) == 23 and fitted.best_epoch == len(fitted.epochs) == 2
    assert all(np.isfinite(row["train_loss"]) for row in fitted.epochs) and not fitted.stopped_early


def test_a_loss_that_is_not_finite_stops_with_one_line(
    config: Callable[..., Any], prepared: Prepared, tmp_path: Path
) -> None:
    model: Any = build_model(config(), prepared)
    torch.nn.init.constant_(model.project.bias, torch.nan)
    words = r"the loss is not finite in epoch 1, batch 1 \(first window: series 0, row"
    with pytest.raises(ForetideError, match=words) as caught:
        train(config(), prepared, tmp_path, model)
    assert "\n" not in str(caught.value) and "--training.learning_rate" in str(caught.value)


def test_models_without_weights_are_not_trained(config: Callable[..., Any], prepared: Prepared, tmp_path: Path) -> None:
    chosen = config(model="drift", architecture={})
    _, fitted = train(chosen, prepared, tmp_path)
    assert fitted == Fit([], 0, False) and not list(tmp_path.iterdir())


def test_masked_targets_do_not_train(
    config: Callable[..., Any], tmp_path: Path, daily: Callable[..., np.ndarray], write_csv: Callable[..., Path]
) -> None:
    values = daily()
    values[np.random.default_rng(1).random(values.shape) < 0.1] = np.nan
    chosen = config(data=str(write_csv(tmp_path / "holes.csv", values)), quality={"policy": "mask"})
    clean, found = prepare(chosen), []
    for spoil in (0.0, 1e6, float("nan")):
        panel = clean.scaled
        panel.value[~panel.observed] = spoil
        model, fitted = train(chosen, clean, tmp_path / str(spoil))
        assert np.isfinite([row["validation_loss"] for row in fitted.epochs]).all()
        found.append(model.state_dict())
    assert same(found[0], found[1]) and same(found[0], found[2])


def test_a_checkpoint_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint({"epoch": 1, "state_dict": {}}, target)
    with pytest.raises(Exception, match="pickle"):
        WholeFiles().save_checkpoint({"epoch": 2, "big": torch.zeros(10**6), "not plain": lambda: 0}, target)
    assert torch.load(target, weights_only=True)["epoch"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_predictions_come_in_order_and_in_bounded_batches(config: Callable[..., Any], prepared: Prepared) -> None:
    model = build_model(config(), prepared)
    windows = prepared.windows("train")
    whole = torch.cat([p.point for p in predict(model, windows)])
    for size in (1, 50, 10_000):
        parts = list(predict(model, windows, batch_size=size))
        assert max(len(p.point) for p in parts) <= size
        assert torch.cat([p.batch.origin for p in parts]).tolist() == list(range(36, 36 + len(windows)))
        torch.testing.assert_close(torch.cat([p.point for p in parts]), whole, atol=1e-5, rtol=1e-5)
    assert not whole.requires_grad and not model.training
    assert next(iter(predict(model, windows))).quantiles is None


def written(chosen: RunConfig, folder: Path) -> Path:
    target = folder / "run.yaml"
    target.write_text(yaml.safe_dump(plain(chosen)), encoding="utf-8")
    return target


def epochs_printed(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"^iTransformer: epoch (\d+)/", text, re.MULTILINE)]


def wait_for(pattern: str, folder: Path, process: subprocess.Popen[str]) -> Path:
    until = time.monotonic() + 200
    while time.monotonic() < until and process.poll() is None:
        if found := list(folder.glob(pattern)):
            return found[0]
        time.sleep(0.005)
    raise AssertionError(f"no {pattern}: {process.communicate()[0]}")


def test_a_killed_training_continues_to_the_same_weights(
    config: Callable[..., Any], python: Start, tmp_path: Path
) -> None:
    chosen = config(
        training={"max_epochs": 10, "batch_size": 8, "patience": 0, "gradient_clip": 1.0}, baselines=["seasonal_naive"]
    )
    command = ("-m", "forecasting", written(chosen, tmp_path), tmp_path / "broken")
    killed = python(*command)
    checkpoint = wait_for(".broken.work/*/itransformer/last.ckpt", tmp_path, killed)
    time.sleep(0.03)
    os.kill(killed.pid, signal.SIGKILL)
    before = epochs_printed(killed.communicate()[0])
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "broken").exists()
    saved = torch.load(checkpoint, weights_only=True)["epoch"] + 1
    assert saved < 10

    continued = python(*command)
    unbroken = run(chosen, tmp_path / "unbroken", visible=False)
    text = continued.communicate()[0]
    assert continued.returncode == 0 and "continuing from" in text, text
    assert epochs_printed(text) == list(range(saved + 1, 11))
    # what the killed process had finished, all but the epoch that it was in
    assert saved >= max(before) - 1

    found = artifact.load(tmp_path / "broken")
    assert unbroken is not None and same(found.weights, artifact.load(tmp_path / "unbroken").weights)
    history = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in made.metrics["training"]["epochs"]]
        for made in (found, unbroken.artifact)
    ]
    assert history[0] == history[1] and found.metrics["scores"] == unbroken.artifact.metrics["scores"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "run.yaml", "unbroken"]


def test_two_processes_take_the_steps_of_one(
    config: Callable[..., Any],
    python: Start,
    tmp_path: Path,
    daily: Callable[..., np.ndarray],
    write_csv: Callable[..., Path],
) -> None:
    values = daily()
    values[np.random.default_rng(1).random(values.shape) < 0.05] = np.nan
    options = {
        "data": str(write_csv(tmp_path / "holes.csv", values)),
        "quality": {"policy": "mask"},
        "architecture": {"layers": 1, "d_model": 16, "d_ff": 16, "heads": 2, "dropout": 0.0},
    }
    training = {"max_epochs": 5, "batch_size": 46, "patience": 0, "learning_rate": 1e-3}
    shared = config(**options, training={**training, "devices": 2, "strategy": "ddp"})
    started = python("-m", "forecasting", written(shared, tmp_path), tmp_path / "two")
    one = run(config(**options, training=training), tmp_path / "one", visible=False)
    text = started.communicate()[0]
    assert started.returncode == 0 and epochs_printed(text) == [1, 2, 3, 4, 5], text
    # ten steps an epoch, fifty in all, and a last batch that leaves the processes unequal shares
    assert one is not None and len(one.prepared.windows("train")) == 456 == 9 * 46 + 42

    two = artifact.load(tmp_path / "two")
    # the bias of the keys moves all scores of a query alike, which the softmax does not see: its gradient is nothing
    # but rounding, and Adam inflates that
    name = "model.encoder.0.attention.project_in.bias"
    weights = [dict(made.weights) for made in (one.artifact, two)]
    for table in weights:
        table[name] = torch.cat([table[name][:16], table[name][32:]])
    assert weights[0].keys() == weights[1].keys()
    for key in weights[0]:
        torch.testing.assert_close(weights[1][key], weights[0][key], atol=1e-4, rtol=0, equal_nan=True)
    for mine, theirs in zip(one.artifact.metrics["training"]["epochs"], two.metrics["training"]["epochs"], strict=True):
        assert mine["validation_loss"] == pytest.approx(theirs["validation_loss"], abs=1e-5)
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-2)
    for metric, value in one.artifact.metrics["scores"]["itransformer"].items():
        assert two.metrics["scores"]["itransformer"][metric] == pytest.approx(value, rel=1e-4, abs=1e-4)
