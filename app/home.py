"""The folder that holds the run store, the artifacts and, by default, the data; and the command that was typed."""

import os
from contextvars import ContextVar
from pathlib import Path

# What the person typed, as a run records it; the command line sets it.
COMMAND: ContextVar[str | None] = ContextVar("command", default=None)


def home() -> Path:
    """``FORETIDE_HOME``, or ``.foretide`` in the working directory, as an absolute path; it need not exist yet."""
    return Path(os.environ.get("FORETIDE_HOME") or ".foretide").expanduser().absolute()
