"""The run store lasts: beside other writers, after a move, after a crash; and the registry is never ambiguous."""

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from app.home import home as home_folder
from app.registry import check_project, escape, unescape
from app.runs import CHAMPION, PREVIOUS, RunStore, _Choice, _read_client, _read_file
from datasets.errors import ForetideError

Make = Callable[..., Path]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without runs; copying it saves each test the making of one."""
    folder = tmp_path_factory.mktemp("empty")
    with RunStore(folder).store.writing():
        pass
    return folder / "runs.db"


@pytest.fixture
def store(home: Path, empty_store: Path) -> RunStore:
    home.mkdir()
    shutil.copy(empty_store, home / "runs.db")
    return RunStore()


@pytest.fixture
def log(store: RunStore, make_artifact: Make) -> Callable[..., str]:
    """A function that makes the artifact of a run and logs it."""
    return lambda run_id, **parts: store.log(make_artifact(store.home / "artifacts", run_id, **parts))


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the wait for a foreign lock."""
    monkeypatch.setattr("app.store._WAIT", 0.1)


def python(code: str, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Standard output of a process that must succeed in silence."""
    output, errors = process.communicate(timeout=240)
    assert (process.returncode, errors) == (0, "")
    return output


@contextmanager
def locked(database: Path, statement: str) -> Iterator[None]:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute(statement)
        yield
        connection.execute("ROLLBACK")


def test_home_is_absolute_and_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert home_folder() == tmp_path / ".foretide"
    monkeypatch.setenv("FORETIDE_HOME", "elsewhere")
    assert home_folder() == tmp_path / "elsewhere" == RunStore().home


def test_reading_an_empty_home_creates_nothing(home: Path) -> None:
    store = RunStore()
    assert store.runs() == [] and store.projects() == [] and store.versions("a") == [] and store.history("a") == []
    with pytest.raises(ForetideError, match="project 'a': has no registered model; train one with: foretide train"):
        store.resolve("a")
    with pytest.raises(ForetideError, match="no such run"):
        store.show("abc")
    assert not home.exists()


def test_logged_run_has_what_it_takes_to_repeat_it(store: RunStore, log: Callable[..., str]) -> None:
    row = store.show(log("run-1"))
    assert (row.run_id, row.project, row.kind) == ("run-1", "ETTh1", "train")
    assert (row.model, row.status) == ("itransformer", "finished")
    assert (row.lookback, row.horizon, row.seconds) == (96, 24, 12.5)
    assert row.started == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert row.artifact == store.home / "artifacts" / "run-1" and row.artifact.is_dir()
    assert row.params == {"data": "ETTh1", "model": "itransformer", "training.seed": "7", "training.devices": "1"}
    assert row.metrics == {
        "mse": 0.4,
        "coverage_80": 0.8,
        "seasonal_naive/mse": 0.5,
        "train_loss": pytest.approx(1 / 3),
        "validation_loss": 0.5,
    }
    assert row.tags["command"] == "foretide train --data ETTh1" and row.tags["versions"] == '{"torch": "2.13"}'
    assert row.tags["data_checksum"] == "ab" * 32 and row.tags["artifact"] == "artifacts/run-1"


def test_logging_twice_is_logging_once(store: RunStore, log: Callable[..., str]) -> None:
    folder = store.show(log("run-1")).artifact
    assert store.log(folder) == "run-1" and len(store.runs()) == 1


def test_run_that_was_half_logged_is_completed(store: RunStore, make_artifact: Make) -> None:
    folder = make_artifact(store.home / "artifacts", "run-1")
    store.log(folder)
    complete = store.show("run-1")
    with closing(sqlite3.connect(store.home / "runs.db")) as connection, connection:
        connection.execute("UPDATE runs SET status = 'RUNNING', end_time = NULL")
        connection.execute("DELETE FROM params WHERE key LIKE 'training.%'")
    assert store.show("run-1").status == "running"
    store.log(folder)
    assert store.show("run-1") == complete and len(store.runs()) == 1


def test_artifact_elsewhere_is_not_logged(tmp_path: Path, store: RunStore, make_artifact: Make) -> None:
    with pytest.raises(ForetideError, match=r"expected the artifact at .*artifacts/run-1; bring it in with"):
        store.log(make_artifact(tmp_path, "run-1"))
    assert store.runs() == []


def test_unusual_values(store: RunStore, log: Callable[..., str]) -> None:
    many = {f"option {number}": number for number in range(250)}
    log("run-1", mse=None, title="M3:monthly/Ä 'b'", many=many, long="x" * 10_000, empty={}, odd={"a:b?": None})
    row = store.show("run-1")
    assert row.project == "M3:monthly/Ä 'b'" and "mse" not in row.metrics
    assert row.params["many.option 249"] == "249" and len(row.params["long"]) == 6000
    assert row.params["empty"] == "{}" and row.params["odd.a_b_"] == "null"
    assert store.register(row.project, "run-1") == 1 and store.projects() == [row.project]
    assert store.resolve(row.project, "latest").project == row.project


def test_listing_by_project_order_and_limit(store: RunStore, log: Callable[..., str]) -> None:
    for run_id, mse, title in [("run-1", 0.3, "A"), ("run-2", 0.1, "A"), ("run-3", None, "A"), ("run-4", 0.2, "B")]:
        log(run_id, mse=mse, title=title)

    def names(project: str | None = None, limit: int = 50, order: str = "started") -> list[str]:
        return [row.run_id for row in store.runs(project, limit, order)]

    assert names(order="mse") == ["run-2", "run-4", "run-1", "run-3"]
    assert names(order="-mse")[:3] == ["run-1", "run-4", "run-2"]
    assert names(project="A", order="mse", limit=2) == ["run-2", "run-1"]
    assert set(names()) == {"run-1", "run-2", "run-3", "run-4"}
    with pytest.raises(ForetideError, match="project 'C': has no runs"):
        store.runs(project="C")
    with pytest.raises(ForetideError, match="order: found 'mse`; drop'"):
        store.runs(order="mse`; drop")


def test_newest_run_comes_first(store: RunStore, log: Callable[..., str]) -> None:
    log("run-1")
    log("run-2")
    with closing(sqlite3.connect(store.home / "runs.db")) as connection, connection:
        connection.execute("UPDATE runs SET start_time = start_time + 1000 WHERE name = 'run-1'")
    assert [row.run_id for row in store.runs()] == ["run-1", "run-2"]


def test_show_by_the_beginning(store: RunStore, log: Callable[..., str]) -> None:
    for run_id in ("abcd", "abcd-2", "ab_e", "abbe"):
        log(run_id)
    assert store.show("abcd").run_id == "abcd" and store.show("ab_").run_id == "ab_e"
    with pytest.raises(ForetideError, match="run 'ab': 4 runs begin like that: ab_e, abbe, abcd, abcd-2; give more"):
        store.show("ab")
    with pytest.raises(ForetideError, match="run 'zz': no such run"):
        store.show("zz")
    with pytest.raises(ForetideError, match="expected the identifier of a run"):
        store.show("%' OR '1")


def test_delete_run(store: RunStore, log: Callable[..., str]) -> None:
    for run_id in ("run-1", "run-2"):
        log(run_id)
    store.register("A", "run-1")
    with pytest.raises(ForetideError, match="is the registered model A 1; delete that version first"):
        store.delete("run-1")
    store.delete("run-2")
    assert [row.run_id for row in store.runs()] == ["run-1"]
    assert [path.name for path in (store.home / "artifacts").iterdir()] == ["run-1"]
    assert log("run-2") == "run-2" and len(store.runs()) == 2


def test_import_once_and_twice(tmp_path: Path, store: RunStore, make_artifact: Make) -> None:
    folder = make_artifact(tmp_path, "run-1")
    assert store.import_run(folder) == store.import_run(folder) == "run-1"
    shutil.rmtree(folder)
    rows = store.runs()
    assert len(rows) == 1 and rows[0].artifact.is_dir()


def test_versions_promotion_rollback_and_history(store: RunStore, log: Callable[..., str]) -> None:
    for number in (1, 2, 3):
        assert store.register("A", log(f"run-{number}")) == number
    assert store.register("A", "run-2") == 2
    with pytest.raises(ForetideError, match="has no version or alias 'champion'; found 1, 2, 3; see"):
        store.resolve("A")
    store.promote("A", 1)
    with pytest.raises(ForetideError, match="no previous champion to go back to"):
        store.rollback("A")
    store.promote("A", 3)
    store.promote("A", 3)
    store.set_alias("A", "night-shift", 2)
    assert [version.aliases for version in store.versions("A")] == [(PREVIOUS,), ("night-shift",), (CHAMPION,)]
    assert store.resolve("A").run_id == "run-3" and store.resolve("A", "latest").version == 3
    assert store.resolve("A", "2") == store.resolve("A", 2) == store.resolve("A", "night-shift")
    assert store.rollback("A").version == 1 and store.resolve("A", PREVIOUS).version == 3
    assert store.rollback("A").version == 3 and store.resolve("A", PREVIOUS).version == 1
    history = store.history("A")
    assert [(event.before, event.version, event.action) for event in history] == [
        (None, 1, "promote"),
        (1, 3, "promote"),
        (3, 1, "rollback"),
        (1, 3, "rollback"),
    ]
    assert all(event.by and abs((datetime.now(UTC) - event.when).total_seconds()) < 300 for event in history)


def test_projects_do_not_mix(store: RunStore, log: Callable[..., str]) -> None:
    log("run-1")
    log("run-2")
    store.promote("A", store.register("A", "run-1"))
    store.promote("B", store.register("B", "run-2"))
    assert {name: store.resolve(name).run_id for name in store.projects()} == {"A": "run-1", "B": "run-2"}
    assert len(store.history("A")) == 1
    with pytest.raises(ForetideError, match="project 'A1': has no registered model; did you mean 'A'"):
        store.resolve("A1")


def test_delete_version(store: RunStore, log: Callable[..., str]) -> None:
    for number in (1, 2):
        store.register("A", log(f"run-{number}"))
    store.promote("A", 2)
    with pytest.raises(ForetideError, match="version 2 is the champion; promote another one first"):
        store.delete_version("A", 2)
    store.delete_version("A", 1)
    assert [version.version for version in store.versions("A")] == [2]
    with pytest.raises(ForetideError, match="no version or alias 1; found 2 = champion"):
        store.promote("A", 1)
    assert store.register("A", "run-1") == 3


@pytest.mark.parametrize("alias", ["champion", "previous", "latest", "Latest", "3", "v3", "", "a b", "ä", "x" * 65])
def test_alias_that_cannot_be_set(store: RunStore, log: Callable[..., str], alias: str) -> None:
    store.register("A", log("run-1"))
    with pytest.raises(ForetideError, match="alias"):
        store.set_alias("A", alias, 1)


@pytest.mark.parametrize("project", ["", " ", " a", "a\n", "..", "x" * 81])
def test_project_that_cannot_be_named(project: str) -> None:
    with pytest.raises(ForetideError, match="expected a name of 1 to 80 printable characters"):
        check_project(project)


@pytest.mark.parametrize("project", ["ETTh1", "M3:monthly", "a/b", "50 % `'\"", "%2F", "Zürich"])
def test_escaped_project_comes_back(project: str) -> None:
    assert unescape(escape(project)) == project and not set(escape(project)) & set("/:'\"`")


def test_reading_the_file_equals_asking_mlflow(store: RunStore, log: Callable[..., str]) -> None:
    for number in (1, 2, 3):
        store.register("A:b", log(f"run-{number}"))
    store.register("C", "run-1")
    store.promote("A:b", 1)
    store.promote("A:b", 3)
    store.delete_version("A:b", 2)
    by_file, by_client = (
        [(*row[:4], sorted(row[4])) for row in rows] for rows in (store._read_file(), store._read_client())
    )
    assert by_file == by_client and len(by_file) == 3


@pytest.mark.parametrize(
    "choice",
    [
        _Choice(),
        _Choice(order="mse"),
        _Choice(order="-mse", limit=2),
        _Choice(project="B:b"),
        _Choice(prefix="run_"),
        _Choice(prefix="run-1"),
        _Choice(prefix="run-1", exact=True),
        _Choice(prefix="no"),
        _Choice(project="no"),
    ],
)
def test_listing_from_the_file_equals_asking_mlflow(store: RunStore, log: Callable[..., str], choice: _Choice) -> None:
    for run_id, mse, title in [
        ("run-1", 0.1 + 0.2, "A"),
        ("run_2", None, "A"),
        ("run-11", 1e-300, "B:b"),
        ("run-4", 2 / 3, "A"),
    ]:
        log(run_id, mse=mse, title=title)
    log("gone")
    store.delete("gone")
    with store.store.reading() as client:
        by_client = _read_client(client, choice)
    by_file = _read_file(store.store, choice)
    if choice.order == "started":
        by_file.sort()
        by_client.sort()
    assert by_file == by_client


def test_home_moved_elsewhere_still_works(tmp_path: Path, store: RunStore, log: Callable[..., str]) -> None:
    log("run-1")
    store.promote("A", store.register("A", "run-1"))
    target = tmp_path / "moved here" / ".foretide"
    target.parent.mkdir()
    shutil.move(store.home, target)
    code = (
        "import sys; from app.runs import RunStore; from forecasting.artifact import load; store = RunStore()\n"
        "print(load(store.resolve('A').artifact, weights=False).run['run_id'])\n"
        "print('mlflow' in sys.modules)\n"
        "print(store.show('run-1').artifact); store.set_alias('A', 'b', 1)\n"
        "print(store.resolve('A', 'b').artifact)"
    )
    lines = finish(python(code, FORETIDE_HOME=str(target))).splitlines()
    assert lines == ["run-1", "False", *[str(target / "artifacts" / "run-1")] * 2]
    assert not store.home.exists()


def test_two_processes_create_the_store_at_once(home: Path, tmp_path: Path, make_artifact: Make) -> None:
    code = "import sys; from app.runs import RunStore; print(RunStore().import_run(sys.argv[1]))"
    started = [python(code, make_artifact(tmp_path, name)) for name in ("run-1", "run-2")]
    assert [finish(process) for process in started] == ["run-1\n", "run-2\n"]
    assert {row.run_id for row in RunStore().runs()} == {"run-1", "run-2"}
    assert not list(home.glob(".*"))


def test_four_processes_write_at_once(store: RunStore, make_artifact: Make) -> None:
    code = (
        "import sys; from app.runs import RunStore; store = RunStore()\n"
        "for folder in sys.argv[1:]: store.promote('A', store.register('A', store.log(folder)))"
    )
    folders = [
        [make_artifact(store.home / "artifacts", f"run-{writer}-{count}") for count in range(4)] for writer in range(4)
    ]
    for process in [python(code, *own) for own in folders]:
        finish(process)
    assert len(store.runs()) == 16
    assert [version.version for version in store.versions("A")] == list(range(1, 17))
    events = store.history("A")
    assert len(events) == 16 and events[0].before is None
    assert all(event.before == before.version for before, event in pairwise(events))
    assert store.resolve("A").version == events[-1].version


def test_creation_that_was_killed_is_started_again(home: Path, make_artifact: Make, tmp_path: Path) -> None:
    folder = make_artifact(tmp_path, "run-1")
    code = "import sys; from app.runs import RunStore; print(RunStore().import_run(sys.argv[1]))"
    process = python(code, folder)
    while process.poll() is None and not list(home.glob(".part-*runs.db")):
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (home / "runs.db").exists()
    assert finish(python(code, folder)) == "run-1\n" and not list(home.glob(".*"))


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
@pytest.mark.usefixtures("hasty")
def test_locked_store_is_one_line(
    store: RunStore, log: Callable[..., str], make_artifact: Make, statement: str
) -> None:
    store.promote("A", store.register("A", log("run-1")))
    folder = make_artifact(store.home / "artifacts", "run-2")
    fresh = RunStore()
    with locked(store.home / "runs.db", statement):
        for write in (lambda: fresh.log(folder), lambda: store.promote("A", 1), lambda: store.register("B", "run-1")):
            with pytest.raises(ForetideError, match=r"runs\.db: the run store is locked by another program") as caught:
                write()
            assert str(store.home / "runs.db") in str(caught.value) and "\n" not in str(caught.value)
        assert store.resolve("A").version == 1 and len(store.runs()) == 1
    assert fresh.log(folder) == "run-2"


@pytest.mark.usefixtures("hasty")
def test_store_locked_even_for_readers(store: RunStore, log: Callable[..., str]) -> None:
    log("run-1")
    other = RunStore(store.home / "other")
    other.home.mkdir()
    with closing(sqlite3.connect(store.home / "runs.db")) as connection:
        # A copy has the older journal, in which a writer locks readers out.
        connection.execute("VACUUM INTO ?", (str(other.home / "runs.db"),))
    with locked(other.home / "runs.db", "BEGIN EXCLUSIVE"):
        for read in (other.runs, other.projects):
            with pytest.raises(ForetideError, match=r"other/runs\.db: the run store is locked by another program"):
                read()
    assert len(other.runs()) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"This is a letter and not a database. " * 100, "not an SQLite database; move it away"),
        (b"", "made by another version of MLflow"),
    ],
)
def test_file_that_is_no_store(home: Path, content: bytes, words: str) -> None:
    home.mkdir()
    (home / "runs.db").write_bytes(content)
    for read in (RunStore().runs, RunStore().projects):
        with pytest.raises(ForetideError, match=rf"runs\.db: .*{words}"):
            read()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("./mlruns", r"MLFLOW_TRACKING_URI: found './mlruns', expected sqlite:///FILE"),
        ("file:///tmp/mlruns", "expected sqlite:///FILE"),
        ("sqlite://", "expected sqlite:///FILE"),
        ("sqlite:///:memory:", "expected sqlite:///FILE"),
        ("sqlite:////tmp/a%20b.db", "a path with '%' or '\\?' cannot hold the run store"),
    ],
)
def test_tracking_uri_that_cannot_hold_a_registry(monkeypatch: pytest.MonkeyPatch, uri: str, words: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ForetideError, match=words):
        RunStore()


def test_tracking_uri_wins(
    tmp_path: Path, home: Path, empty_store: Path, make_artifact: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_store, tmp_path / "shared.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'shared.db'}")
    store = RunStore()
    store.log(make_artifact(home / "artifacts", "run-1"))
    store.promote("A", store.register("A", "run-1"))
    assert store.resolve("A").artifact == home / "artifacts" / "run-1" and not (home / "runs.db").exists()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert RunStore().projects() == []


def test_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://anna:s3cret@127.0.0.1:9")
    with pytest.raises(ForetideError, match=r"http://127\.0\.0\.1:9: the tracking server does not answer") as caught:
        RunStore().projects()
    assert "s3cret" not in str(caught.value)


def test_postgresql_holds_runs_and_models(
    postgres: str, home: Path, make_artifact: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres)
    store = RunStore()
    assert store.runs() == [] and store.projects() == []
    for name in ("run-1", "run-2"):
        store.register("A:b", store.import_run(make_artifact(home / "from", name)))
    store.promote("A:b", 1)
    store.promote("A:b", 2)
    store.rollback("A:b")
    assert store.resolve("A:b").run_id == "run-1" and store.resolve("A:b", PREVIOUS).version == 2
    assert [event.action for event in store.history("A:b")] == ["promote", "promote", "rollback"]
    assert [row.run_id for row in store.runs(project="ETTh1", order="mse")] and not (home / "runs.db").exists()


def test_statistics_are_kept_as_runs_accumulate(
    store: RunStore, log: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.runs._ANALYZE_EVERY", 3)
    has_statistics = "SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_stat1'"
    counts = []
    for number in range(4):
        log(f"run-{number}")
        counts.append(store.store.query(has_statistics)[0][0])
    assert counts == [0, 0, 1, 1]


def test_other_loggers_are_left_alone(home: Path, make_artifact: Make, tmp_path: Path) -> None:
    ours, handlers = logging.getLogger("foretide-test"), list(logging.getLogger().handlers)
    RunStore().import_run(make_artifact(tmp_path, "run-1"))
    assert not ours.disabled and logging.getLogger().handlers == handlers
