"""The protocol of an evaluation: which rows train, which select, which score, and how they are scaled.

Published comparisons follow the published borders; scalers see training rows only; no window is dropped.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import xarray as xr

from datasets import panel as panels
from datasets import schema, sources, splits
from datasets.catalog import Entry
from datasets.errors import ForetideError, ForetideWarning
from datasets.panel import Panel
from datasets.scaling import Scaler
from datasets.schema import LongSeries
from datasets.splits import Borders, Part
from datasets.windows import Windows, part_windows
from forecasting import models
from forecasting.config import RunConfig, SplitOptions
from forecasting.forecaster import Forecaster, Supports, Task

Series = xr.Dataset | LongSeries


@dataclass(frozen=True)
class Prepared:
    """Data ready for training and scoring under one protocol.

    Args:
        series: Canonical data in original units.
        report: What the quality check found, as plain data.
        panel, scaled: Flat tensors in original and in scaled units.
        borders: Row ranges of the parts, one for each series.
        season: Seasonal period in rows.
    """

    series: Series
    report: dict[str, object]
    entry: Entry | None
    panel: Panel
    scaled: Panel
    scaler: Scaler
    borders: list[Borders]
    season: int
    lookback: int
    horizon: int
    min_history: int
    calendar: str | None = None

    @property
    def title(self) -> str:
        """Name of the data."""
        return self.series.title if isinstance(self.series, LongSeries) else str(self.series.attrs["title"])

    @property
    def training_rows(self) -> list[tuple[int, int]]:
        """Rows that scalers and the denominator of MASE may see."""
        return [border.train for border in self.borders]

    def windows(self, part: str, device: torch.device | str = "cpu") -> Windows:
        """All windows of a part, in scaled units, on a device."""
        if part == "everything":
            every = [Borders((0, n), (n, n), (n, n)) for n in self.panel.ends.tolist()]
            return part_windows(
                self.scaled.to(device), every, "train", self.lookback, self.horizon, min_history=self.min_history
            )
        kind: Part = part  # type: ignore[assignment]
        return part_windows(
            self.scaled.to(device), self.borders, kind, self.lookback, self.horizon, min_history=self.min_history
        )

    def task(self, supports: Supports) -> Task:
        """The sizes for a model, restricted to the inputs that it uses."""
        panel = self.panel
        return supports.task(
            self.lookback,
            self.horizon,
            self.season,
            variates=len(panel.variates),
            calendar=panel.calendar.shape[1],
            past=len(panel.past_names),
            future=len(panel.future_names),
            static=len(panel.static_names),
        )


def prepare(config: RunConfig) -> Prepared:
    """Reads, checks, splits and scales the data of a run.

    Raises:
        ForetideError: The data cannot be read or repaired, or a part holds no window.
    """
    loaded = sources.load(config.data, config.reader, config.quality)
    return prepare_series(config, loaded.series, loaded.report.to_dict(), loaded.entry)


def prepare_series(
    config: RunConfig, series: Series, report: dict[str, object], entry: Entry | None = None
) -> Prepared:
    """Splits and scales data that has been read already."""
    schema.refuse_field(series)
    frequency = series.frequency if isinstance(series, LongSeries) else str(series.attrs["frequency"])
    calendar = ((entry.calendar if entry else None) or frequency) if config.calendar else None
    panel = panels.of(series, calendar_frequency=calendar, holidays=config.holidays)
    _check_missing(config, panel)
    borders = _borders(config, panel, entry)
    scaler = Scaler.fit(panel, [border.train for border in borders], config.scaling)
    season = config.season or (entry.season if entry and entry.season > 1 else schema.season_of(frequency))
    # a panel may hold series that are shorter than the lookback; what is missing before their start is masked
    history = min(config.lookback, max(1, season)) if len(panel.ids) > 1 else config.lookback
    made = Prepared(
        series,
        report,
        entry,
        panel,
        scaler.apply(panel),
        scaler,
        borders,
        season,
        config.lookback,
        config.horizon,
        history,
        calendar,
    )
    for part in ("train", "validation", "test"):
        made.windows(part)
    return made


def _borders(config: RunConfig, panel: Panel, entry: Entry | None) -> list[Borders]:
    options, lengths = config.split, panel.ends.tolist()
    kind = options.kind
    if kind == "auto":
        kind = "published" if entry and entry.split else "last" if len(panel.ids) > 1 else "ratio"
    if kind == "published":
        if entry is None or entry.split is None:
            raise ForetideError(
                f"split.kind published: {config.data} has no published borders; use ratio, dates or last"
            )
        return [entry.split.borders(length) for length in lengths]
    if kind == "last":
        return splits.panel_borders(lengths, config.horizon, options.windows, options.windows)
    if kind == "dates":
        assert options.validation_from and options.test_from
        return [
            splits.by_dates(panel.times[panel.rows(s)][:n], options.validation_from, options.test_from)
            for s, n in enumerate(lengths)
        ]
    return [_ratio(options, length) for length in lengths]


def _ratio(options: SplitOptions, rows: int) -> Borders:
    return splits.Ratio(options.train, options.validation, options.test).borders(rows)


def _check_missing(config: RunConfig, panel: Panel) -> None:
    supports = models.find(config.model).supports
    if not supports.missing and not panel.complete:
        raise ForetideError(
            f"{config.data}: has missing values, which {config.model} cannot take; "
            "fill them with --quality.policy interpolate, or choose another model"
        )
    for kind in ("past", "future", "static"):
        names: Sequence[str] = getattr(panel, f"{kind}_names")
        if names and not getattr(supports, kind):
            warnings.warn(
                f"{config.model} does not use {kind} covariates: {', '.join(names)} are ignored",
                ForetideWarning,
                stacklevel=3,
            )


def check_model(config: RunConfig, prepared: Prepared) -> type[Forecaster]:
    """The class of the model, after every check that needs no training."""
    from forecasting.forecaster import Recipe

    kind = models.find(config.model)
    architecture = models.architecture(config.model, config.architecture)
    task = prepared.task(kind.supports)
    kind.check(task, Recipe(config.head, config.normalization, config.training))
    kind.check_architecture(task, architecture)
    return kind
