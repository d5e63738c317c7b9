"""The command line: typed functions become commands, through jsonargparse.

Only the module of the command that is asked for is imported, so that help and the light commands answer at once.
"""

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from datasets.errors import ForetideError, ForetideWarning

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


@dataclass(frozen=True)
class Command:
    """A command.

    Args:
        name: The words that call it.
        function: Module under `app.actions`, and the function in it.
        positional: Whether its required arguments are given without a flag.
        help: One line.
    """

    name: str
    function: str
    positional: bool
    help: str


COMMANDS = (
    Command("demo", "demo:demo", False, "train, score, register and forecast on the sample series, and write a report"),
    Command("data list", "data:list_datasets", False, "list the catalogued datasets and which are here"),
    Command("data describe", "data:describe", True, "extent, variates, split, quirks and licence of a dataset"),
    Command("data check", "data:check", True, "find gaps, duplicates, sentinels, text and outliers, with row numbers"),
    Command("train", "training:train", False, "train a model and score it on every test window beside baselines"),
    Command("evaluate", "forecasting:evaluate", False, "score a stored model on the test part of a dataset"),
    Command("backtest", "forecasting:backtest", False, "forecast from rolling origins and keep every forecast"),
    Command("forecast", "forecasting:forecast", False, "forecast what follows the last row, with intervals"),
    Command("compare", "runs:compare", False, "put runs side by side, with an interval for each difference"),
    Command("runs list", "runs:list_runs", False, "list the runs in the store"),
    Command("runs show", "runs:show_run", True, "show one run: scores, configuration, command, versions"),
    Command("runs import", "runs:import_run", True, "take in a folder of results made elsewhere"),
    Command("runs delete", "runs:delete_run", True, "delete a run and its artifact"),
    Command("models list", "models:list_models", False, "list registered models, and the kinds that can be trained"),
    Command("models register", "models:register", True, "make a run a version of its project's model"),
    Command("models promote", "models:promote", True, "make a version the champion of its project"),
    Command("models rollback", "models:rollback", True, "make the previous champion champion again"),
    Command("models alias", "models:alias", True, "give a version a name of your own"),
    Command("models show", "models:show", True, "show a version: data, sizes, scores, promotions"),
    Command("models export", "models:export", True, "write a version as one archive"),
    Command("models import", "models:import_model", True, "take in an exported model"),
    Command("models delete", "models:delete", True, "delete a version from the registry"),
    Command("doctor", "doctor:doctor", False, "show devices, versions, store and data, and what is wrong"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0 when it is done, 2 for a mistake of the user, 130 when interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # idle threads of a parallel section sleep soon, so that a busy neighbour does not slow training tenfold
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    try:
        return _main(words)
    except ForetideError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # the reader of our output has gone, as 'head' does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted; the same command continues a training from its last epoch", file=sys.stderr)
        return 130


def _main(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"foretide {version('foretide')}")
        return 0
    command, rest = find_command(words)
    if command is None:
        print(overview(words[0]))
        return 0
    function = load(command)
    parser = make_parser(command, function, rest)
    result = call(function, parse(parser, rest))
    if result is not None:
        print(result)
    return 0


def overview(group: str | None = None) -> str:
    """The help of all commands, or of one group."""
    shown = [c for c in COMMANDS if group is None or c.name.split()[0] == group]
    width = max(len(c.name) for c in shown) + 2
    lines = ["Foretide: forecasting that people can run.", "", "usage: foretide COMMAND [options]", ""] if group is None else \
        [f"usage: foretide {group} COMMAND [options]", ""]
    lines += [f"  {c.name.ljust(width)}{c.help}" for c in shown]
    lines += ["", "'foretide COMMAND --help' explains a command; '--config FILE' reads its options from YAML, '--print_config' prints them."]
    return "\n".join(lines)


def find_command(words: list[str]) -> tuple[Command | None, list[str]]:
    """The command that the words begin with, and the words after it; None for the bare name of a group.

    Raises:
        ForetideError: There is no such command.
    """
    by_name = {command.name: command for command in COMMANDS}
    for length in (2, 1):
        command = by_name.get(" ".join(words[:length]))
        if command and len(words) >= length:
            return command, words[length:]
    groups = {command.name.split()[0] for command in COMMANDS if " " in command.name}
    if words[0] in groups and (len(words) == 1 or words[1] in ("-h", "--help")):
        return None, []
    import difflib

    tried = " ".join(words[:2]) if words[0] in groups else words[0]
    close = difflib.get_close_matches(tried, by_name, n=1, cutoff=0.5)
    raise ForetideError(f"command: found {tried!r}, {f'did you mean {close[0]!r}? ' if close else ''}see 'foretide --help'")


def load(command: Command) -> Callable[..., Any]:
    """The function behind a command."""
    module, _, name = command.function.partition(":")
    made: Callable[..., Any] = getattr(importlib.import_module(f"app.actions.{module}"), name)
    return made


def make_parser(command: Command, function: Callable[..., Any], words: Sequence[str] = ()) -> "ArgumentParser":
    """The parser of a command: the function's signature, with a run configuration spread into flags of its own.

    Args:
        words: The command line, which says which model's options to offer.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog=f"foretide {command.name}", description=_described(function), exit_on_error=False, default_env=False)
    parser.add_argument("--config", action="config", help="read options from this YAML file; later flags win")
    run = _run_parameter(function)
    if run:
        _add_run(parser, words)
    parser.add_function_arguments(function, skip={run} if run else set(), as_group=False,
                                  as_positional=command.positional)
    return parser


def parse(parser: "ArgumentParser", words: Sequence[str]) -> "Namespace":
    """The options of a command line.

    Raises:
        ForetideError: In one line, what is wrong with them.
    """
    from jsonargparse import ArgumentError

    try:
        return parser.instantiate_classes(parser.parse_args(list(words)))
    except ArgumentError as error:
        raise _explained(error) from error


def call(function: Callable[..., Any], options: "Namespace") -> Any:
    """Calls a command's function with the parsed options."""
    values = {name: value for name, value in options.items(branches=True) if "." not in name and name != "config"}
    run = _run_parameter(function)
    if run is None:
        return function(**values)
    from datasets.options import plain
    from forecasting.config import RunConfig

    names = {field.name for field in fields(RunConfig)}
    chosen = {name: values.pop(name) for name in list(values) if name in names}
    architecture = chosen["architecture"]
    chosen["architecture"] = plain(architecture) if is_dataclass(architecture) else dict(vars(architecture))
    return function(**{run: RunConfig(**chosen)}, **values)


def _run_parameter(function: Callable[..., Any]) -> str | None:
    for parameter in signature(function).parameters.values():
        kind = parameter.annotation
        if kind is not Parameter.empty and getattr(kind, "__name__", "") == "RunConfig":
            return parameter.name
    return None


def _add_run(parser: "ArgumentParser", words: Sequence[str]) -> None:
    """Flags of a `RunConfig`, with the options and defaults of the model that the command line names."""
    from forecasting import models
    from forecasting.config import RunConfig

    model = _named_model(words)
    kind = models.find(model)
    parser.add_class_arguments(RunConfig, skip={"architecture"}, as_group=False)
    parser.add_class_arguments(kind.Config, "architecture")
    defaults = {"model": model}
    for name, value in kind.defaults.items():
        defaults |= {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
    parser.set_defaults(defaults)


def _named_model(words: Sequence[str]) -> str:
    """The model that a command line, or the YAML that it names, asks for."""
    from pathlib import Path

    from forecasting.config import read_yaml

    model = "itransformer"
    for flag, value in _pairs(words):
        if flag == "--config":
            model = str(read_yaml(Path(value)).get("model", model))
        elif flag == "--model":
            model = value
    return model


def _pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for position, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag in ("--config", "--model"):
            following = words[position + 1] if position + 1 < len(words) else ""
            pairs.append((flag, value if equals else following))
    return pairs


def _described(function: Callable[..., Any]) -> str:
    text = (function.__doc__ or "").split("Args:")[0]
    return " ".join(text.split())


def _explained(error: Exception) -> ForetideError:
    """jsonargparse's message as one line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ForetideError):
            return cause
        cause = cause.__cause__ or cause.__context__
    text = " ".join(str(error).split())
    return ForetideError(text)


def _show_warning(message: Warning | str, category: type[Warning], *rest: Any) -> None:
    """Our own warnings in one line; those of libraries are for developers and stay out of the way."""
    if issubclass(category, ForetideWarning):
        print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
