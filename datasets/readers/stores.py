"""Parquet files and folders, and tables of a database."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import files
from datasets.errors import ForetideError
from datasets.readers.options import ReaderOptions
from datasets.readers.table import RawTable, Source, assemble, listed

if TYPE_CHECKING:
    import polars as pl
    import sqlalchemy


def read_parquet(path: Path, options: ReaderOptions) -> RawTable:
    """Reads a Parquet file, or all those below a folder as one table in the order of their names.

    Only the columns that have a part are read.

    Raises:
        ForetideError: The folder holds no Parquet file, or one cannot be read.
    """
    import polars as pl

    parts = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not parts:
        raise ForetideError(
            f"{path}: the folder holds no Parquet file and is no Zarr store; name a file, or a folder of *.parquet"
        )
    try:
        lazy = pl.scan_parquet(parts, glob=False)
        return assemble(Source(lazy, path.name, _checksum(parts, path), title=path.stem), options)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ForetideError(f"{path.name}: cannot be read as Parquet: {str(error).splitlines()[0]}") from error


def read_database(url: str, options: ReaderOptions) -> RawTable:
    """Reads a table, or the result of one SELECT, over a read-only connection.

    Args:
        url: SQLAlchemy URL, such as ``sqlite:///plant.db`` or ``postgresql+psycopg://user@host/plant``.

    Raises:
        ForetideError: No table is named or it does not exist, the query is no single SELECT, or the database cannot be
            reached.
    """
    import polars as pl
    from polars import selectors

    with _connected(url) as (connection, name):
        frame = pl.read_database(_query(connection, options.table, name), connection, infer_schema_length=None)
    # The zone of a stamp is that of the session, which says nothing about the data.
    frame = frame.with_columns(selectors.datetime(time_zone="*").dt.convert_time_zone("UTC"))
    title = options.table if options.table and _is_name(options.table) else name.rsplit("/", 1)[-1]
    return assemble(
        Source(frame.lazy(), f"{name} ({title})" if title != name else name, frame_checksum(frame), title=title),
        options,
    )


def frame_checksum(frame: "pl.DataFrame") -> str:
    """sha256 of the names and the values of a frame, as CSV text."""
    return hashlib.sha256(frame.write_csv().encode()).hexdigest()


def _checksum(parts: list[Path], root: Path) -> str:
    if root.is_file():
        return files.sha256(root)
    lines = [f"{files.sha256(part)}  {part.relative_to(root).as_posix()}\n" for part in parts]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@contextmanager
def _connected(url: str) -> "Iterator[tuple[sqlalchemy.Connection, str]]":
    import sqlalchemy as sa

    try:
        parsed = sa.make_url(url)
        engine = sa.create_engine(parsed)
    except ImportError as error:
        raise ForetideError(
            f"{url.split(':', 1)[0]}: the database driver {error.name!r} is not installed; pip install it, "
            "or use postgresql+psycopg:// for PostgreSQL"
        ) from error
    except sa.exc.SQLAlchemyError as error:
        raise ForetideError(
            "the database URL cannot be read; expected for example sqlite:///file.db or "
            "postgresql+psycopg://user@host/database"
        ) from error
    name = parsed.render_as_string(hide_password=True)
    if parsed.get_backend_name() == "sqlite" and parsed.database and not Path(parsed.database).is_file():
        raise ForetideError(
            f"{name}: there is no such database file; check the path (an absolute one has four slashes)"
        )
    try:
        with engine.connect() as connection:
            _forbid_writing(connection)
            yield connection, name
    except sa.exc.SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise ForetideError(f"{name}: the database refuses: {reason}") from error
    finally:
        engine.dispose()


def _forbid_writing(connection: "sqlalchemy.Connection") -> None:
    import sqlalchemy as sa

    commands = {"sqlite": "PRAGMA query_only = ON", "postgresql": "SET TRANSACTION READ ONLY"}
    command = commands.get(connection.dialect.name)
    if command:
        connection.execute(sa.text(command))


def _is_name(text: str) -> bool:
    return not re.search(r"\s", text.strip())


def _query(connection: "sqlalchemy.Connection", table: str | None, where: str) -> Any:
    import sqlalchemy as sa

    if table is not None and not _is_name(table):
        statement = table.strip().removesuffix(";").rstrip()
        if not re.match(r"select\s", statement, re.IGNORECASE) or ";" in statement:
            raise ForetideError(f"reader.table: found {table!r}, expected the name of a table or one SELECT statement")
        return sa.text(statement)
    inspector = sa.inspect(connection)
    schema, _, short = (table or "").strip().rpartition(".")
    names = [*inspector.get_table_names(schema or None), *inspector.get_view_names(schema or None)]
    if short not in names:
        found = f"there is no table {table!r}" if table else "name the table with --reader.table"
        expected = f"expected one of {listed(sorted(names))}" if names else "the database holds no table"
        raise ForetideError(f"{where}: {found}; {expected}")
    return sa.select(sa.text("*")).select_from(sa.table(short, schema=schema or None))
