"""Artifacts move whole, and an archive cannot write anywhere else."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from app.artifacts import artifact_folder, bring_home, export_archive, import_archive
from datasets.errors import ForetideError
from forecasting.artifact import PARTS, SUMS, load

Make = Callable[..., Path]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def archive_of(path: Path, files: dict[str, bytes], *extra: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        for entry in extra:
            tar.addfile(entry)
    return path


def test_archive_and_back(tmp_path: Path, make_artifact: Make) -> None:
    folder = make_artifact(tmp_path, "run-1")
    (folder / "report.html").write_text("made later, not a part")
    archive = export_archive(folder, tmp_path / "out" / "model.tar.gz")
    back = import_archive(archive, tmp_path / "back")
    assert content(back) == {name: data for name, data in content(folder).items() if name in (*PARTS, SUMS)}
    assert load(back).run["run_id"] == "run-1"


def test_archive_is_the_same_at_every_time(tmp_path: Path, make_artifact: Make) -> None:
    folder = make_artifact(tmp_path, "run-1")
    first = export_archive(folder, tmp_path / "a.tar.gz").read_bytes()
    (folder / "config.yaml").touch()
    assert export_archive(folder, tmp_path / "b.tgz").read_bytes() == first


def test_export_refuses_another_suffix_and_a_damaged_artifact(tmp_path: Path, make_artifact: Make) -> None:
    folder = make_artifact(tmp_path, "run-1")
    with pytest.raises(ForetideError, match=r"model\.zip: expected a name that ends in \.tar\.gz"):
        export_archive(folder, tmp_path / "model.zip")
    (folder / "scaling.json").write_text("{}")
    with pytest.raises(ForetideError, match=r"scaling\.json: is truncated"):
        export_archive(folder, tmp_path / "model.tar.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["run-1"]


@pytest.mark.parametrize("lead", ["", "run-1/", "./run-1/", "./"])
def test_archives_of_other_tools(tmp_path: Path, make_artifact: Make, lead: str) -> None:
    files = content(make_artifact(tmp_path, "run-1"))
    stray = {f"{lead}._config.yaml": b"resource fork"}
    archive = archive_of(tmp_path / "a.tar.gz", {lead + name: data for name, data in files.items()} | stray)
    assert content(import_archive(archive, tmp_path / "back")) == files


def link(kind: bytes, target: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo("run-1/config.yaml")
    entry.type, entry.linkname = kind, target
    return entry


@pytest.mark.parametrize(
    ("files", "extra", "words"),
    [
        ({"../evil": b"x"}, [], "'../evil' leads out"),
        ({"run-1/../../evil": b"x"}, [], "leads out"),
        ({"/tmp/evil": b"x"}, [], "leads out"),
        ({"a/b/c/evil": b"x"}, [], "leads out"),
        ({"run-1\\..\\evil": b"x"}, [], "leads out"),
        ({}, [link(tarfile.SYMTYPE, "/etc/passwd")], "is a link or device"),
        ({}, [link(tarfile.LNKTYPE, "/etc/passwd")], "is a link or device"),
        ({}, [link(tarfile.CHRTYPE, "")], "is a link or device"),
        ({}, [link(tarfile.FIFOTYPE, "")], "is a link or device"),
        ({f"run-1/{number}": b"" for number in range(100)}, [], "more than 64 files"),
        ({"run-1/readme": b"x"}, [], "SHA256SUMS: is missing"),
    ],
)
def test_archive_that_is_not_unpacked(
    tmp_path: Path, files: dict[str, bytes], extra: list[tarfile.TarInfo], words: str
) -> None:
    archive = archive_of(tmp_path / "a.tar.gz", files, *extra)
    with pytest.raises(ForetideError, match=words) as caught:
        import_archive(archive, tmp_path / "home" / "x")
    assert str(caught.value).startswith(str(archive)) and "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"] and not Path("/tmp/evil").exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-200], "is not readable as"),
        (lambda data: data[:5], "is not readable as"),
        (lambda data: b"", "is not readable as"),
        (lambda data: b"x" * 99, "is not readable as"),
        (lambda data: data[:300] + bytes(50) + data[350:], "is not readable as|is missing|was altered"),
    ],
    ids=["cut", "start", "empty", "text", "overwritten"],
)
def test_damaged_archive(tmp_path: Path, make_artifact: Make, damage: Callable[[bytes], bytes], words: str) -> None:
    archive = export_archive(make_artifact(tmp_path / "from", "run-1"), tmp_path / "a.tar.gz")
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(ForetideError, match=words) as caught:
        import_archive(archive, tmp_path / "back")
    assert str(caught.value).startswith(str(archive))
    assert "\n" not in str(caught.value) and not (tmp_path / "back").exists()


def test_bring_home_once_and_twice(tmp_path: Path, home: Path, make_artifact: Make) -> None:
    folder = make_artifact(tmp_path, "run-1")
    target = bring_home(folder)
    assert target == artifact_folder("run-1") == home / "artifacts" / "run-1"
    inode = target.stat().st_ino
    assert bring_home(folder) == target and bring_home(export_archive(folder, tmp_path / "a.tgz")) == target
    assert target.stat().st_ino == inode and [path.name for path in target.parent.iterdir()] == ["run-1"]


def test_bring_home_refuses_another_run_of_the_same_name(tmp_path: Path, home: Path, make_artifact: Make) -> None:
    bring_home(make_artifact(tmp_path / "a", "run-1", mse=0.4))
    with pytest.raises(ForetideError, match="'run-1' names another run"):
        bring_home(make_artifact(tmp_path / "b", "run-1", mse=0.3))
    assert load(home / "artifacts" / "run-1").metrics["scores"]["itransformer"]["mse"] == 0.4


def test_bring_home_writes_nothing_for_a_damaged_artifact(tmp_path: Path, home: Path, make_artifact: Make) -> None:
    folder = make_artifact(tmp_path, "run-1")
    weights = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(weights[:-1] + b"!")
    with pytest.raises(ForetideError, match=r"run-1/weights\.safetensors: was altered"):
        bring_home(folder)
    with pytest.raises(ForetideError, match="found nothing, expected the folder of an artifact or an archive"):
        bring_home(tmp_path / "none")
    assert not home.exists()
