"""Small real artifacts for the tests of the application."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forecasting.artifact import Artifact, write


@pytest.fixture
def make_artifact() -> Callable[..., Path]:
    """A function that writes an artifact at ``<folder>/<run_id>``; further arguments go into its parts."""

    def make(folder: Path, run_id: str, *, mse: float | None = 0.4, title: str = "ETTh1", **config: Any) -> Path:
        import torch

        scores = {"itransformer": {"mse": mse, "coverage_80": 0.8}, "seasonal_naive": {"mse": 0.5}}
        curve = [{"epoch": epoch, "train_loss": 1.0 / (1 + epoch), "validation_loss": 0.5} for epoch in range(3)]
        return write(folder / run_id, Artifact(
            config={"data": "ETTh1", "model": "itransformer", "training": {"seed": 7, "devices": 1}, **config},
            weights={"model.weight": torch.arange(6.0).reshape(2, 3)},
            scaling={"mean": [0.0, 1.0]},
            schema={"variates": ["HUFL", "OT"], "frequency": "h", "lookback": 96, "horizon": 24, "title": title,
                    "data_checksum": "ab" * 32, "code_version": "0.1"},
            metrics={"scores": scores, "training": {"epochs": curve}},
            run={"run_id": run_id, "seed": 7, "command": "foretide train --data ETTh1", "seconds": 12.5,
                 "device": "cpu", "started": "2026-03-01T12:00:00+00:00", "versions": {"torch": "2.13"}}))

    return make
