"""Files and folders are written whole or not at all."""

import hashlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from datasets.errors import ForetideError
from datasets.files import atomic_path, ensure_writable, sha256

ROOT = Path(__file__).parents[2]


def left_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_file_appears_only_on_success(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "forecast.parquet"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert temporary.parent == target.parent and temporary.suffix == ".parquet"
        assert not target.exists()
    assert target.read_text() == "new" and left_in(tmp_path) == {"deep", "deep/forecast.parquet"}


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_failure_leaves_the_old_file_and_no_trace(tmp_path: Path, failure: type[BaseException]) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write(path: Path) -> None:
        with atomic_path(path) as temporary:
            temporary.mkdir()
            (temporary / "part").write_text("half")
            raise failure

    for path in (target, tmp_path / "new" / "folder"):
        with pytest.raises(failure):
            write(path)
    assert target.read_text() == "old" and left_in(tmp_path) == {"a.txt"}


def test_folder_is_replaced_only_when_asked(tmp_path: Path) -> None:
    target = tmp_path / "run"
    target.mkdir()
    (target / "precious").touch()
    with pytest.raises(ForetideError, match="a folder stands at this path already"), atomic_path(target) as temporary:
        temporary.mkdir()
    assert left_in(tmp_path) == {"run", "run/precious"}
    with atomic_path(target, replace_folder=True) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert left_in(tmp_path) == {"run", "run/new"}


def test_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with atomic_path(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("taken/file", "a part of the path is a file"),
        ("folder", "a folder stands at this path"),
        ("x" * 300, "the name is too long"),
        ("/dev/full", "found a device or pipe"),
        ("/proc/none/file", "the folder does not exist"),
    ],
)
def test_unwritable_target(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "taken").touch()
    (tmp_path / "folder").mkdir()
    before = left_in(tmp_path)
    with pytest.raises(ForetideError, match=reason) as caught, atomic_path(tmp_path / name) as temporary:
        temporary.touch()
    assert "\n" not in str(caught.value) and str(tmp_path / name) in str(caught.value)
    assert left_in(tmp_path) == before
    if name != "folder":
        with pytest.raises(ForetideError, match=reason):
            ensure_writable(tmp_path / name)


def test_rehearsal_leaves_nothing(tmp_path: Path) -> None:
    ensure_writable(tmp_path / "a" / "b" / "c.nc")
    assert left_in(tmp_path) == set()


@pytest.fixture
def common_user() -> Iterator[None]:
    """Gives up the rights of root, who may write anywhere, for the length of a test."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    yield
    os.seteuid(own)


@pytest.mark.usefixtures("common_user")
def test_folder_without_permission() -> None:
    with pytest.raises(ForetideError, match="permission denied"), atomic_path("/usr/foretide/a") as temporary:
        temporary.touch()
    with pytest.raises(ForetideError, match="permission denied"):
        ensure_writable("/usr/a")


def test_error_about_another_file_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a"):
        (tmp_path / "input").open()
    assert left_in(tmp_path) == set()


def test_device_without_space(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_path(tmp_path / "a") as temporary, open("/dev/full", "wb", buffering=0) as full:
            temporary.touch()
            full.write(b"x")

    with pytest.raises(ForetideError, match="the disk is full"):
        write()
    assert left_in(tmp_path) == set()


@pytest.mark.parametrize(
    "write",
    [
        "temporary.write_bytes(bytes(200_000))",
        "import numpy, polars; polars.DataFrame({'a': numpy.random.rand(50_000)}).write_parquet(temporary)",
        "import torch, safetensors.torch as st; st.save_file({'a': torch.rand(50_000)}, temporary)",
    ],
    ids=["python", "polars", "safetensors"],
)
def test_write_cut_short_by_the_system(tmp_path: Path, write: str) -> None:
    target = str(tmp_path / "a" / "b")
    code = f"from datasets.files import atomic_path\nwith atomic_path({target!r}) as temporary:\n    {write}"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        preexec_fn=limit,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert "datasets.errors.ForetideError" in done.stderr and "outgrew the size" in done.stderr.splitlines()[-1]
    assert left_in(tmp_path) == set()


def test_sha256(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(content)
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()
