"""The folder that holds the run store, the artifacts and, by default, the data."""

import os
from pathlib import Path


def home() -> Path:
    """``FORETIDE_HOME``, or ``.foretide`` in the working directory, as an absolute path; it need not exist yet."""
    return Path(os.environ.get("FORETIDE_HOME") or ".foretide").expanduser().absolute()
