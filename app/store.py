"""One quiet, careful way to MLflow's database: created once, locked politely, and failing in one line.

MLflow costs more than a second to import. It is imported at the first write or search; what a forecast needs to know
(which artifact is the champion) is read from SQLite directly.
"""

import logging
import os
import secrets
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from datasets.errors import ForetideError
from datasets.files import atomic_path, write_error

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SERVERS = ("http", "https", "postgresql", "mysql", "mssql")
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
_WAIT = 3.0
_LOCK_WAIT = 60.0
_UPGRADE = "the run store was made by another version of MLflow; keep a copy, then run 'mlflow db upgrade' on it"
_TROUBLES = {
    "is locked": "the run store is locked by another program; close it, or wait until it has finished, and try again",
    "readonly database": "the run store cannot be written; see to the permissions of this file and its folder",
    "disk is full": "the disk is full; free some space and try again",
    "disk i/o error": "the disk reports an input/output error; see to the disk, or set FORETIDE_HOME to another folder",
    "not a database": "found something that is not an SQLite database; move it away, and a new run store will be made",
    "malformed": "the run store is damaged; restore it from a copy, or move it away and import the artifacts again",
    "unable to open database": "the run store cannot be opened; see to the permissions of this file and its folder",
    "out-of-date database schema": _UPGRADE,
    "no such": _UPGRADE,
    "api request to": "the tracking server does not answer; start it, or unset MLFLOW_TRACKING_URI",
    "connection": "the tracking server does not answer; start it, or unset MLFLOW_TRACKING_URI",
}


class Store:
    """The database of runs and models: SQLite in the home folder, or what ``MLFLOW_TRACKING_URI`` names.

    Args:
        home: Absolute path of the folder that holds ``runs.db``.
    """

    def __init__(self, home: Path) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'runs.db'}"
        self.database = _database_file(uri)
        self.uri = uri if self.database is None else f"sqlite:///{self.database}"
        self._client: MlflowClient | None = None

    @property
    def name(self) -> str:
        """What to call the store in a message, without a password."""
        return str(self.database) if self.database else urlsplit(self.uri)._replace(netloc=_host(self.uri)).geturl()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever stored, so that reading need not create anything."""
        return self.database is not None and not self.database.exists()

    @contextmanager
    def reading(self) -> "Iterator[MlflowClient]":
        """Yields the client; a problem with the database becomes one line."""
        with self._explained():
            if self.database is not None:
                self.query("SELECT version_num FROM alembic_version")
            yield self._connect()

    @contextmanager
    def writing(self) -> "Iterator[MlflowClient]":
        """Yields the client while no other Foretide process writes; creates the database at the first call."""
        if self.database is None:
            with self._explained():
                yield self._connect()
            return
        with self._locked(self.database), self._explained():
            if not self.database.exists():
                _create(self.database)
            # MLflow would wait 20 seconds for a foreign lock, and then log a traceback.
            with closing(sqlite3.connect(self.database, timeout=_WAIT, isolation_level=None)) as probe:
                probe.execute("BEGIN IMMEDIATE")
                probe.execute("ROLLBACK")
            yield self._connect()

    def query(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Rows of a read-only query on the SQLite file, without MLflow."""
        with self._explained(), closing(self._open_to_read()) as connection:
            return connection.execute(statement, values).fetchall()

    def analyze(self) -> None:
        """Refreshes SQLite's statistics, without which MLflow's search takes seconds at 10,000 runs."""
        if self.database is not None:
            with self._explained(), closing(sqlite3.connect(self.database, timeout=_WAIT)) as connection:
                connection.execute("ANALYZE")

    def _open_to_read(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{quote(str(self.database))}?mode=ro", uri=True, timeout=_WAIT)

    def _connect(self) -> "MlflowClient":
        if self._client is None:
            self._client = _quiet_client(self.uri)
        return self._client

    @contextmanager
    def _locked(self, database: Path) -> Iterator[None]:
        from filelock import FileLock, Timeout

        lock = FileLock(database.with_name(f"{database.name}.lock"))
        try:
            database.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=_LOCK_WAIT)
        except Timeout as error:
            raise ForetideError(
                f"{lock.lock_file}: held by another Foretide process for {_LOCK_WAIT:.0f} s; "
                "wait until that one has finished, or end it, and try again"
            ) from error
        except OSError as error:
            raise write_error(error, database) or error from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._explain(error) or error from error
        except Exception as error:
            # The class lives in MLflow, which may not even be loaded.
            known = type(error).__name__ in ("MlflowException", "OperationalError")
            if known and (explained := self._explain(error)):
                raise explained from error
            raise

    def _explain(self, error: Exception) -> ForetideError | None:
        text = str(error).lower()
        remedy = next((remedy for sign, remedy in _TROUBLES.items() if sign in text), None)
        return ForetideError(f"{self.name}: {remedy}") if remedy else None


def _database_file(uri: str) -> Path | None:
    """The file behind an SQLite URI, or None for a server; anything else cannot hold a registry."""
    scheme = uri.split(":", 1)[0].split("+")[0]
    if scheme in _SERVERS and "://" in uri:
        return None
    name = uri.removeprefix("sqlite:///")
    if name in (uri, "", ":memory:"):
        raise ForetideError(
            f"MLFLOW_TRACKING_URI: found {uri!r}, expected sqlite:///FILE, postgresql://… or http://…; "
            "unset it to keep the runs under FORETIDE_HOME"
        )
    # SQLAlchemy decodes the path and MLflow does not: they would make two different files.
    if "%" in name or "?" in name:
        raise ForetideError(
            f"{name}: a path with '%' or '?' cannot hold the run store; set FORETIDE_HOME to another folder"
        )
    return Path(name).absolute()


def _host(uri: str) -> str:
    parts = urlsplit(uri)
    return (parts.hostname or "") + (f":{parts.port}" if parts.port else "")


def _quiet_client(uri: str) -> "MlflowClient":
    # The client reports usage over the network, waits minutes for a dead server, and prints progress of its own.
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", message=".*noload.*")
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _create(database: Path) -> None:
    """Makes the database beside its place and renames it, so that a crash leaves no half-migrated one."""
    # The lock is held, so what lies here under this name was left by a process that was killed.
    for stale in database.parent.glob(f".part-*-{database.name}*"):
        stale.unlink()
    scratch = database.with_name(f".part-{secrets.token_hex(4)}-{database.name}")
    try:
        _quiet_client(f"sqlite:///{scratch}").search_experiments(max_results=1)
        with atomic_path(database) as temporary:
            with closing(sqlite3.connect(scratch)) as connection:
                connection.execute("VACUUM INTO ?", (str(temporary),))
            with closing(sqlite3.connect(temporary)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
    finally:
        with suppress(OSError):
            scratch.unlink()
