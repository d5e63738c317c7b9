"""The notebook page of the docs runs as it stands, cell by cell, in a fresh process."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_cell_of_the_notebook_runs(home: Path) -> None:
    notebook = json.loads((ROOT / "docs" / "python_api.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    done = subprocess.run(
        [sys.executable, "-c", "\n\n".join(cells)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "registered as version 1" in done.stdout
    assert (home / "artifacts").is_dir()
