"""Writing files and folders whole or not at all, and checksums."""

import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from datasets.errors import ForetideError

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EFBIG: "the file outgrew the size that is allowed here; raise the limit (ulimit -f)",
    errno.EACCES: "permission denied; choose a folder that you may write to",
    errno.EPERM: "not permitted; choose a folder that you may write to",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another path",
    errno.EISDIR: "a folder stands at this path; name a file in it, or another path",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ENOENT: "the folder does not exist; create it or choose another path",
    errno.ELOOP: "symbolic links go round in a circle; choose another path",
    errno.EEXIST: "something stands at this path already; choose another path, or remove it",
    errno.ENOTEMPTY: "a folder stands at this path already; choose another path, or remove it",
    errno.EBUSY: "the system holds this path; choose another one",
    errno.EIO: "the disk reports an input/output error; choose another folder",
}
_SPACE = {"no space left on device": errno.ENOSPC, "disk quota exceeded": errno.EDQUOT, "file too large": errno.EFBIG}


@contextmanager
def atomic_path(target: str | Path, *, replace_folder: bool = False) -> Iterator[Path]:
    """Yields a temporary sibling of ``target`` that becomes ``target`` on success and vanishes on failure.

    The caller makes a file or a folder at the yielded path, whose name ends like the target's, so that writers
    that go by the suffix work. Missing parent folders are created, and removed again on failure. A file at
    ``target`` is replaced in one step; a symbolic link is followed.

    Args:
        target: The file or folder to be written.
        replace_folder: Whether a folder at ``target`` that is not empty may be replaced, contents and all.

    Raises:
        ForetideError: The path cannot be written, the disk is full, or something that must not be replaced
            stands there.
    """
    final = Path(os.path.realpath(target))
    made: list[Path] = []
    temporary = _sibling(final, "part")
    try:
        _refuse_special(final, target)
        _make_parents(final.parent, made)
        yield temporary
        for item in [temporary, *temporary.rglob("*")] if temporary.is_dir() else [temporary]:
            _flush(item)
        _rename(temporary, final, replace_folder)
        _flush(final.parent)
    except BaseException as error:
        explained = write_error(error, target, temporary) if isinstance(error, Exception) else None
        _remove(temporary)
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()
        if explained is None:
            raise
        raise explained from error


def ensure_writable(target: str | Path) -> None:
    """Finds out before long work whether ``target`` can be written, and leaves nothing behind.

    Raises:
        ForetideError: As ``atomic_path``, of which this is the rehearsal.
    """
    final = Path(os.path.realpath(target))
    made: list[Path] = []
    probe = _sibling(final, "probe")
    try:
        _refuse_special(final, target)
        _make_parents(final.parent, made)
        probe.touch()
    except OSError as error:
        raise write_error(error, target, probe) or error from error
    finally:
        _remove(probe)
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()


def write_error(error: Exception, target: str | Path, temporary: Path | None = None) -> ForetideError | None:
    """The one-line error for a failed write, or None when ``error`` is about something else.

    Libraries that write through their own code report a full disk as other exceptions; their text gives it away.
    """
    if isinstance(error, ForetideError):
        return None
    code = next((code for text, code in _SPACE.items() if text in str(error).lower()), None)
    if code is None and isinstance(error, OSError) and _concerns(error, Path(target), temporary):
        code = error.errno
    if code is None and not isinstance(error, OSError) and temporary is not None and _disk_is_full(temporary.parent):
        code = errno.ENOSPC
    if code in _REMEDIES:
        return ForetideError(f"{target}: cannot be written: {_REMEDIES[code]}")
    cause = error.__cause__ or error.__context__
    return write_error(cause, target, temporary) if isinstance(cause, Exception) else None


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _concerns(error: OSError, target: Path, temporary: Path | None) -> bool:
    # An error in the caller's body may be about an input that it reads; that one must not be blamed on the output.
    if not isinstance(error.filename, (str, os.PathLike)):
        return True
    final = Path(os.path.realpath(target))
    found = Path(os.path.realpath(error.filename))
    own = [final] if temporary is None else [final, temporary]
    return any(found == path or path in found.parents or found in path.parents for path in own)


def _disk_is_full(folder: Path) -> bool:
    with suppress(OSError):
        return shutil.disk_usage(folder).free < 65536
    return False


def _refuse_special(final: Path, target: str | Path) -> None:
    # Renaming onto a device or a pipe would remove it from the system.
    with suppress(FileNotFoundError, NotADirectoryError):
        mode = final.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise ForetideError(f"{target}: found a device or pipe, expected a file or folder; choose another path")


def _make_parents(folder: Path, made: list[Path]) -> None:
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        with suppress(FileExistsError):
            path.mkdir()
            made.append(path)


def _sibling(final: Path, mark: str) -> Path:
    return final.parent / f".{mark}-{secrets.token_hex(4)}-{final.name[-200:]}"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename(temporary: Path, final: Path, replace_folder: bool) -> None:
    if not (temporary.is_dir() and final.is_dir() and replace_folder):
        os.replace(temporary, final)
        return
    old = _sibling(final, "old")
    os.replace(final, old)
    try:
        os.replace(temporary, final)
    except OSError:
        os.replace(old, final)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        path.unlink()
