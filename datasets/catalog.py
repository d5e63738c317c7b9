"""The standard datasets by name: file, shape, frequency, published split, quirks of the protocol, licence, checksum.

The entries themselves are data, in ``catalog.yaml`` beside this module. Files are found under ``FORETIDE_DATA``;
nothing is ever downloaded.
"""

import difflib
import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Literal, cast

import yaml

from datasets.errors import ForetideError
from datasets.options import build
from datasets.splits import Ratio, Split

SAMPLE = Path(__file__).parent / "sample"


@dataclass(frozen=True)
class Group:
    """One part of a forecasting competition: series of one frequency with one horizon.

    Args:
        series: Number of series.
        frequency: pandas offset alias of the stamps, which are made up.
        season: Seasonal period in rows, as the organisers score.
        horizon: Rows of the official test part of every series.
        files: Names and checksums of files of the group's own, where it has them.
    """

    name: str
    series: int
    frequency: str
    season: int
    horizon: int
    files: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One dataset of the catalogue.

    Args:
        name: What a config or a command line calls it.
        title: One line for people.
        path: Usual path of the file, or folder, below ``FORETIDE_DATA``; it may be gzipped.
        form: ``wide`` (a column for each variate), ``long`` (many series) or ``field`` (a grid).
        rows: Rows of a table, time steps of a grid, values of a competition; None where parts are not at hand.
        variates: Columns that are forecast; 1 for long forms and grids.
        series, grid: Number of series in a long table; latitudes and longitudes of a grid.
        frequency, season: pandas offset alias, and the usual seasonal period in rows; a competition has them by group.
        calendar: Frequency whose calendar features the published runs used, where it is not that of the dataset.
        split: Published borders; None where none are fixed, and for competitions.
        reader: Options of the reader (`datasets.readers.ReaderOptions`).
        start: First time stamp of a bare array, which holds none.
        keys: Columns that together name a series.
        groups: Parts of a competition.
        quirks: What one must know to compare with published scores, in short sentences.
        publisher: Who offers the file.
        sha256: Checksum of the uncompressed content; None where the file was not at hand.
        time_zone: IANA name of the local time that people live by, where it matters.
    """

    name: str
    title: str
    path: str
    form: Literal["wide", "long", "field"]
    licence: str
    publisher: str
    variates: int
    rows: int | None = None
    series: int = 1
    grid: tuple[int, ...] = ()
    frequency: str = ""
    season: int = 1
    calendar: str | None = None
    split: Split | Ratio | None = None
    reader: dict[str, Any] = field(default_factory=dict)
    start: str | None = None
    keys: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    quirks: tuple[str, ...] = ()
    sha256: str | None = None
    time_zone: str = ""

    @property
    def competition(self) -> bool:
        """Whether this is a forecasting competition, which `datasets.competitions` reads group by group."""
        return bool(self.groups)

    @property
    def own_format(self) -> bool:
        """Whether `datasets.formats` reads the file, rather than a general reader."""
        return bool(self.groups or self.start or self.keys)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Rows and columns; rows, latitudes and longitudes of a grid."""
        return (self.rows, *(self.grid or (self.variates,)))

    def group(self, name: str | None) -> Group:
        """The part of a competition by its name, in any case.

        Raises:
            ForetideError: No such part, or none named where there are several.
        """
        found = next((group for group in self.groups if name and group.name == name.lower()), None)
        if found is None:
            choices = ", ".join(f"{self.name}:{group.name}" for group in self.groups)
            expected = f"one of {choices}" if choices else f"{self.name} alone, which has no groups"
            raise ForetideError(f"data: found {f'{self.name}:{name}' if name else self.name!r}, expected {expected}")
        return found


def find(name: str) -> Entry:
    """The entry of a dataset by its name, in any case; a group may follow a colon, as in ``M4:hourly``.

    Raises:
        ForetideError: Unknown name, with those that are close, or unknown group.
    """
    wanted, _, group = name.partition(":")
    by_lower = {known.lower(): entry for known, entry in ENTRIES.items()}
    entry = by_lower.get(wanted.lower())
    if entry is None:
        close = [by_lower[match].name for match in difflib.get_close_matches(wanted.lower(), by_lower, n=3, cutoff=0.5)]
        hint = f"did you mean {' or '.join(close)}?" if close else f"expected one of {', '.join(ENTRIES)}"
        raise ForetideError(f"data: there is no dataset {name!r} in the catalogue; {hint}")
    if group:
        entry.group(group)
    return entry


def known(data: str) -> Entry | None:
    """The entry that a ``--data`` value names, a group after a colon included, or None for a file."""
    name = data.partition(":")[0].lower()
    return next((entry for entry in ENTRIES.values() if entry.name.lower() == name), None)


def data_root() -> Path:
    """The folder that holds the datasets: ``FORETIDE_DATA``, or else ``data`` under ``FORETIDE_HOME``."""
    named = os.environ.get("FORETIDE_DATA")
    return Path(named) if named else Path(os.environ.get("FORETIDE_HOME") or ".foretide") / "data"


def locate(entry: Entry) -> Path:
    """The file or folder of a dataset; the sample that ships with Foretide stands in for a missing ETTh1.

    Raises:
        ForetideError: It is not there; says who offers it and where to put it.
    """
    root = data_root()
    for folder in (root, SAMPLE):
        found = next((path for path in _places(folder, entry.path) if path.exists()), None)
        if found is not None:
            return found
    raise ForetideError(
        f"{entry.name}: {root / entry.path} does not exist, nor does it with .gz; get it from its "
        f"publisher ({entry.publisher}) and put it there, or set FORETIDE_DATA to another folder"
    )


def verify(entry: Entry, path: Path) -> None:
    """Compares a file with the checksum of its entry, or every file of a folder that has one.

    Args:
        path: What `locate` returned; plain or gzipped.

    Raises:
        ForetideError: The content is another one, or a gzip file is damaged.
    """
    for file, expected in _checksums(entry, path):
        found = checksum(file)
        if found != expected:
            raise ForetideError(
                f"{file}: the sha256 of its content is {found}, expected {expected} for {entry.name}; "
                f"get the file again from its publisher ({entry.publisher})"
            )


def checksum(*paths: Path) -> str:
    """SHA-256 of the uncompressed content of a file, or of several behind one another."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with open_content(path) as content:
                while block := content.read(1 << 20):
                    digest.update(block)
        except (OSError, EOFError, zlib.error) as error:
            raise ForetideError(f"{path}: cannot be read ({error}); expected a whole file, plain or gzipped") from error
    return digest.hexdigest()


def open_content(path: Path) -> BinaryIO:
    """Opens a file for reading bytes, through gzip where its name ends in ``.gz``."""
    return cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else open(path, "rb"))


def member(folder: Path, name: str) -> Path | None:
    """A file of a folder, plain or gzipped, or None."""
    return next((path for path in _places(folder, name) if path.is_file()), None)


def _places(folder: Path, path: str) -> Iterator[Path]:
    for relative in (path, Path(path).name):
        yield folder / relative
        yield folder / f"{relative}.gz"


def _checksums(entry: Entry, path: Path) -> Iterator[tuple[Path, str]]:
    if entry.sha256 is not None:
        yield path, entry.sha256
    for group in entry.groups:
        for name, expected in group.files.items():
            file = member(path, name)
            if file is not None and expected is not None:
                yield file, expected


def _read() -> Mapping[str, Entry]:
    # The C parser is four times as fast; a build of PyYAML may lack it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = yaml.load(text, Loader=loader)
    entries = {name: build(Entry, {"name": name} | values, f"catalog.yaml: {name}") for name, values in found.items()}
    return MappingProxyType(entries)


ENTRIES: Mapping[str, Entry] = _read()
