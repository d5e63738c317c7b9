"""Fixtures that every test may use, and what happens to tests whose optional part is missing.

A missing part (real datasets, a Chromium, a PostgreSQL, an optional Python distribution) skips its tests, and the
end of the run says what to install. With ``FORETIDE_REQUIRE=all`` such a skip is a failure. Only a reason that starts
with ``not here:`` stays a skip then: it is about the machine (no GPU; running as root), which no command changes.
"""

import importlib
import os
import pwd
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SEED = 42
EXEMPT = "not here:"
DATA_FOLDERS = (
    "ETT-small",
    "M1",
    "M3",
    "M4",
    "air_temperature",
    "era5_t2m_uk",
    "ersst_v5",
    "illness",
    "tourism",
    "tourism_au",
    "vic_elec",
    "weather",
)
EXTRAS = {"statsforecast": "classical", "neuralforecast": "oracles", "transformers": "oracles", "playwright": "test"}

# One thread for each process, before torch is imported: spinning threads of several processes starve each other.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ[_name] = "1"
# Help pages are as wide as a terminal; here, as none.
os.environ["COLUMNS"] = "110"
# A developer's own stores are not for tests.
for _name in ("FORETIDE_HOME", "FORETIDE_DATABASE", "MLFLOW_TRACKING_URI"):
    os.environ.pop(_name, None)


@pytest.fixture(autouse=True)
def torch_state() -> Iterator[None]:
    """Seeds the generators, and undoes what a test did to torch's global switches; never imports torch."""
    random.seed(SEED)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(SEED)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(SEED)
    yield
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.set_default_dtype(torch.float32)
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False
        torch.backends.cudnn.benchmark = False
        torch.set_num_threads(1)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ``FORETIDE_HOME`` of the test's own."""
    folder = tmp_path / ".foretide"
    monkeypatch.setenv("FORETIDE_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real datasets that ``FORETIDE_DATA`` names."""
    named = os.environ.get("FORETIDE_DATA")
    missing = [name for name in DATA_FOLDERS if not named or not Path(named, name).is_dir()]
    if missing:
        pytest.skip(f"real datasets: set FORETIDE_DATA=<folder that holds {', '.join(missing)}>")
    return Path(str(named)).resolve()


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Path of a Chromium or Chrome."""
    names = (os.environ.get("BROWSER_PATH", ""), "chromium", "chromium-browser", "google-chrome", "chrome")
    found = next(filter(None, (shutil.which(name) for name in names if name)), None)
    if found is None:
        pytest.skip("Chromium: apt-get install chromium")
    return Path(found)


@pytest.fixture
def require() -> Callable[[str], ModuleType]:
    """A function that imports an optional module, or skips the test with the command that installs it."""

    def load(name: str) -> ModuleType:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
        top = name.split(".")[0]
        pytest.skip(f"{top}: pip install -c constraints.txt " + (f"-e '.[{EXTRAS[top]}]'" if top in EXTRAS else top))

    return load


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """SQLAlchemy URL of a PostgreSQL server that lives as long as the run; it starts empty and is never synced."""
    binaries = _postgres_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="foretide-pg-", dir="/tmp"))
    cluster, options = folder / "cluster", _as_server_user(folder)
    try:
        _run(
            [binaries / "initdb", "-D", cluster, "-U", "foretide", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"],
            **options,
        )
        port = _free_port()
        settings = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        _run([binaries / "pg_ctl", "-D", cluster, "-w", "-l", folder / "log", "-o", settings, "start"], **options)
        try:
            yield f"postgresql+psycopg://foretide@127.0.0.1:{port}/postgres"
        finally:
            _run([binaries / "pg_ctl", "-D", cluster, "-m", "immediate", "stop"], **options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _postgres_binaries() -> Path | None:
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = str(packaged[-1]) if packaged else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def _as_server_user(folder: Path) -> dict[str, Any]:
    """Arguments of subprocess.run under which a server starts: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {"cwd": folder}
    accounts = {account.pw_name: account for account in pwd.getpwall()}
    account = accounts.get("postgres", accounts["nobody"])
    os.chown(folder, account.pw_uid, account.pw_gid)
    return {"cwd": folder, "user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(command: list[str | Path], **options: Any) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
        **options,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed with {done.returncode}: {done.stdout[-500:]}")


def _fail_if_required(report: Any) -> Any:
    """Turns the report of a skip into a failure where every part is required."""
    skipped = report.outcome == "skipped" and not hasattr(report, "wasxfail")
    if skipped and os.environ.get("FORETIDE_REQUIRE") == "all" and not _reason(report).startswith(EXEMPT):
        report.longrepr = f"FORETIDE_REQUIRE=all, and a part is missing: {_reason(report)}"
        report.outcome = "failed"
    return report


def _reason(report: Any) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return str(text).removeprefix("Skipped: ")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    return _fail_if_required((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[Any]:
    return _fail_if_required((yield))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names each missing part once, with what brings it."""
    parts = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", []))
    if parts:
        terminalreporter.section("skipped parts, and what brings them")
        for reason, count in sorted(parts.items()):
            terminalreporter.write_line(f"{count:4d} {'test ' if count == 1 else 'tests'}  {reason}")
