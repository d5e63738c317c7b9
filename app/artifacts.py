"""Artifacts on the move: into the home folder, out to an archive, and back."""

import gzip
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath

from app.home import home as home_folder
from datasets.errors import ForetideError
from datasets.files import atomic_path
from forecasting.artifact import RUN, SUMS, load, verify

ARCHIVES = (".tar.gz", ".tgz")
_MOST_FILES = 64


def artifact_folder(run_id: str, home: Path | None = None) -> Path:
    """Where the artifact of a run lives: ``<home>/artifacts/<run_id>``."""
    return (home or home_folder()) / "artifacts" / run_id


def bring_home(source: str | Path, home: Path | None = None) -> Path:
    """Checks an artifact made elsewhere and copies it to ``<home>/artifacts/<run_id>``.

    Args:
        source: The folder of the artifact, or an archive of it (.tar.gz).

    Returns:
        The folder in the home; the one that is there already when the same artifact came before.

    Raises:
        ForetideError: The artifact is not whole, or another one has the same run identifier.
    """
    origin = Path(source)
    if not origin.is_dir():
        with tempfile.TemporaryDirectory(prefix="foretide-") as scratch:
            return bring_home(import_archive(origin, Path(scratch) / "artifact"), home)
    target = artifact_folder(load(origin, weights=False).run["run_id"], home)
    if not _same(origin, target):
        try:
            import_archive(origin, target)
        except ForetideError:
            # Somebody else may have brought the same artifact in the meantime.
            if not _same(origin, target):
                raise
    return target


def artifacts_in(source: str | Path) -> list[Path]:
    """The artifact at ``source``, or those in the sub-folders of a folder that is none itself."""
    folder = Path(source)
    if (folder / SUMS).exists() or not folder.is_dir():
        return [folder]
    inner = [path.parent for path in folder.glob(f"*/{SUMS}") if not path.parent.name.startswith(".")]
    return sorted(inner) or [folder]


def export_archive(folder: str | Path, target: str | Path) -> Path:
    """Packs an artifact into one .tar.gz, the same bytes for the same artifact.

    Raises:
        ForetideError: The artifact is not whole, or the target has another suffix or cannot be written.
    """
    root, archive = Path(folder), Path(target)
    if not archive.name.endswith(ARCHIVES):
        raise ForetideError(f"{archive}: expected a name that ends in {' or '.join(ARCHIVES)}")
    run_id = load(root).run["run_id"]
    with (
        atomic_path(archive) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in [SUMS, *sorted(verify(root))]:
            entry = tarfile.TarInfo(f"{run_id}/{name}")
            entry.size, entry.mode = (root / name).stat().st_size, 0o644
            with (root / name).open("rb") as file:
                tar.addfile(entry, file)
    return archive


def import_archive(source: str | Path, target: str | Path) -> Path:
    """Copies an artifact from a folder or a .tar.gz to the folder ``target``, checked before it appears there.

    Only plain files that lie side by side are taken; a link, a device or a path that leads elsewhere is refused.

    Raises:
        ForetideError: The source is not there, not an artifact, not whole, or tries to write elsewhere.
    """
    origin, folder = Path(source), Path(target)
    if not origin.exists():
        raise ForetideError(f"{origin}: found nothing, expected the folder of an artifact or an archive of it")
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        if origin.is_dir():
            for name in [SUMS, *verify(origin)]:
                shutil.copyfile(origin / name, temporary / name)
        else:
            _extract(origin, temporary)
        _check_copy(temporary, origin)
    return folder


def _check_copy(copy: Path, origin: Path) -> None:
    try:
        load(copy)
    except ForetideError as error:
        raise ForetideError(str(error).replace(str(copy), str(origin))) from error
    listed = {SUMS, *verify(copy)}
    for stray in [path for path in copy.iterdir() if path.name not in listed]:
        stray.unlink()


def _extract(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive, mode="r:gz") as tar:
            for count, entry in enumerate(tar):
                if count > _MOST_FILES:
                    raise ForetideError(f"{archive}: found more than {_MOST_FILES} files, expected one artifact")
                file = None if entry.isdir() else tar.extractfile(_plain_file(archive, entry))
                if file is not None:
                    with file, (folder / PurePosixPath(entry.name).name).open("wb") as copy:
                        shutil.copyfileobj(file, copy)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ForetideError(
            f"{archive}: is not readable as .tar.gz ({error}); the file is truncated or something else: copy it again"
        ) from error


def _plain_file(archive: Path, entry: tarfile.TarInfo) -> tarfile.TarInfo:
    path = PurePosixPath(entry.name)
    parts = [part for part in path.parts if part != "."]
    if path.is_absolute() or ".." in parts or "\\" in entry.name or len(parts) > 2:
        raise ForetideError(
            f"{archive}: {entry.name!r} leads out of the artifact's folder; an archive like this is not unpacked"
        )
    if not entry.isfile():
        raise ForetideError(
            f"{archive}: {entry.name!r} is a link or device, expected plain files; an archive like this is not unpacked"
        )
    return entry


def _same(origin: Path, target: Path) -> bool:
    """Whether ``target`` holds the artifact of ``origin``; another one under the same identifier is an error."""
    if not target.exists():
        return False
    verify(target)
    if (target / SUMS).read_bytes() != (origin / SUMS).read_bytes():
        raise ForetideError(
            f"{origin / RUN}: run_id: {target.name!r} names another run in {target.parent}; "
            "delete that one first, if it is not needed"
        )
    return True
