"""Delimited text: plain or gzipped, any encoding, any delimiter."""

import csv
import gzip
import hashlib
import io
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import files
from datasets.errors import ForetideError
from datasets.readers.options import ReaderOptions
from datasets.readers.table import RawTable, Source, assemble

if TYPE_CHECKING:
    import polars as pl

_DELIMITERS = (",", ";", "\t", "|")
_HEAD = 1 << 16


def read(path: Path, options: ReaderOptions) -> RawTable:
    """Reads a delimited text file.

    Plain UTF-8 is scanned from the disk; anything else is decompressed and decoded in memory first.

    Raises:
        ForetideError: An empty file, a wrong encoding, a damaged gzip file, a row with too many cells, or a column that
            occurs twice.
    """
    import polars as pl

    utf8 = options.encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")
    if utf8 and not is_gzip(path):
        content: Path | bytes = path
        checksum = files.sha256(path)
        with open(path, "rb") as file:
            head = file.read(_HEAD) + file.readline()
    else:
        raw = decompressed(path)
        checksum = hashlib.sha256(raw).hexdigest()
        content = raw if utf8 else _decoded(raw, options.encoding, path.name)
        head = content[: max(_HEAD, content.find(b"\n") + 1)]
    lines = _first_lines(head, path.name)
    delimiter = options.delimiter or _delimiter(lines)
    blank = next(at for at, line in enumerate(lines) if line.strip())
    header = None if options.start else _header(lines[blank], delimiter, path.name)
    lazy = _scan(content, delimiter, header)
    source = Source(lazy, path.name, checksum, blank + (1 if header is None else 2), plain_name(path), blank_lines=True)
    try:
        return assemble(_with_stamps(source, options) if options.start else source, options)
    except pl.exceptions.PolarsError as error:
        raise _explained(error, content, delimiter, len(header or ()), path.name) from error


def decompressed(path: Path) -> bytes:
    """The content of a file, gunzipped where it is gzip."""
    if not is_gzip(path):
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (EOFError, OSError, zlib.error) as error:
        raise ForetideError(
            f"{path.name}: the gzip file is damaged or cut short ({error}); fetch or copy it again"
        ) from error


def is_gzip(path: Path) -> bool:
    """Whether a file starts as gzip does, whatever its name."""
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def plain_name(path: Path) -> str:
    """The name of a file without ``.gz`` and its other suffix."""
    name = path.name.removesuffix(".gz")
    return name.rsplit(".", 1)[0] if "." in name[1:] else name


def _decoded(raw: bytes, encoding: str, where: str) -> bytes:
    try:
        return raw.decode(encoding).removeprefix("\ufeff").encode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ForetideError(
            f"{where}: line {line} is not {encoding} (byte 0x{raw[error.start]:02x}); "
            "give the encoding of the file with --reader.encoding, for example latin-1 or cp1252"
        ) from error


def _first_lines(head: bytes, where: str) -> list[str]:
    if not head.strip():
        raise ForetideError(f"{where}: the file is empty; expected a header line and rows of data")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ForetideError(f"{where}: the file is UTF-16; read it with --reader.encoding utf-16")
    if b"\0" in head:
        raise ForetideError(
            f"{where}: found binary data, expected text (CSV), Parquet, NetCDF or Zarr; convert the file to one of them"
        )
    whole = head[: head.rfind(b"\n") + 1] or head
    text = _decoded(whole, "utf-8", where).decode()
    if "\n" not in text and "\r" in text.strip():
        raise ForetideError(f"{where}: lines end in a carriage return alone; save it with line ends of Unix or Windows")
    lines = [line.rstrip("\r") for line in text.split("\n")]
    return lines[:-1] if len(lines) > 1 and lines[0].strip() else lines


def _delimiter(lines: list[str]) -> str:
    """The delimiter that cuts the first lines into the same number of cells, the larger number winning."""
    some = [line for line in lines if line.strip()][:20]
    best, most = ",", (False, 1)
    for candidate in _DELIMITERS:
        counts = [len(cells) for cells in csv.reader(some, delimiter=candidate)]
        score = (len(set(counts)) == 1, counts[0])
        if counts[0] > 1 and score > most:
            best, most = candidate, score
    return best


def _header(line: str, delimiter: str, where: str) -> list[str]:
    names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter))]
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise ForetideError(f"{where}: line 1 names the column {twice!r} twice; rename one of them")
    if all(_is_number(name) for name in names):
        raise ForetideError(
            f"{where}: line 1 holds numbers ({names[0]}, …), expected the names of the columns; add a header line, "
            "or give --reader.start and --reader.frequency for a file without header and time stamps"
        )
    return [name or " " * position for position, name in enumerate(names)]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _scan(content: Path | bytes, delimiter: str, header: list[str] | None) -> "pl.LazyFrame":
    import polars as pl

    source = content if isinstance(content, Path) else io.BytesIO(content)
    if header is None:
        return pl.scan_csv(source, separator=delimiter, infer_schema=False, glob=False, has_header=False)
    return pl.scan_csv(source, separator=delimiter, infer_schema=False, glob=False, new_columns=header)


def _with_stamps(source: Source, options: ReaderOptions) -> Source:
    """Numbers the columns from 0 and puts a column ``time`` of regular stamps before them."""
    import pandas as pd
    import polars as pl

    frame = source.lazy.collect()
    try:
        times = pd.date_range(pd.Timestamp(options.start), periods=frame.height, freq=options.frequency)
    except ValueError as error:
        raise ForetideError(f"reader.start: found {options.start!r}, expected a date such as 2006-01-01") from error
    frame.columns = [str(at) for at in range(frame.width)]
    frame.insert_column(0, pl.Series("time", times.to_numpy().astype("datetime64[ns]")))
    return replace(source, lazy=frame.lazy(), blank_lines=False)


def _explained(error: Exception, content: Path | bytes, delimiter: str, width: int, where: str) -> ForetideError:
    """What is wrong with a file that the parser refuses, in one line."""
    text = str(error)
    raw = content.read_bytes() if isinstance(content, Path) else content
    if "utf-8" in text.lower():
        try:
            _decoded(raw, "utf-8", where)
        except ForetideError as found:
            return found
    if "more fields" in text:
        for number, cells in enumerate(
            csv.reader(io.StringIO(raw.decode("utf-8-sig", "replace")), delimiter=delimiter), start=1
        ):
            if len(cells) > width:
                return ForetideError(
                    f"{where}: row {number} has {len(cells)} cells, expected {width} as in the header; mend the row, "
                    f"or give --reader.delimiter (read with {delimiter!r})"
                )
    if "escaped" in text or "malformed" in text:
        odd = [number for number, line in enumerate(raw.split(b"\n"), start=1) if line.count(b'"') % 2]
        row = f"row {odd[0]}" if odd else "a row"
        return ForetideError(f"{where}: {row} has a quotation mark without its pair; mend the file")
    return ForetideError(f"{where}: the file cannot be read as delimited text: {text.splitlines()[0]}")
