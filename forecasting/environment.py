"""What a run was made with: versions, device, commit. Stored with every result."""

import functools
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("foretide", "torch", "pytorch-lightning", "numpy", "xarray", "polars", "triton")


@functools.cache
def describe() -> dict[str, Any]:
    """Versions of Python and of what computes, the device, and the commit where the code is a checkout."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {"versions": versions, "device": device_name(), "commit": commit()}


def device_name() -> str:
    """The GPU, or the processor and its number of threads."""
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{processor()}, {torch.get_num_threads()} threads"


def processor() -> str:
    """The name of the processor."""
    unknown = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return unknown
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), unknown)


def commit() -> str | None:
    """The commit of the checkout that this file lies in, or None for an installed package."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    done = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None
