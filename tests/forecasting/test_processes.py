"""Processes side by side: how many at a time, with what environment, and that none is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forecasting.processes import Job, side_by_side, threads_for

ROOT = Path(__file__).resolve().parents[2]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="not here: the kernel ends orphans on Linux only")
SLEEP = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"


def job(folder: Path, name: str, code: str, *arguments: str) -> Job:
    return Job(name, ("-c", code, *arguments), folder / f"{name}.log")


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for(condition: object, seconds: float = 20.0) -> bool:
    """Whether a condition comes true in time."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return bool(condition())


def test_every_job_ends_with_its_status_and_its_output(tmp_path: Path) -> None:
    codes: dict[str, int] = {}
    jobs = [job(tmp_path, f"job{number}", f"print('out', {number}); raise SystemExit({number})") for number in range(3)]
    jobs.append(job(tmp_path, "killed", "import os; os.kill(os.getpid(), 9)"))
    side_by_side(jobs, 2, lambda done, code: codes.update({done.name: code}))
    assert codes == {"job0": 0, "job1": 1, "job2": 2, "killed": -9}
    assert [(tmp_path / f"job{number}.log").read_text() for number in range(3)] == ["out 0\n", "out 1\n", "out 2\n"]


def test_no_more_than_so_many_run_at_a_time(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time; here = pathlib.Path(sys.argv[1]); me = here / sys.argv[2]; me.touch(); "
        "time.sleep(0.3); print(len(list(here.glob('*.here')))); time.sleep(0.1); me.unlink()"
    )
    jobs = [job(tmp_path, f"job{n}", code, str(tmp_path), f"{n}.here") for n in range(5)]
    side_by_side(jobs, 2, lambda done, code: None)
    assert max(int(done.log.read_text()) for done in jobs) == 2


def test_a_process_has_its_threads_and_its_own_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    code = (
        "import os, forecasting.processes; "
        "print(os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'], os.getpgid(0) == os.getpid())"
    )
    one = job(tmp_path, "one", code)
    side_by_side([one], 1000, lambda done, code: None)
    assert one.log.read_text() == "1 1 True\n"
    assert threads_for(1) == len(os.sched_getaffinity(0))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_for(1) == threads_for(8) == 3


def test_those_that_take_long_are_reported(tmp_path: Path) -> None:
    seen: list[list[str]] = []
    slow = job(tmp_path, "slow", "import time; time.sleep(1)")
    side_by_side([slow], 2, lambda done, code: None, lambda running: seen.append([j.name for j in running]), 0.2)
    assert ["slow"] in seen


@LINUX
def test_an_interruption_ends_those_that_run(tmp_path: Path) -> None:
    sleeper = job(tmp_path, "sleeper", SLEEP)

    def interrupt(running: list[Job]) -> None:
        if sleeper.log.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        side_by_side([sleeper], 1, lambda done, code: None, interrupt, 0.1)
    assert not is_running(int(sleeper.log.read_text()))


@LINUX
def test_none_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    code = (
        "import pathlib, sys; from forecasting.processes import Job, side_by_side; "
        "side_by_side([Job('child', ('-c', sys.argv[1]), pathlib.Path(sys.argv[2]))], 1, print)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, SLEEP, str(log)], cwd=ROOT)
    try:
        assert wait_for(lambda: log.exists() and log.read_text().endswith("\n"))
        child = int(log.read_text())
        assert is_running(child)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert wait_for(lambda: not is_running(child))
