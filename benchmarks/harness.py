"""How every benchmark measures, and the one form in which results are written.

A benchmark makes a list of :class:`Record` and calls :func:`write`; ``make results`` reads all files. Nothing that is
imported here at the top needs to be installed, so the table works from a fresh clone.
"""

import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import platform
import re
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datasets.files import atomic_path
from forecasting.environment import processor

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
VERSIONS = ("foretide", "torch", "pytorch-lightning", "numpy", "scipy", "xarray", "polars")
TARGET = re.compile(r"(<=|>=) (-?\d+(?:\.\d+)?(?:e-?\d+)?)")
TIME = frozenset({"h", "min", "s", "ms", "us", "ns", "CPU-s"})
MEMORY = frozenset({"B", "kB", "MB", "GB", "KiB", "MiB", "GiB"})

Verdict = Literal["met", "missed", "no target"]


@dataclass(frozen=True)
class Record:
    """One measured figure.

    Args:
        case: What was measured: model, dataset, shape.
        metric: Name of the figure, such as ``training step`` or ``mse``.
        unit: Unit of ``value``, ``peer_value``, ``spread`` and ``floor``; an empty string for a pure number.
        value: Median of ours.
        spread: Interquartile range, or standard deviation over seeds.
        peer, peer_value: Who was measured beside ours in the same run, and their median.
        floor: Lowest value that the hardware allows.
        target: What was asked for: ``"<= 0.390"``, ``">= 5"``, or None.
        target_of: What the target judges: the value, its ratio to the peer, or value ÷ floor.
        device: Only where it is not the device of the whole file.
    """

    case: str
    metric: str
    unit: str
    value: float
    spread: float | None = None
    peer: str | None = None
    peer_value: float | None = None
    floor: float | None = None
    target: str | None = None
    target_of: Literal["value", "ratio", "floor"] = "value"
    device: str | None = None

    def __post_init__(self) -> None:
        where = f"{self.case}, {self.metric}"
        for name in ("value", "spread", "peer_value", "floor"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                raise ValueError(f"{where}: {name} is {number}, expected a finite number")
        if self.target_of not in ("value", "ratio", "floor"):
            raise ValueError(f"{where}: target_of is {self.target_of!r}, expected value, ratio or floor")
        if self.target is None:
            return
        if not TARGET.fullmatch(self.target):
            raise ValueError(f"{where}: target is {self.target!r}, expected the form '<= 0.390' or '>= 5'")
        if self.judged is None:
            raise ValueError(f"{where}: the target judges the {self.target_of}, which lacks its other half")

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer: peer ÷ ours for time and memory, ours ÷ peer for all else."""
        if self.peer_value is None:
            return None
        over, under = (self.peer_value, self.value) if _less_is_better(self.unit) else (self.value, self.peer_value)
        return over / under if under else None

    @property
    def times_floor(self) -> float | None:
        """Value ÷ floor."""
        return self.value / self.floor if self.floor else None

    @property
    def judged(self) -> float | None:
        """The number that the target is about."""
        return {"value": self.value, "ratio": self.ratio, "floor": self.times_floor}[self.target_of]

    @property
    def verdict(self) -> Verdict:
        """Whether the target is met."""
        if self.target is None or self.judged is None:
            return "no target"
        sign, bound = self.target.split()
        met = self.judged <= float(bound) if sign == "<=" else self.judged >= float(bound)
        return "met" if met else "missed"


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated calls."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median, in seconds."""
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """Interquartile range, in seconds; 0 for a single call."""
        if len(self.samples) < 2:
            return 0.0
        first, _, third = statistics.quantiles(self.samples, n=4, method="inclusive")
        return third - first


@dataclass(frozen=True)
class Child:
    """What a finished process used, its own children included.

    Args:
        code: Exit status.
        seconds: Wall clock.
        cpu_seconds: User and system time.
        peak_bytes: Largest resident memory of any one process.
        output: Standard output and error, in order.
    """

    code: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str


def measure(call: Callable[[], Any], repeats: int = 10, warmup: int = 2) -> Timing:
    """Times a call after ``warmup`` untimed ones; waits for a GPU where one is in use."""
    for _ in range(warmup):
        call()
    return Timing(tuple(_seconds(call) for _ in range(repeats)))


def measure_beside(
    ours: Callable[[], Any], peer: Callable[[], Any], repeats: int = 10, warmup: int = 2
) -> tuple[Timing, Timing]:
    """Times two calls in turns, each first every other time, so that a drift of the machine meets both alike."""
    calls = (ours, peer)
    for _ in range(warmup):
        for call in calls:
            call()
    samples: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            samples[which].append(_seconds(calls[which]))
    return Timing(tuple(samples[0])), Timing(tuple(samples[1]))


def run_child(command: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Child:
    """Runs a command to its end and says what it used."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=None if env is None else dict(env),
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Child(process.returncode, time.perf_counter() - start, used.ru_utime + used.ru_stime, _bytes(used), output)


def peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    return _bytes(resource.getrusage(resource.RUSAGE_SELF))


def require_idle(limit: float = 0.15, patience: float = 120.0) -> float:
    """Waits until other processes leave the cores alone, and returns the share of all cores that is busy.

    Raises:
        RuntimeError: More than ``limit`` is still busy after ``patience`` seconds.
    """
    import psutil

    end = time.monotonic() + patience
    while (busy := psutil.cpu_percent(interval=1.0) / 100) > limit:
        if time.monotonic() > end:
            raise RuntimeError(f"{busy:.0%} of the cores are busy, more than {limit:.0%}: a timing would not be ours")
    return busy


def describe_device() -> str:
    """The processor with its cores, and the GPU where torch is in use and sees one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpu = f"{processor()}, {cores} cores"
    torch = sys.modules.get("torch")
    return f"{torch.cuda.get_device_name()} ({cpu})" if torch is not None and torch.cuda.is_available() else cpu


def versions(names: Sequence[str] = ()) -> dict[str, str]:
    """Python and the distributions at hand, among ``names`` and the usual ones."""
    found = {"python": platform.python_version()}
    for name in dict.fromkeys((*VERSIONS, *names)):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit that was measured, with ``+`` where the tree differs from it (results apart)."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    if head.returncode:
        return "unknown"
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", ".", ":(exclude)benchmarks/results"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return head.stdout.strip() + ("+" if changed else "")


def write(
    name: str,
    records: Sequence[Record],
    *,
    peers: Sequence[str] = (),
    device: str | None = None,
    installed: Mapping[str, str] | None = None,
    folder: Path = RESULTS,
) -> Path:
    """Writes ``<folder>/<name>.json`` in the common form, and returns its path.

    Args:
        name: Name of the benchmark.
        records: At least one; no two share case, metric and device.
        peers: Distributions whose versions belong in the file.
        device: In place of this machine's description.
        installed: Versions, where another environment than this process's was measured.
        folder: Where the file goes.
    """
    seen = [(record.case, record.metric, record.device) for record in records]
    if not seen or len(set(seen)) != len(seen):
        raise ValueError(f"{name}: expected at least one record, and no two of the same case, metric and device")
    content = {
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device or describe_device(),
        "versions": dict(installed or versions(peers)),
        "records": [_plain(record) for record in records],
    }
    path = folder / f"{name}.json"
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _plain(record: Record) -> dict[str, Any]:
    values = dataclasses.asdict(record)
    if record.device is None:
        del values["device"]
    return values


def _less_is_better(unit: str) -> bool:
    """True for time and memory, also per step; false for rates such as GB/s."""
    over, _, under = unit.partition("/")
    return over.strip() in TIME | MEMORY and under.strip() not in TIME


def _seconds(call: Callable[[], Any]) -> float:
    _synchronize()
    start = time.perf_counter()
    call()
    _synchronize()
    return time.perf_counter() - start


def _synchronize() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _bytes(used: resource.struct_rusage) -> int:
    return used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
