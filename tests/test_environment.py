"""What the environment may hold: two of our import packages share their names with other people's distributions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def import_beside(package: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Imports ``package`` in a fresh process that also sees what is installed in ``folder``."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(folder)))}
    return subprocess.run(
        [sys.executable, "-c", f"import {package}"],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def install_fake(name: str, folder: Path) -> None:
    """Leaves the trace that pip leaves of an installed distribution."""
    metadata = folder / f"{name.replace('-', '_')}-1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")


@pytest.mark.parametrize("package", ["datasets", "kernels"])
def test_a_distribution_of_the_same_name_is_an_import_error(package: str, tmp_path: Path) -> None:
    install_fake(package, tmp_path)
    done = import_beside(package, tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"ImportError: the distribution '{package}' (Hugging Face)")
    assert f"pip uninstall {package}" in done.stderr


@pytest.mark.parametrize("package", ["datasets", "kernels"])
def test_without_such_a_distribution_the_import_works(package: str, tmp_path: Path) -> None:
    install_fake(f"{package}-tools", tmp_path)
    done = import_beside(package, tmp_path)
    assert done.returncode == 0, done.stderr
