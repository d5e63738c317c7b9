"""Option dataclasses: tuning ranges that live with the fields, and strict construction from plain YAML.

The command line builds the same dataclasses through jsonargparse. This module serves the places that have a
mapping in hand: a stored artifact, or a compute node that holds the lower packages alone.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from datasets.errors import ForetideError

T = TypeVar("T")


def tunable(default: Any, *, low: float | None = None, high: float | None = None, log: bool = False,
            choices: tuple[Any, ...] | None = None) -> Any:
    """A dataclass field with a default and the range that a tuning job may search.

    Args:
        default: Published or sensible value.
        low, high: Inclusive range of a number; ``log`` searches it on a logarithmic scale.
        choices: Discrete alternatives, in place of a range.
    """
    search = {"choices": choices} if choices is not None else {"low": low, "high": high, "log": log}
    return dataclasses.field(default=default, metadata={"tune": search})


def require(condition: bool, field: str, found: Any, expected: str) -> None:
    """Raises a one-line error about an option value unless ``condition`` holds."""
    if not condition:
        raise ForetideError(f"{field}: found {found!r}, expected {expected}")


def build(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Makes the dataclass ``kind`` from plain values, and refuses everything that it does not declare.

    Args:
        kind: A dataclass; its fields may be literals, lists, mappings, optionals and further dataclasses.
        values: What a YAML or JSON file held: nothing but mappings, lists, strings, numbers and None.
        where: The file, and the path inside it, for the message.

    Raises:
        ForetideError: An unknown key, a wrong type, or a value that the dataclass itself rejects.
    """
    if not isinstance(values, Mapping):
        raise ForetideError(f"{where}: found {values!r}, expected a mapping of options")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    unknown = [str(key) for key in values if key not in fields]
    if unknown:
        raise ForetideError(f"{where}: unknown option {unknown[0]!r}; expected one of {', '.join(sorted(fields))}")
    made = {key: _convert(hints[key], value, f"{where}: {key}") for key, value in values.items()}
    missing = [name for name, field in fields.items()
               if name not in made and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING]
    if missing:
        raise ForetideError(f"{where}: {missing[0]!r} is missing")
    return kind(**made)


def plain(options: Any) -> Any:
    """The nested mappings, lists and literals of an option dataclass: what YAML and JSON can hold."""
    if dataclasses.is_dataclass(options) and not isinstance(options, type):
        return {field.name: plain(getattr(options, field.name)) for field in dataclasses.fields(options)}
    if isinstance(options, Mapping):
        return {str(key): plain(value) for key, value in options.items()}
    if isinstance(options, (list, tuple)):
        return [plain(value) for value in options]
    return str(options) if isinstance(options, Path) else options


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(typing.get_args(hint), value, where)
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise ForetideError(f"{where}: found {value!r}, expected one of {', '.join(map(str, typing.get_args(hint)))}")
        return value
    if origin in (list, tuple):
        return _convert_sequence(hint, origin, value, where)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ForetideError(f"{where}: found {value!r}, expected a mapping")
        inner = typing.get_args(hint)[1]
        return {str(key): _convert(inner, item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, where)  # type: ignore[arg-type]
    return _convert_literal(hint, value, where)


def _convert_union(members: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in members:
        return None
    failure = ForetideError(f"{where}: found {value!r}")
    for member in (member for member in members if member is not type(None)):
        try:
            return _convert(member, value, where)
        except ForetideError as error:
            failure = error
    raise failure


def _convert_sequence(hint: Any, origin: type, value: Any, where: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise ForetideError(f"{where}: found {value!r}, expected a list")
    inner = typing.get_args(hint)[0]
    return origin(_convert(inner, item, f"{where}[{position}]") for position, item in enumerate(value))


def _convert_literal(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ForetideError(f"{where}: found {value!r}, expected {getattr(hint, '__name__', hint)}")
