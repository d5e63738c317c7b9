"""The plain entry for a compute node: ``python -m forecasting RUN.yaml FOLDER`` trains, scores, writes the folder.

``foretide runs import FOLDER`` takes it into the store afterwards.
"""

import shlex
import sys
import warnings
from pathlib import Path

from datasets.errors import ForetideError
from datasets.files import ensure_writable
from forecasting.config import read_config
from forecasting.experiment import run


def main(arguments: list[str]) -> int:
    """Runs one configuration; 2 for a mistake of the user."""
    if len(arguments) != 2:
        print("usage: python -m forecasting RUN.yaml FOLDER", file=sys.stderr)
        return 2
    warnings.formatwarning = lambda message, *rest: f"warning: {message}\n"
    folder = Path(arguments[1])
    try:
        ensure_writable(folder)
        command = shlex.join(["python", "-m", "forecasting", *arguments])
        outcome = run(read_config(Path(arguments[0])), folder, command=command)
    except ForetideError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if outcome is not None:
        print(f"wrote {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
