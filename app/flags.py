"""The options of a command as its function's signature and docstring declare them."""

import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from inspect import Parameter, signature
from typing import Any

DEFAULT_MODEL = "itransformer"


@dataclass(frozen=True)
class Flag:
    """One option of a command.

    Args:
        name: With dots, as it is nested in YAML: ``training.seed``.
        hint: Type of its value.
        help: What it means.
        default: Its value where none is given.
        required: Whether there is no such value.
        group: What the options beside it are about; empty for those of the command itself.
    """

    name: str
    hint: Any
    help: str
    default: Any = None
    required: bool = False
    group: str = ""

    @property
    def text(self) -> str:
        """As it is typed."""
        return f"--{self.name}"

    @property
    def kind(self) -> Any:
        """Its type without None, and without the parts of a list or mapping."""
        members = [member for member in typing.get_args(self.hint) if member is not type(None)]
        hint = members[0] if type(None) in typing.get_args(self.hint) else self.hint
        return typing.get_origin(hint) or hint

    @property
    def inner(self) -> Any:
        """Type of the parts of a list, or of the choices of a literal."""
        members = [member for member in typing.get_args(self.hint) if member is not type(None)]
        nested = members and typing.get_origin(members[0]) is not None
        return typing.get_args(members[0])[0] if nested else members[0]


def flags_of(function: Callable[..., Any], model: str = DEFAULT_MODEL) -> list[Flag]:
    """All options of an action, its own first, then group by group.

    Args:
        function: An action; a `RunConfig` among its parameters is spread into options of its own.
        model: Whose architecture and defaults such a configuration has.
    """
    return sorted(_flags(function, model), key=lambda flag: flag.group != "")


def run_parameter(function: Callable[..., Any]) -> str | None:
    """The parameter that takes a complete run configuration."""
    parameters = signature(function).parameters.values()
    return next((p.name for p in parameters if getattr(p.annotation, "__name__", "") == "RunConfig"), None)


def model_defaults(model: str) -> dict[str, Any]:
    """The run options that suit a model, and its name, by flag."""
    from forecasting import models

    found: dict[str, Any] = {"model": model}
    for name, value in models.find(model).defaults.items():
        nested = isinstance(value, Mapping)
        found |= {f"{name}.{key}": item for key, item in value.items()} if nested else {name: value}
    return found


def _flags(function: Callable[..., Any], model: str) -> Iterator[Flag]:
    texts, run = _descriptions(function), run_parameter(function)
    for parameter in signature(function).parameters.values():
        name, kind, required = parameter.name, parameter.annotation, parameter.default is Parameter.empty
        default = None if required else parameter.default
        if name == run:
            yield from _run_flags(kind, model)
        elif is_dataclass(kind):
            yield from _group(name, kind, default, {})
        else:
            yield Flag(name, kind, texts.get(name, ""), default, required)


def _run_flags(kind: Any, model: str) -> Iterator[Flag]:
    from forecasting import models

    texts, hints, suited = _descriptions(kind), typing.get_type_hints(kind), model_defaults(model)
    hints["architecture"] = models.find(model).Config
    for field in fields(kind):
        hint, required = hints[field.name], field.default is MISSING and field.default_factory is MISSING
        if is_dataclass(hint):
            yield from _group(field.name, hint, None, suited)
        else:
            default = None if required else suited.get(field.name, _default(field))
            yield Flag(field.name, hint, texts.get(field.name, ""), default, required)


def _group(name: str, kind: Any, instance: Any, suited: Mapping[str, Any]) -> Iterator[Flag]:
    texts, hints = _descriptions(kind), typing.get_type_hints(kind)
    title = (kind.__doc__ or "").split("\n")[0].partition(".")[0]
    for field in fields(kind):
        default = _default(field) if instance is None else getattr(instance, field.name)
        full = f"{name}.{field.name}"
        yield Flag(full, hints[field.name], texts.get(field.name, ""), suited.get(full, default), group=title)


def _default(field: Any) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _descriptions(documented: Any) -> dict[str, str]:
    """What the docstring says about each argument; ``a, b: …`` speaks of both."""
    from docstring_parser import parse

    found = {}
    for entry in parse(documented.__doc__ or "").params:
        for name in entry.arg_name.split(","):
            found[name.strip()] = " ".join((entry.description or "").replace("``", "").split())
    return found
