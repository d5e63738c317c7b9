"""From a pre-trained backbone to a forecaster, on the command line."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from app.runs import RunRow, RunStore

Foretide = Callable[..., Any]
SMALL = (
    *("--model", "tsmixer", "--data", "plant.csv", "--lookback", "24", "--horizon", "6"),
    *("--architecture.patch_length", "6", "--architecture.stride", "6", "--architecture.layers", "1"),
    *("--training.max_epochs", "2", "--baselines", "seasonal_naive"),
)


def made_by(out: str) -> RunRow:
    """The run that a training said it made."""
    (run_id,) = re.findall(r"\nrun (\w+) of project", out)
    return RunStore().show(run_id)


def test_from_a_backbone_to_a_forecast(site: Path, foretide: Foretide) -> None:
    out = foretide("pretrain", *SMALL).out
    (run_id,) = re.findall(r"\nrun (\w+): ", out)
    assert "mean squared error on hidden patches of" in out and f"--training.init_from {run_id}" in out
    row = RunStore().show(run_id)
    assert row.kind == "pretrain" and row.metrics["masked_mse"] > 0 and row.tags["command"].startswith("foretide pret")
    assert run_id in foretide("runs", "list").out and "masked_mse" in row.metrics
    probe = foretide("train", *SMALL, "--training.init_from", run_id[:8], "--training.freeze_backbone", "--promote")
    assert probe.code == 0 and "TSMixer is" in probe.out
    trained = made_by(probe.out)
    assert trained.params["training.freeze_backbone"] == "true" and trained.params["training.init_from"].endswith(
        run_id
    )
    assert foretide("forecast", "--data", "plant.csv", "--model", trained.run_id).code == 0
    same = foretide("train", *SMALL, "--training.init_from", trained.run_id, "--training.max_epochs", "0")
    assert same.code == 0
    assert made_by(same.out).metrics["mse"] == trained.metrics["mse"]
    refused = foretide("forecast", "--data", "plant.csv", "--model", run_id)
    assert refused.code == 2 and "is a pre-trained backbone, which forecasts nothing yet" in refused.err
    refused = foretide("models", "register", run_id)
    assert refused.code == 2 and "is a pre-trained backbone, which cannot forecast" in refused.err


def test_a_run_that_is_not_there_is_told_with_the_flag(site: Path, foretide: Foretide) -> None:
    done = foretide("train", *SMALL, "--training.init_from", "nosuch")
    assert done.code == 2 and done.err.startswith("error: --training.init_from: project 'plant': has no")
    done = foretide("train", *SMALL, "--training.freeze_backbone")
    assert done.code == 2 and "training.freeze_backbone: found True, expected false, or training.init_from" in done.err
    done = foretide("pretrain", "--data", "plant.csv")
    assert done.code == 2 and "has no backbone that can be pre-trained" in done.err


def test_its_options_can_be_printed_and_read(site: Path, foretide: Foretide) -> None:
    printed = foretide("pretrain", *SMALL, "--masking.ratio", "0.5", "--print_config").out
    assert yaml.safe_load(printed)["masking"] == {"ratio": 0.5, "together": True}
    (site / "pretrain.yaml").write_text(printed)
    assert foretide("pretrain", "--config", "pretrain.yaml").code == 0
    done = foretide("pretrain", "--config", "pretrain.yaml", "--masking.ratio", "2")
    assert done.code == 2 and done.err == "error: --masking.ratio: found 2.0, expected a number between 0 and 1\n"
