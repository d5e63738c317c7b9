"""Option dataclasses: tuning ranges that live with the fields, and strict construction from plain YAML.

The command line builds the same dataclasses through jsonargparse. This module serves the places that have a
mapping in hand: a stored artifact, or a compute node that holds the lower packages alone.
"""

import dataclasses
import datetime
import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from datasets.errors import ForetideError

T = TypeVar("T")
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    dict: "pairs NAME=TEXT",
}
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def tunable(
    default: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    log: bool = False,
    choices: tuple[Any, ...] | None = None,
) -> Any:
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
    for key in values:
        if key not in fields:
            raise unknown_option(where, str(key), fields)
    made = {key: convert(hints[key], value, f"{where}: {key}") for key, value in values.items()}
    missing = [
        name
        for name, field in fields.items()
        if name not in made and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
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


def overlaid(given: T, base: T) -> T:
    """The options of ``base``, with those of ``given`` that differ from their defaults on top."""
    kind = type(given)
    made: Any = {field.name: getattr(base, field.name) for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    untouched = kind()
    for name in made:
        if getattr(given, name) != getattr(untouched, name):
            made[name] = getattr(given, name)
    return kind(**made)


def unknown_option(where: str, name: str, known: Iterable[str]) -> ForetideError:
    """The error for an option that does not exist; a class or function in its place is called what it is."""
    if name.rpartition(".")[2] in ("class_path", "init_args"):
        return ForetideError(f"{where}: found {name!r}; a config holds values only, never a class or function")
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(names)}"
    return ForetideError(f"{where}: unknown option {name!r}; {hint}")


def expected(hint: Any) -> str:
    """A type in plain words, for a message."""
    members = [member for member in typing.get_args(hint) if member is not type(None)]
    if type(None) in typing.get_args(hint):
        return expected(members[0])
    origin = typing.get_origin(hint) or hint
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, members))}"
    if origin is list:
        return "numbers" if members[:1] in ([float], [int]) else "one or more names"
    return _WORDS.get(origin, getattr(origin, "__name__", str(origin)))


def convert(hint: Any, value: Any, where: str) -> Any:
    """The value as its type wants it, strictly: nothing but what YAML itself confuses is turned into something else.

    Raises:
        ForetideError: The value is of another type.
    """
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(typing.get_args(hint), value, where)
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise ForetideError(f"{where}: found {value!r}, expected {expected(hint)}")
        return value
    if origin in (list, tuple):
        return _convert_sequence(hint, origin, value, where)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ForetideError(f"{where}: found {value!r}, expected a mapping")
        inner = typing.get_args(hint)[1]
        return {str(key): convert(inner, item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, where)  # type: ignore[arg-type]
    return _convert_literal(hint, value, where)


def _convert_union(members: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in members:
        return None
    failure = ForetideError(f"{where}: found {value!r}")
    for member in (member for member in members if member is not type(None)):
        try:
            return convert(member, value, where)
        except ForetideError as error:
            failure = error
    raise failure


def _convert_sequence(hint: Any, origin: type, value: Any, where: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise ForetideError(f"{where}: found {value!r}, expected a list")
    inner = typing.get_args(hint)[0]
    return origin(convert(inner, item, f"{where}[{position}]") for position, item in enumerate(value))


def _convert_literal(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    # YAML takes 1e-4 for text, and a bare ISO date for a date
    if hint is float and isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    if hint is str and isinstance(value, datetime.date):
        return value.isoformat()
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ForetideError(f"{where}: found {value!r}, expected {expected(hint)}")
