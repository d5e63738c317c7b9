"""From a command line and its YAML files to the arguments of an action; every mistake is one line."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.flags import DEFAULT_MODEL, Flag, flags_of, model_defaults, run_parameter
from app.words import CONFIG, regular
from datasets.errors import ForetideError
from datasets.options import build, convert, expected, plain, unknown_option

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


@dataclass(frozen=True)
class Options:
    """What an action can be told.

    Args:
        function: The action.
        positional: Options that may be given without their flag, in order.
        prog: How the command is called.
        model: Whose options to offer, where the action takes a run configuration.
    """

    function: Callable[..., Any]
    positional: tuple[str, ...] = ()
    prog: str = "foretide"
    model: str = DEFAULT_MODEL

    @cached_property
    def flags(self) -> list[Flag]:
        """All options; see `flags_of`."""
        return flags_of(self.function, self.model)

    def parse(self, words: Sequence[str]) -> "Given":
        """The options of a command line, on top of those of the files that it names.

        Raises:
            ForetideError: There is no such option, or it has another type.
        """
        from jsonargparse import ArgumentError, Namespace

        base, typed = Namespace(), dict[str, str]()
        origin: dict[str, str] = {}
        for name, value in regular(words, self.flags, self.positional, self.prog):
            if name == CONFIG:
                found = read_file(Path(value), self.flags)
                for key, item in found.items():
                    base[key] = item
                origin |= dict.fromkeys(found, f"{value}: ")
            elif name in typed and value.startswith("[") and typed[name].startswith("["):
                typed[name] = f"{typed[name][:-1]}, {value[1:]}"
            else:
                typed[name] = value
        origin |= dict.fromkeys((name.removeprefix("--") for name in typed), "--")
        try:
            words = [f"{name}={value}" for name, value in typed.items()]
            values = make_parser(self).parse_args(words, namespace=base)
        except ArgumentError as error:
            raise _explained(error, typed, self.flags) from error
        return Given(self, plain(values.as_dict()), origin)


@dataclass(frozen=True)
class Given:
    """The values of all options.

    Args:
        values: Nested as in YAML.
        origin: What to put before the name of an option that was given, in a message: dashes, or a file.
    """

    options: Options
    values: dict[str, Any]
    origin: Mapping[str, str] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """What to call the action with.

        Raises:
            ForetideError: An option is missing or out of range.
        """
        for flag in self.options.flags:
            if flag.required and self.values[flag.name] in (None, "", []):
                name = flag.name.upper() if flag.name in self.options.positional else flag.text
                raise ForetideError(f"{name} is missing; see '{self.options.prog} --help'")
        try:
            parameters = signature(self.options.function).parameters
            return {name: self._argument(parameter) for name, parameter in parameters.items()}
        except ForetideError as error:
            raise ForetideError(self.origin.get(str(error).split(":")[0], "") + str(error)) from error

    def to_yaml(self) -> str:
        """The options as a file for ``--config``.

        What is to be done with a finished run is no part of its configuration, and is left out unless it was asked for.
        """
        import yaml

        shown = dict(self.values)
        own = signature(self.options.function).parameters if run_parameter(self.options.function) else ()
        for flag in self.options.flags:
            if (flag.required and shown[flag.name] is None) or (flag.name in own and shown[flag.name] == flag.default):
                del shown[flag.name]
        return str(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)).rstrip()

    def _argument(self, parameter: Parameter) -> Any:
        kind: Any = parameter.annotation
        if parameter.name == run_parameter(self.options.function):
            from forecasting import models

            own = {field.name: self.values.get(field.name, {}) for field in fields(kind)}
            own["architecture"] = plain(models.architecture(own["model"], own["architecture"]))
            return build(kind, own, self.options.prog)
        value = self.values[parameter.name]
        if is_dataclass(kind):
            return build(kind, value, self.options.prog)  # type: ignore[arg-type]
        return Path(value) if value is not None and Flag(parameter.name, kind, "").kind is Path else value


def make_parser(options: Options) -> "ArgumentParser":
    """The parser of a command: the signature of its action, with a run configuration spread into flags of its own."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog=options.prog, exit_on_error=False, default_env=False)
    run = run_parameter(options.function)
    if run:
        from forecasting import models
        from forecasting.config import RunConfig

        parser.add_class_arguments(RunConfig, skip={"architecture"}, as_group=False)
        parser.add_class_arguments(models.find(options.model).Config, "architecture")
        parser.set_defaults(model_defaults(options.model))
    parser.add_function_arguments(options.function, skip={run} if run else set(), as_group=False)
    for action in parser._actions:
        # what is missing is said in our words, and printing a configuration needs nothing
        action.required = False
    return parser


def read_file(path: Path, flags: Sequence[Flag]) -> dict[str, Any]:
    """The options in a YAML file by name, each checked against its type.

    Raises:
        ForetideError: The file is not plain YAML, or holds an option that does not exist or has another type.
    """
    from forecasting.config import read_yaml

    hints = {flag.name: flag.hint for flag in flags}
    found: dict[str, Any] = {}
    for key, value in read_yaml(path).items():
        members = {name.partition(".")[2]: hint for name, hint in hints.items() if name.startswith(f"{key}.")}
        if key == "architecture" and value == {}:
            # complete for a model without options of its own
            continue
        if not members:
            found[str(key)] = _converted(str(path), str(key), value, hints, {name.split(".")[0] for name in hints})
        elif not isinstance(value, Mapping):
            raise ForetideError(f"{path}: {key}: found {value!r}, expected a mapping of options")
        else:
            found |= {
                f"{key}.{inner}": _converted(f"{path}: {key}", str(inner), item, members, members)
                for inner, item in value.items()
            }
    return found


def _converted(where: str, name: str, value: Any, hints: Mapping[str, Any], known: Iterable[str]) -> Any:
    if name not in hints:
        raise unknown_option(where, name, known)
    return convert(hints[name], value, f"{where}: {name}")


def named_model(words: Sequence[str]) -> str:
    """The model that a command line, or the YAML that it names, asks for."""
    from forecasting.config import read_yaml

    model = DEFAULT_MODEL
    for position, word in enumerate(words):
        flag, equals, value = word.partition("=")
        value = value if equals else "".join(words[position + 1 : position + 2])
        if flag == CONFIG and value:
            model = str(read_yaml(Path(value)).get("model", model))
        elif flag == "--model" and value:
            model = value
    return model


def _explained(error: Exception, typed: Mapping[str, str], flags: Sequence[Flag]) -> ForetideError:
    """jsonargparse's message in our words: flag, found, expected."""
    key = re.search(r'[Pp]arser key "([^"]+)"', str(error))
    flag = next((flag for flag in flags if key and flag.name == key[1]), None)
    if flag is None or flag.text not in typed:
        return ForetideError(" ".join(str(error).split()))
    return ForetideError(f"{flag.text}: found {typed[flag.text]!r}, expected {expected(flag.hint)}")
