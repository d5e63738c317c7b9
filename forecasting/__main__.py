"""The plain entry for a compute node: ``python -m forecasting RUN.yaml FOLDER`` trains, scores, writes the folder.

``python -m forecasting pretrain RUN.yaml FOLDER`` pre-trains the backbone of the model instead. ``foretide runs import
FOLDER`` takes either into the store afterwards.
"""

import shlex
import sys
import warnings
from pathlib import Path

from datasets.errors import ForetideError
from datasets.files import ensure_writable
from forecasting.config import read_config
from forecasting.experiment import run
from forecasting.pretraining import pretrain, read_pretraining


def main(arguments: list[str]) -> int:
    """Runs one configuration; 2 for a mistake of the user."""
    masked = arguments[:1] == ["pretrain"]
    if len(arguments) != 2 + masked:
        print("usage: python -m forecasting [pretrain] RUN.yaml FOLDER", file=sys.stderr)
        return 2
    warnings.formatwarning = lambda message, *rest: f"warning: {message}\n"
    file, folder = map(Path, arguments[-2:])
    try:
        ensure_writable(folder)
        command = shlex.join(["python", "-m", "forecasting", *arguments])
        if masked:
            outcome = pretrain(*read_pretraining(file), folder, command=command)
        else:
            outcome = run(read_config(file), folder, command=command)
    except ForetideError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if outcome is not None:
        print(f"wrote {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
