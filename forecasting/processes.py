"""Several processes side by side: each in a group of its own, with its share of the cores; none outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")
_ROOT = Path(__file__).resolve().parents[1]
# The first act of a child on Linux: the kernel is to kill it when its parent dies, even of a SIGKILL. It is done by a
# program that becomes the real one, because Python code between fork and exec is not safe beside threads.
_FOLLOW = (
    "import ctypes, os, signal, sys; "
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL); "  # PR_SET_PDEATHSIG
    "os.getppid() == int(sys.argv[1]) or os._exit(1); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)
_POLL = 0.1


@dataclass(frozen=True)
class Job:
    """A Python process.

    Args:
        name: For messages.
        arguments: What follows ``python``.
        log: File that takes what it prints; written anew.
    """

    name: str
    arguments: tuple[str, ...]
    log: Path


def side_by_side(
    jobs: Iterable[Job],
    parallel: int,
    finished: Callable[[Job, int], None],
    still: Callable[[list[Job]], None] = lambda running: None,
    every: float = 30.0,
) -> None:
    """Runs all jobs, at most ``parallel`` at a time; whatever ends this call ends those that are still running.

    Args:
        finished: Called with each job and its exit status, in the order in which they end; minus the number of a
            signal that killed it.
        still: Called with the running jobs after ``every`` seconds in which none has ended.
    """
    waiting, running = list(jobs), dict[subprocess.Popen[bytes], Job]()
    threads, quiet = threads_for(parallel), time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                job = waiting.pop(0)
                running[_start(job, threads)] = job
            for process in [process for process in running if process.poll() is not None]:
                finished(running.pop(process), process.returncode)
                quiet = time.monotonic()
            if time.monotonic() - quiet > every:
                still(list(running.values()))
                quiet = time.monotonic()
            time.sleep(_POLL if len(running) == parallel or not waiting else 0)
    finally:
        _stop(list(running))


def threads_for(parallel: int) -> int:
    """Threads for each of several processes: what the environment says, or an even share of the cores."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    if named.isdigit() and int(named):
        return int(named)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // parallel)


def _start(job: Job, threads: int) -> "subprocess.Popen[bytes]":
    # the number of threads has to be there before torch is imported
    environment = {**os.environ, **dict.fromkeys(THREADS, str(threads)), "PYTHONUNBUFFERED": "1"}
    environment.setdefault("GOMP_SPINCOUNT", "20000")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    follow = ("-c", _FOLLOW, str(os.getpid())) if sys.platform == "linux" else ()
    with job.log.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, *follow, *job.arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _stop(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Kills the groups of processes: what they write is whole or not there, and they continue from their last epoch."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    for process in processes:
        process.wait()
