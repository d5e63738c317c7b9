"""Help that a newcomer can read: how a command is called, each option once with its meaning, an example."""

import shutil
import textwrap
from collections.abc import Sequence
from inspect import cleandoc
from typing import Any, Literal, get_args, get_origin

from app.flags import Flag, run_parameter
from app.options import Options
from app.words import CONFIG, PRINT

_METAVARS: dict[Any, str] = {int: "N", float: "X", list: "NAME ...", dict: "NAME=TEXT ...", bool: "{true,false}"}
_WIDEST, _COLUMN = 110, 30


def page(options: Options, example: str = "") -> str:
    """The help of a command.

    Args:
        example: One command line that works.
    """
    width = min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)
    paragraphs = cleandoc(options.function.__doc__ or "").split("Args:")[0].strip().split("\n\n")
    lines = [usage(options), ""]
    for paragraph in paragraphs:
        lines += [*textwrap.wrap(" ".join(paragraph.replace("``", "").split()), width), ""]
    groups = dict.fromkeys(["", *(flag.group for flag in options.flags)])
    for group in groups:
        members = [flag for flag in options.flags if flag.group == group]
        lines.append(f"{group} (--{members[0].name.split('.')[0]}.…):" if group else "options:")
        lines += [line for flag in members for line in _entry(_typed(flag, options), _meaning(flag), width)]
        if not group:
            for typed, meaning in _common(options):
                lines += _entry(typed, meaning, width)
        lines.append("")
    return "\n".join([*lines, f"example: {example}"] if example else lines[:-1])


def usage(options: Options) -> str:
    """How a command is called, in one line."""
    words = [f"usage: {options.prog}"]
    by_name = {flag.name: flag for flag in options.flags}
    for flag in (by_name[name] for name in options.positional):
        word = flag.name.upper() + (" ..." if flag.kind is list else "")
        words.append(word if flag.required else f"[{word}]")
    words += [_typed(flag, options) for flag in options.flags if flag.required and flag.name not in options.positional]
    return " ".join([*words, "[options]"])


def _common(options: Options) -> Sequence[tuple[str, str]]:
    spread = run_parameter(options.function) is not None
    return (
        (f"{CONFIG} FILE", "read options from this YAML file; those on the command line win"),
        (PRINT, "print all options as such a file, and do nothing else"),
        ("-h, --help", f"show this page{'; with --model NAME, for that model' if spread else ''}"),
    )


def _typed(flag: Flag, options: Options) -> str:
    if flag.name in options.positional:
        return flag.name.upper()
    return f"{flag.text} {_metavar(flag)}".rstrip()


def _metavar(flag: Flag) -> str:
    if get_origin(flag.hint) is Literal:
        return "{" + ",".join(map(str, get_args(flag.hint))) + "}"
    if flag.kind is bool and not flag.default:
        return ""
    if flag.kind is list and flag.inner in (int, float):
        return f"{_METAVARS[flag.inner]} ..."
    return _METAVARS.get(flag.kind, flag.name.split(".")[-1].upper())


def _meaning(flag: Flag) -> str:
    default = flag.default
    if isinstance(default, list):
        default = " ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in default)
    unsaid = flag.required or default in (None, "", False)
    return flag.help + ("" if unsaid else f" (default: {str(default).lower() if default is True else default})")


def _entry(typed: str, meaning: str, width: int) -> list[str]:
    """One option: its meaning beside it, or below where it is long."""
    lines = textwrap.wrap(meaning, width - _COLUMN, break_on_hyphens=False) or [""]
    lead = f"  {typed}"
    if len(lead) + 2 > _COLUMN:
        return [lead, *(" " * _COLUMN + line for line in lines)]
    return [lead.ljust(_COLUMN) + lines[0], *(" " * _COLUMN + line for line in lines[1:])]
