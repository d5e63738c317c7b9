"""The configuration of a run: what a YAML file, a command line and a stored artifact all say in the same words."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from datasets.errors import ForetideError
from datasets.options import build, require, tunable
from datasets.quality import QualityOptions
from datasets.readers import ReaderOptions
from datasets.scaling import ScalingOptions


@dataclass(frozen=True)
class SplitOptions:
    """How rows are divided into training, validation and test.

    Args:
        kind: ``auto`` takes the published borders of a catalogued dataset and a ratio elsewhere; ``last`` gives a
            panel's last horizons to test and those before to validation.
        train, validation, test: Share of the rows, for ``ratio``.
        validation_from, test_from: First day or time of the part, ISO, for ``dates``.
        windows: Horizons per series in validation and in test, for ``last``.
    """

    kind: Literal["auto", "published", "ratio", "dates", "last"] = "auto"
    train: float = 0.7
    validation: float = 0.1
    test: float = 0.2
    validation_from: str | None = None
    test_from: str | None = None
    windows: int = 1

    def __post_init__(self) -> None:
        if self.kind == "dates" and not (self.validation_from and self.test_from):
            raise ForetideError("split.kind dates: give split.validation_from and split.test_from as ISO dates")
        require(self.windows >= 1, "split.windows", self.windows, "at least 1")


@dataclass(frozen=True)
class HeadOptions:
    """What the model predicts at each step: a number, quantiles, or the parameters of a distribution.

    Args:
        kind: ``point``, ``quantile`` (21 levels) or ``student_t`` (a mixture).
        loss: Loss of the point head; the others have their own (pinball, negative log-likelihood).
        components: Number of distributions in the Student-t mixture.
        huber_delta: Where the Huber loss turns from square to absolute, in scaled units.
    """

    kind: Literal["point", "quantile", "student_t"] = "point"
    loss: Literal["mse", "mae", "huber"] = tunable("mse", choices=("mse", "mae", "huber"))
    components: int = 3
    huber_delta: float = 1.0

    def __post_init__(self) -> None:
        require(1 <= self.components <= 16, "head.components", self.components, "1 to 16")
        require(self.huber_delta > 0, "head.huber_delta", self.huber_delta, "a positive number")


@dataclass(frozen=True)
class TrainingOptions:
    """How a model is trained.

    Args:
        batch_size: Windows per step, over all devices together.
        max_epochs: Passes over the training windows, unless training stops early; 0 keeps the weights of init_from.
        learning_rate: Step size of the optimizer at the start.
        optimizer: ``adam``, or ``adamw`` with decoupled weight decay.
        weight_decay: Pull of the weights towards zero.
        schedule: ``halving`` keeps the rate for two epochs, then halves it each epoch (the published "type1").
        patience: Epochs without a better validation loss before training stops; 0 never stops early.
        gradient_clip: Largest norm of the gradient; None does not clip.
        variate_fraction: Share of the variates drawn for each step, for models that take any number of them.
        precision: Number format of the arithmetic; the mixed ones are for GPUs.
        accelerator: What to train on; ``auto`` takes a GPU where there is one.
        devices: How many GPUs, or processes on the CPU.
        strategy: How several devices work together; ``ddp`` gives each a share of every batch.
        deterministic: Refuse operations whose result depends on the order of execution.
        refit: After validation, train on all rows for the number of epochs that was best.
        seed: Of the weights, the order of windows and dropout; the same seed gives the same model.
        init_from: Folder of an earlier run, pre-trained or trained, whose weights this one starts from; on the command
            line also its identifier.
        freeze_backbone: Keep the backbone of init_from as it is and train the rest (linear probing).
    """

    batch_size: int = tunable(32, choices=(16, 32, 64, 128))
    max_epochs: int = 10
    learning_rate: float = tunable(1e-4, low=1e-5, high=1e-2, log=True)
    optimizer: Literal["adam", "adamw"] = tunable("adam", choices=("adam", "adamw"))
    weight_decay: float = 0.0
    schedule: Literal["halving", "constant", "cosine"] = tunable("halving", choices=("halving", "constant", "cosine"))
    patience: int = 3
    gradient_clip: float | None = None
    variate_fraction: float = 1.0
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    strategy: Literal["auto", "ddp"] = "auto"
    deterministic: bool = False
    refit: bool = False
    seed: int = 2023
    init_from: str | None = None
    freeze_backbone: bool = False

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "training.batch_size", self.batch_size, "at least 1")
        least = 0 if self.init_from else 1
        require(self.max_epochs >= least, "training.max_epochs", self.max_epochs, f"at least {least}")
        require(
            self.init_from is not None or not self.freeze_backbone,
            "training.freeze_backbone",
            self.freeze_backbone,
            "false, or training.init_from with the weights that are to be kept",
        )
        require(0 < self.learning_rate < 1, "training.learning_rate", self.learning_rate, "a number between 0 and 1")
        require(self.weight_decay >= 0, "training.weight_decay", self.weight_decay, "0 or more")
        require(self.patience >= 0, "training.patience", self.patience, "0 or more")
        require(
            0 < self.variate_fraction <= 1, "training.variate_fraction", self.variate_fraction, "more than 0, at most 1"
        )
        require(self.devices >= 1, "training.devices", self.devices, "at least 1")
        require(
            self.gradient_clip is None or self.gradient_clip > 0,
            "training.gradient_clip",
            self.gradient_clip,
            "a positive number",
        )
        require(0 <= self.seed < 2**31, "training.seed", self.seed, "0 to 2147483647")


@dataclass(frozen=True)
class IntervalOptions:
    """How intervals are made.

    Args:
        method: ``adaptive`` starts from validation errors and follows the errors seen since (for series that drift);
            ``conformal`` keeps those of validation; ``head`` takes the quantiles of a probabilistic head as they are.
        trajectories: Validation error paths that are kept, for sample paths.
    """

    method: Literal["adaptive", "conformal", "head"] = "adaptive"
    trajectories: int = 200

    def __post_init__(self) -> None:
        require(1 <= self.trajectories <= 5000, "intervals.trajectories", self.trajectories, "1 to 5000")


@dataclass(frozen=True)
class RunConfig:
    """One complete run.

    Args:
        data: Name of a catalogued dataset, or a file, folder, database URL.
        model: Name of a model, see ``foretide models list``; ``configs/`` has complete settings.
        lookback: Rows before the forecast that the model sees.
        horizon: Rows that it forecasts.
        project: What the model belongs to; by default the name of the data.
        architecture: Options of the model itself.
        season: Seasonal period in rows, for seasonal naive and MASE; by default that of the frequency.
        normalization: ``instance`` removes each window's own mean and scale and puts them back.
        calendar: Whether the model sees hour, weekday and the like.
        holidays: Country, or country and subdivision ("AU-VIC"), whose public holidays the model sees.
        baselines: Models scored beside this one; auto_ets and theta (the extra "classical") on a sample of origins.
        classical_origins: Size of that sample, for auto_ets and theta.
    """

    data: str
    model: str = "itransformer"
    lookback: int = tunable(96, choices=(48, 96, 192, 336, 512))
    horizon: int = 96
    project: str | None = None
    architecture: dict[str, Any] = field(default_factory=dict)
    season: int | None = None
    normalization: Literal["instance", "none"] = "instance"
    calendar: bool = True
    holidays: str | None = None
    reader: ReaderOptions = field(default_factory=ReaderOptions)
    quality: QualityOptions = field(default_factory=QualityOptions)
    split: SplitOptions = field(default_factory=SplitOptions)
    scaling: ScalingOptions = field(default_factory=ScalingOptions)
    head: HeadOptions = field(default_factory=HeadOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    intervals: IntervalOptions = field(default_factory=IntervalOptions)
    baselines: list[str] = field(default_factory=lambda: ["seasonal_naive", "dlinear"])
    classical_origins: int = 20

    def __post_init__(self) -> None:
        require(self.lookback >= 1, "lookback", self.lookback, "at least 1")
        require(self.horizon >= 1, "horizon", self.horizon, "at least 1")
        require(self.classical_origins >= 2, "classical_origins", self.classical_origins, "at least 2")
        require(self.season is None or self.season >= 1, "season", self.season, "at least 1")
        if self.intervals.method == "head" and self.head.kind == "point":
            raise ForetideError("intervals.method head needs a probabilistic head; set head.kind quantile or student_t")

    def of(self, **changes: Any) -> "RunConfig":
        """A copy with some fields changed, checked again."""
        return replace(self, **changes)


def read_config(path: Path) -> RunConfig:
    """A run from a YAML file; only plain values are accepted, and every unknown key is an error.

    What the file leaves out is the default of its model where that has one of its own, as on the command line.
    """
    return config_of(read_yaml(path), str(path))


def config_of(values: dict[str, Any], where: str) -> RunConfig:
    """A run from plain values; see `read_config`.

    Args:
        where: The file, for messages.
    """
    from forecasting import models

    values = dict(values)
    for name, suited in models.find(str(values.get("model", RunConfig.model))).defaults.items():
        given = values.get(name, {})
        if isinstance(suited, dict) and isinstance(given, dict):
            values[name] = {**suited, **given}
        else:
            values.setdefault(name, suited)
    return build(RunConfig, values, where)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds; tags that name code are refused by the safe loader."""
    import yaml

    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ForetideError(f"{path}: there is no such file; see the folder configs/ for examples") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ForetideError(f"{path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise ForetideError(
            f"{path}:{line} is not plain YAML ({getattr(error, 'problem', error)}); a config holds values only, "
            "never a class or function"
        ) from error
    if not isinstance(loaded, dict):
        raise ForetideError(f"{path}: found {type(loaded).__name__}, expected a mapping of options")
    return loaded


def search_space(kind: type) -> dict[str, dict[str, Any]]:
    """The fields of an option dataclass that carry a tuning range."""
    return {f.name: dict(f.metadata["tune"]) for f in fields(kind) if "tune" in f.metadata}
