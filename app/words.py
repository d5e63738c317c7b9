"""The words of a command line, made regular: flags without a value, lists, pairs and words without a flag."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.flags import Flag
from datasets.errors import ForetideError
from datasets.options import expected

HELP, CONFIG, PRINT = ("-h", "--help"), "--config", "--print_config"
_NUMBER = re.compile(r"-[\d.]")
_FILE = Flag("config", str, "read options from this YAML file; those on the command line win")


def regular(
    words: Sequence[str], flags: Sequence[Flag], positional: Sequence[str], prog: str
) -> Iterator[tuple[str, str]]:
    """Every option of a command line with its value, as the parser wants it: JSON for lists and mappings.

    Args:
        words: ``--promote``, ``--reader.past a b``, ``--reader.units load=MW`` and words without a flag included.
        positional: Options that may be given without their flag, in order; a list takes all words that follow.
        prog: How the command is called.

    Raises:
        ForetideError: There is no such option, or it lacks its value.
    """
    known, left, bare = {flag.text: flag for flag in [*flags, _FILE]}, list(words), list(positional)
    missing = [flag.text for flag in flags if flag.required and not positional]
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if name in known:
            flag, given = known[name], [value] if equals else _taken(known[name], left)
        elif word.startswith("-") and not _NUMBER.match(word):
            raise _no_such(name, known, prog)
        elif bare:
            flag = known[f"--{bare.pop(0)}"]
            given = [word, *(_taken(flag, left) if flag.kind is list else [])]
        else:
            raise _stray(word, missing, prog)
        missing = [text for text in missing if text != flag.text]
        yield flag.text, _value(flag, given)


def _taken(flag: Flag, left: list[str]) -> list[str]:
    """Takes the words that are the value of a flag from those that are left."""
    many, taken = flag.kind in (list, dict), list[str]()
    while left and (many or not taken):
        word = left[0]
        another = word.startswith("--") or word in HELP or (many and word.startswith("-") and not _NUMBER.match(word))
        if another or (flag.kind is bool and word.lower() not in ("true", "false")):
            break
        taken.append(left.pop(0))
    return taken


def _value(flag: Flag, words: list[str]) -> str:
    if flag.kind is bool:
        return words[0].lower() if words else "true"
    if not words:
        raise ForetideError(f"{flag.text}: found nothing after it, expected {expected(flag.hint)}")
    if flag.kind is list:
        return json.dumps(_items(flag, words))
    return json.dumps(_pairs(flag, words)) if flag.kind is dict else words[0]


def _items(flag: Flag, words: list[str]) -> list[Any]:
    """``a b``, ``a,b`` or ``[a, b]``; a name that holds a comma needs the last form, with quotes."""
    if words[0].startswith("["):
        items = [str(item) for item in _yaml(flag, words, list)]
    else:
        items = [item.strip() for word in words for item in word.split(",") if item.strip()]
    try:
        return [flag.inner(item) for item in items]
    except ValueError as error:
        raise _refused(flag, words) from error


def _pairs(flag: Flag, words: list[str]) -> dict[str, str]:
    """``a=x b=y``, or ``{a: x, b: y}``."""
    if words[0].startswith("{"):
        return {str(key): str(value) for key, value in _yaml(flag, words, dict).items()}
    if not all("=" in word for word in words):
        raise _refused(flag, words)
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _yaml(flag: Flag, words: list[str], kind: type) -> Any:
    import yaml

    try:
        found = yaml.safe_load(" ".join(words))
    except yaml.YAMLError as error:
        raise _refused(flag, words) from error
    if not isinstance(found, kind):
        raise _refused(flag, words)
    return found


def _refused(flag: Flag, words: list[str]) -> ForetideError:
    return ForetideError(f"{flag.text}: found {' '.join(words)!r}, expected {expected(flag.hint)}")


def _no_such(name: str, known: Mapping[str, Flag], prog: str) -> ForetideError:
    members = [text for text in known if text.startswith(f"{name}.")]
    if members:
        return ForetideError(
            f"{name}: is a group of options; give them one by one, such as {members[0]}, "
            f"or all of them in a file for {CONFIG}"
        )
    close = difflib.get_close_matches(name, [*known, PRINT, "--help"], n=1)
    hint = f"did you mean {close[0]}?" if close else f"see '{prog} --help'"
    return ForetideError(f"{name}: there is no such option; {hint}")


def _stray(word: str, missing: Sequence[str], prog: str) -> ForetideError:
    hint = f"did you mean {missing[0]} {word}?" if missing else f"see '{prog} --help'"
    return ForetideError(f"{word!r}: found a word without a flag before it; {hint}")
