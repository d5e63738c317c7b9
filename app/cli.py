"""The command line: each typed function of `app.actions` is a command.

Only the module of the command that is asked for is imported, so that help and the light commands answer at once.
"""

import errno
import importlib
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datasets.errors import ForetideError, ForetideWarning

if TYPE_CHECKING:
    from app.options import Options

# what the machine refuses, whatever file it is about
_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
# how torch, NumPy and CUDA put it
_NO_MEMORY = ("can't allocate memory", "unable to allocate", "out of memory")


@dataclass(frozen=True)
class Command:
    """A command.

    Args:
        name: The words that call it.
        function: Module under `app.actions`, and the function in it.
        help: One line.
        positional: Options that may be given without their flag, in order.
        example: What follows the name in an example.
    """

    name: str
    function: str
    help: str
    positional: tuple[str, ...] = ()
    example: str = ""

    @property
    def prog(self) -> str:
        """How it is typed."""
        return f"foretide {self.name}"


COMMANDS = (
    Command("demo", "demo:demo", "train, score, register and forecast on the sample series, and write a report"),
    Command("data list", "data:list_datasets", "list the catalogued datasets and which are here"),
    Command(
        "data describe", "data:describe", "extent, variates, split, quirks and licence of a dataset", ("data",), "ETTh1"
    ),
    Command(
        "data check",
        "data:check",
        "find gaps, duplicates, sentinels, text and outliers, with row numbers",
        ("data",),
        "mine.csv",
    ),
    Command(
        "data export",
        "data:export",
        "write a checked dataset as one file for a compute node",
        ("data", "output"),
        "ETTh1 ETTh1.nc",
    ),
    Command(
        "train",
        "training:train",
        "train a model and score it on every test window beside baselines",
        (),
        "--data mine.csv --lookback 168 --horizon 48 --promote",
    ),
    Command(
        "reproduce",
        "reproduce:reproduce",
        "run a model as published, and show published beside measured scores",
        ("model", "dataset"),
        "itransformer ETTh1 --horizons 96 192 --seeds 3",
    ),
    Command(
        "pretrain",
        "pretraining:pretrain",
        "teach the backbone of a model to fill in hidden patches, for a training to start from",
        (),
        "--config configs/tsmixer/ETTh1_96.yaml",
    ),
    Command(
        "evaluate", "forecasting:evaluate", "score a stored model on the test part of a dataset", (), "--data mine.csv"
    ),
    Command(
        "backtest",
        "forecasting:backtest",
        "forecast from rolling origins and keep every forecast",
        (),
        "--data mine.csv --stride 24 --output backtest.parquet",
    ),
    Command(
        "forecast",
        "forecasting:forecast",
        "forecast what follows the last row, with intervals",
        (),
        "--data mine.csv --horizon 48 --output forecast.parquet",
    ),
    Command(
        "compare",
        "runs:compare",
        "put runs side by side, with an interval for each difference",
        ("runs",),
        "--project mine",
    ),
    Command("runs list", "runs:list_runs", "list the runs in the store", (), "--project mine --order mse"),
    Command(
        "runs show", "runs:show_run", "show one run: scores, configuration, command, versions", ("run_id",), "3f2a"
    ),
    Command("runs import", "runs:import_run", "take in a folder of results made elsewhere", ("folder",), "results/"),
    Command("runs delete", "runs:delete_run", "delete a run and its artifact", ("run_id",), "3f2a"),
    Command("models list", "models:list_models", "list registered models, and the kinds that can be trained"),
    Command(
        "models register",
        "models:register",
        "make a run a version of its project's model",
        ("run_id",),
        "3f2a --promote",
    ),
    Command(
        "models promote",
        "models:promote",
        "make a version the champion of its project",
        ("project", "version"),
        "mine 2",
    ),
    Command("models rollback", "models:rollback", "make the previous champion champion again", ("project",), "mine"),
    Command(
        "models alias",
        "models:alias",
        "give a version a name of your own",
        ("project", "name", "version"),
        "mine challenger 2",
    ),
    Command(
        "models show", "models:show", "show a version: data, sizes, scores, promotions", ("project", "version"), "mine"
    ),
    Command(
        "models export", "models:export", "write a version as one archive", ("project", "output"), "mine mine.tar.gz"
    ),
    Command("models import", "models:import_model", "take in an exported model", ("source",), "mine.tar.gz --promote"),
    Command("models delete", "models:delete", "delete a version from the registry", ("project", "version"), "mine 1"),
    Command("doctor", "doctor:doctor", "show devices, versions, store and data, and what is wrong"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0 when it is done, 2 for a mistake of the user, 130 when interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # idle threads of a parallel section sleep soon, so that a busy neighbour does not slow training tenfold
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            return _main(words)
    except BrokenPipeError:
        # the reader of our output has gone, as 'head' does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        training = words[:1] in (["train"], ["pretrain"], ["reproduce"])
        print("interrupted" + ("; the same command continues from the last epoch" if training else ""), file=sys.stderr)
        return 130
    except Exception as error:
        explained = _explained(error)
        if explained is None:
            raise
        print(f"error: {' '.join(str(explained).splitlines())}", file=sys.stderr)
        return 2


def _main(words: list[str]) -> int:
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0
    if words[0] == "--version":
        print(f"foretide {_version()}")
        return 0
    command, rest = find_command(words)
    if command is None:
        print(overview(words[0]))
        return 0
    printed = _run(command, rest)
    if printed is not None:
        print(printed)
    return 0


def _run(command: Command, words: list[str]) -> Any:
    """What a command has to say: its help, its options, or its result."""
    from app.home import COMMAND
    from app.words import HELP, PRINT

    COMMAND.set(shlex.join([*command.prog.split(), *words]))
    options = options_of(command, words)
    if any(word in HELP for word in words):
        from app.help import page

        return page(options, f"{command.prog} {command.example}".rstrip())
    given = options.parse([word for word in words if word != PRINT])
    return given.to_yaml() if PRINT in words else options.function(**given.arguments())


def overview(group: str | None = None) -> str:
    """The help of all commands, or of one group."""
    shown = [c for c in COMMANDS if group is None or c.name.split()[0] == group]
    width = max(len(c.name) for c in shown) + 2
    title = ["Foretide: forecasting that people can run.", ""] if group is None else []
    call = "COMMAND" if group is None else f"{group} COMMAND"
    return "\n".join(
        [
            *title,
            f"usage: foretide {call} [options]",
            "",
            *(f"  {c.name.ljust(width)}{c.help}" for c in shown),
            "",
            "'foretide COMMAND --help' explains a command; '--config FILE' reads its options from a YAML file, which",
            "'--print_config' prints. To begin with: 'foretide demo', or 'foretide data check FILE' for your own file.",
        ]
    )


def find_command(words: Sequence[str]) -> tuple[Command | None, list[str]]:
    """The command that the words begin with, and the words after it; None for the bare name of a group.

    Raises:
        ForetideError: There is no such command.
    """
    by_name = {command.name: command for command in COMMANDS}
    for length in (2, 1):
        command = by_name.get(" ".join(words[:length]))
        if command and len(words) >= length:
            return command, list(words[length:])
    groups = {command.name.split()[0] for command in COMMANDS if " " in command.name}
    if words[0] in groups and (len(words) == 1 or words[1] in ("-h", "--help")):
        return None, []
    import difflib

    tried = " ".join(words[:2]) if words[0] in groups else words[0]
    close = difflib.get_close_matches(tried, by_name, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ForetideError(f"{tried!r}: there is no such command; {hint}see 'foretide --help'")


def load(command: Command) -> Callable[..., Any]:
    """The function behind a command."""
    module, _, name = command.function.partition(":")
    made: Callable[..., Any] = getattr(importlib.import_module(f"app.actions.{module}"), name)
    return made


def options_of(command: Command, words: Sequence[str] = ()) -> "Options":
    """What a command can be told.

    Args:
        words: The command line, which says which model's options to offer.
    """
    from app.flags import DEFAULT_MODEL, run_parameter
    from app.options import Options, named_model

    function = load(command)
    model = named_model(words) if run_parameter(function) else DEFAULT_MODEL
    return Options(function, command.positional, command.prog, model)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("foretide")
    except PackageNotFoundError:
        return "(not installed)"


def _explained(error: Exception) -> ForetideError | None:
    """The one line about an error that a person can mend; None for a defect of ours."""
    if isinstance(error, ForetideError):
        return error
    if isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _NO_MEMORY):
        return ForetideError(
            "there is not enough memory; take a smaller model or batch (--training.batch_size), or fewer "
            "variates (--reader.variates, --training.variate_fraction)"
        )
    if isinstance(error, OSError) and error.errno not in _REFUSED:
        return None
    from app.home import home
    from datasets.files import write_error

    return write_error(error, getattr(error, "filename", None) or home())


def _show_warning(message: Warning | str, category: type[Warning], *rest: Any) -> None:
    """Our own warnings in one line; those of libraries are for developers and stay out of the way."""
    if issubclass(category, ForetideWarning):
        print(f"warning: {' '.join(str(message).splitlines())}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
