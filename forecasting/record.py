"""What a run says of itself: the schema of its data, what it was made with, how long each stage took."""

import hashlib
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from datasets.options import plain
from datasets.schema import LongSeries
from forecasting.config import RunConfig
from forecasting.environment import describe
from forecasting.protocol import Prepared


@dataclass
class Stages:
    """Wall-clock and processor seconds of each stage of a run."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the block under a name."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.rows.append(
            {
                "stage": name,
                "seconds": round(time.perf_counter() - wall, 3),
                "cpu_seconds": round(time.process_time() - cpu, 3),
            }
        )


def schema_of(config: RunConfig, prepared: Prepared) -> dict[str, Any]:
    """What a reader of the artifact must know about the data and the sizes."""
    panel, series = prepared.panel, prepared.series
    attributes = series.__dict__ if isinstance(series, LongSeries) else series.attrs
    return {
        "form": "long" if isinstance(series, LongSeries) else "wide",
        "title": prepared.title,
        "source": attributes["source"],
        "data_checksum": attributes["checksum"],
        "time_zone": attributes.get("time_zone", ""),
        "variates": list(panel.variates),
        "units": list(panel.units),
        "frequency": panel.frequency,
        "season": prepared.season,
        "lookback": config.lookback,
        "horizon": config.horizon,
        "min_history": prepared.min_history,
        "calendar": prepared.calendar,
        "calendar_names": list(panel.calendar_names),
        "calibrated_until": _calibrated_until(config, prepared),
        "past": list(panel.past_names),
        "future": list(panel.future_names),
        "static": list(panel.static_names),
        "series": len(panel.ids),
        "first": str(panel.times.min())[:19],
        "last": str(panel.times.max())[:19],
        "project": config.project or project_of(prepared.title),
        "code_version": describe()["versions"]["foretide"],
    }


def _calibrated_until(config: RunConfig, prepared: Prepared) -> str:
    """The last time stamp whose error says nothing more: of validation, or of all rows after a refit."""
    panel = prepared.panel
    ends = panel.ends.tolist() if config.training.refit else [border.validation[1] for border in prepared.borders]
    return str(max(panel.times[panel.rows(series)][end - 1] for series, end in enumerate(ends)))[:19]


def run_facts(run_id: str, config: RunConfig, command: str | None, started: float, stages: Stages) -> dict[str, Any]:
    """Who made the artifact: identifier, command, seed, seconds, versions, device.

    Args:
        started: Reading of ``time.perf_counter`` when the run began.
    """
    seconds = time.perf_counter() - started
    return {
        "run_id": run_id,
        "command": command or shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "seed": config.training.seed,
        "started": (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds"),
        "seconds": round(seconds, 2),
        "stages": stages.rows,
        "config_digest": digest(config),
        "process": os.getpid(),
        **describe(),
    }


def project_of(title: str) -> str:
    """The project that data belongs to when none is named: its name without suffixes."""
    return Path(title).name.split(".")[0] or "default"


def data_checksum(prepared: Prepared) -> str:
    """Checksum of the content of the source."""
    series = prepared.series
    return series.checksum if isinstance(series, LongSeries) else str(series.attrs["checksum"])


def digest(config: RunConfig | dict[str, Any]) -> str:
    """Short checksum of a configuration: with that of the data, what a broken run is recognised by."""
    return hashlib.sha256(json.dumps(plain(config), sort_keys=True).encode()).hexdigest()[:12]
