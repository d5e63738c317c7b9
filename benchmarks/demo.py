"""Times ``make demo`` as a newcomer meets it: a fresh clone, an empty home, then once more.

The clone holds the committed tree alone. ``foretide demo`` writes the time of each of its stages; what it cannot see
(the install, and the whole command from ``make`` to the prompt) is timed here.

    python -m benchmarks.demo [--warm 3]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, VERSIONS, Child, Record, Timing, require_idle, run_child, write

# What the network needs, and nothing else that this user has set.
KEPT = (
    "PATH",
    "PIP_FIND_LINKS",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_CERT",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HTTPS_PROXY",
    "NO_PROXY",
)
OUTPUT = "foretide-demo"
GB = 10**9
WALL_TARGET, TRAINING_TARGET, MEMORY_TARGET = "<= 90", "<= 110", "<= 3"

Stages = dict[str, dict[str, float]]


def main(warm: int = 3) -> Path:
    """Measures a cold run and ``warm`` further ones in the same clone, and writes ``results/demo.json``."""
    with tempfile.TemporaryDirectory(prefix="foretide-demo-") as folder:
        home, clone = Path(folder, "home"), Path(folder, "clone")
        home.mkdir()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        environment |= {"HOME": str(home), "LANG": "C.UTF-8", "TERM": "dumb"}
        require_idle()
        install = _make(clone, environment, ".venv/run.stamp")
        runs = [_demo(clone, environment) for _ in range(1 + warm)]
        records = [Record("cold", "install", "s", install.seconds), *_records("cold", runs[:1])]
        if warm:
            records += _records("warm", runs[1:])
        return write("demo", records, installed=_installed(clone))


def _make(clone: Path, environment: dict[str, str], target: str) -> Child:
    child = run_child(["make", target], cwd=clone, env=environment)
    if child.code:
        raise RuntimeError(f"make {target} failed with {child.code}:\n{child.output[-2000:]}")
    return child


def _demo(clone: Path, environment: dict[str, str]) -> tuple[Child, Stages]:
    child = _make(clone, environment, "demo")
    stages = json.loads((clone / OUTPUT / "stages.json").read_text(encoding="utf-8"))
    return child, {stage["stage"]: stage for stage in stages}


def _records(case: str, runs: list[tuple[Child, Stages]]) -> list[Record]:
    children = [child for child, _ in runs]
    records = [
        _median(case, "make demo", "s", [child.seconds for child in children], WALL_TARGET),
        _median(case, "make demo, processor time", "CPU-s", [child.cpu_seconds for child in children]),
        _median(case, "make demo, peak memory", "GB", [child.peak_bytes / GB for child in children], MEMORY_TARGET),
    ]
    for name in runs[0][1]:
        stages = [stages[name] for _, stages in runs]
        target = TRAINING_TARGET if name.startswith("train") else None
        records += [
            _median(case, f"stage {name}", "s", [stage["seconds"] for stage in stages]),
            _median(case, f"stage {name}, processor time", "CPU-s", [stage["cpu_seconds"] for stage in stages], target),
        ]
    return records


def _median(case: str, metric: str, unit: str, samples: list[float], target: str | None = None) -> Record:
    timing = Timing(tuple(samples))
    return Record(case, metric, unit, timing.median, timing.spread if len(samples) > 1 else None, target=target)


def _installed(clone: Path) -> dict[str, Any]:
    """Versions in the clone's environment, which is not the one that runs this."""
    listed = subprocess.run(
        [clone / ".venv/bin/python", "-m", "pip", "list", "--format=json", "--disable-pip-version-check"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = {entry["name"].lower(): entry["version"] for entry in json.loads(listed.stdout)}
    python = subprocess.run(
        [clone / ".venv/bin/python", "-c", "import platform; print(platform.python_version())"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {"python": python.stdout.strip(), **{name: found[name] for name in VERSIONS if name in found}}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--warm", type=int, default=3, help="runs after the first (default 3)")
    print(main(parser.parse_args().warm), file=sys.stderr)
