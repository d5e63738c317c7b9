"""The artifact of a run: a folder of plain data, written whole, and checked part by part when it is read.

Nothing in it is ever unpickled or executed: tensors are safetensors, the rest is JSON and YAML for the safe loader.
"""

import json
import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.errors import ForetideError
from datasets.files import atomic_path, sha256

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
CONFIG = "config.yaml"
WEIGHTS = "weights.safetensors"
SCALING = "scaling.json"
SCHEMA = "schema.json"
METRICS = "metrics.json"
RUN = "run.json"
SUMS = "SHA256SUMS"
PARTS = (CONFIG, WEIGHTS, SCALING, SCHEMA, METRICS, RUN)

_AGAIN = "copy the artifact again from where it was made, or train anew"
_REQUIRED: dict[str, dict[str, type]] = {
    SCHEMA: {"format": int, "variates": list, "frequency": str, "lookback": int, "horizon": int},
    RUN: {"run_id": str},
}
_PASSWORD = re.compile(r"(\w://[^:/@\s]*:)[^@\s/]+@")
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{3,63}")


@dataclass(frozen=True)
class Artifact:
    """Everything that a forecast, or a repetition of the run, needs.

    Args:
        config: The complete run configuration, plain values only.
        weights: Tensors by name; ``model.`` and ``calibration.`` are the prefixes in use.
        scaling: Statistics of the training rows.
        schema: Variates, units, frequency, lookback, horizon, data checksum, code version.
        metrics: Scores, also by step and variate, and the training curve.
        run: Identifier, command, seed, start, seconds, versions, device.
    """

    config: dict[str, Any]
    weights: "dict[str, Tensor]"
    scaling: dict[str, Any]
    schema: dict[str, Any]
    metrics: dict[str, Any]
    run: dict[str, Any]


def new_run_id() -> str:
    """A fresh identifier: twelve hexadecimal digits."""
    return uuid.uuid4().hex[:12]


def write(folder: str | Path, artifact: Artifact, *, replace: bool = False) -> Path:
    """Writes the artifact as a folder, whole or not at all.

    Args:
        folder: Where; its parents are created.
        replace: Whether an artifact that stands there already may be replaced.

    Raises:
        ForetideError: The path cannot be written, the disk is full, or a part holds what cannot be stored.
    """
    import yaml

    target = Path(folder)
    config = _plain(artifact.config, f"{target / CONFIG}", strict=False)
    texts = {CONFIG: yaml.safe_dump(config, sort_keys=False, allow_unicode=True)}
    documents = {
        SCALING: artifact.scaling,
        SCHEMA: {"format": FORMAT, **artifact.schema},
        METRICS: artifact.metrics,
        RUN: artifact.run,
    }
    for name, content in documents.items():
        ready = _plain(content, f"{target / name}", strict=name in (SCALING, SCHEMA))
        _require_keys(target / name, ready)
        texts[name] = json.dumps(ready, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_path(target, replace_folder=replace) as temporary:
        temporary.mkdir()
        for name, text in texts.items():
            (temporary / name).write_text(text, encoding="utf-8")
        _write_weights(temporary / WEIGHTS, artifact.weights)
        write_sums(temporary, PARTS)
    return target


def load(folder: str | Path, *, weights: bool = True) -> Artifact:
    """Reads an artifact after it has checked the presence, checksum and form of every part.

    Args:
        folder: The folder that ``write`` made.
        weights: Whether tensors are read; without them the (possibly large) file is not hashed either.

    Raises:
        ForetideError: Names the part that is missing, truncated, altered or unreadable, or that is a pickle.
    """
    root = Path(folder)
    verify(root, weights=weights)
    documents = {name: _read_json(root / name) for name in (SCALING, SCHEMA, METRICS, RUN)}
    for name, content in documents.items():
        _require_keys(root / name, content)
    _check_format(root / SCHEMA, documents[SCHEMA])
    tensors = _read_weights(root / WEIGHTS) if weights else {}
    return Artifact(
        config=_read_yaml(root / CONFIG),
        weights=tensors,
        scaling=documents[SCALING],
        schema=documents[SCHEMA],
        metrics=documents[METRICS],
        run=documents[RUN],
    )


def verify(folder: str | Path, *, weights: bool = True) -> list[str]:
    """Compares every file with SHA256SUMS, and returns the names that it lists.

    Args:
        weights: Whether the weights file is hashed too; its presence, kind and size are always checked.
    """
    root = Path(folder)
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise ForetideError(f"{root}: found {found}, expected the folder of an artifact")
    sums = _read_sums(root / SUMS)
    for name in [*PARTS, *(name for name in sums if name not in PARTS)]:
        path = root / name
        if not path.is_file():
            raise ForetideError(f"{path}: is missing from the artifact; {_AGAIN}")
        if name == WEIGHTS:
            _refuse_pickle(path)
        if name not in sums:
            raise ForetideError(f"{root / SUMS}: does not list {name}, so the artifact is not complete; {_AGAIN}")
        _compare(path, *sums[name], hashed=weights or name != WEIGHTS)
    return list(sums)


def write_sums(folder: Path, names: tuple[str, ...]) -> None:
    """Writes SHA256SUMS for the named files, in the form that ``sha256sum --check`` reads; sizes stand in comments."""
    lines = [f"# {(folder / name).stat().st_size} {name}\n{sha256(folder / name)}  {name}\n" for name in names]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def _read_sums(path: Path) -> dict[str, tuple[str, int | None]]:
    if not path.is_file():
        raise ForetideError(f"{path}: is missing, so nothing in the folder can be checked; {_AGAIN}")
    sizes: dict[str, int] = {}
    sums: dict[str, tuple[str, int | None]] = {}
    for row, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if comment := re.fullmatch(r"# (\d+) (.+)", line):
            sizes[comment[2]] = int(comment[1])
        elif entry := re.fullmatch(r"([0-9a-f]{64}) [ *]([^/\\]+)", line):
            sums[entry[2]] = (entry[1], sizes.get(entry[2]))
        elif line and not line.startswith("#"):
            raise ForetideError(f"{path}: row {row}: found {line[:60]!r}, expected a checksum and a name; {_AGAIN}")
    return sums


def _compare(path: Path, digest: str, expected: int | None, *, hashed: bool) -> None:
    size = path.stat().st_size
    if expected is not None and size < expected:
        raise ForetideError(f"{path}: is truncated: found {size} bytes, expected {expected}; {_AGAIN}")
    if expected is not None and size > expected:
        raise ForetideError(f"{path}: was altered: found {size} bytes, expected {expected}; {_AGAIN}")
    if hashed and sha256(path) != digest:
        raise ForetideError(f"{path}: was altered: its content does not match the checksum in {SUMS}; {_AGAIN}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ForetideError(f"{path}: is not readable as JSON ({_one_line(error)}); {_AGAIN}") from error
    return _mapping(path, content)


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise ForetideError(f"{path}: is not readable as plain YAML ({_one_line(error)}); {_AGAIN}") from error
    return _mapping(path, {} if content is None else content)


def _mapping(path: Path, content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ForetideError(f"{path}: found a {type(content).__name__}, expected a mapping; {_AGAIN}")
    return content


def _require_keys(path: Path, content: Mapping[str, Any]) -> None:
    for key, kind in _REQUIRED.get(path.name, {}).items():
        if not isinstance(content.get(key), kind):
            raise ForetideError(f"{path}: {key}: found {content.get(key)!r}, expected a {kind.__name__}; {_AGAIN}")
    if path.name == RUN and not _RUN_ID.fullmatch(content["run_id"]):
        raise ForetideError(
            f"{path}: run_id: found {content['run_id']!r}, expected 4 to 64 letters, digits, '-' or '_'"
        )


def _check_format(path: Path, schema: Mapping[str, Any]) -> None:
    if schema["format"] > FORMAT:
        version = schema.get("code_version", "unknown")
        raise ForetideError(
            f"{path}: format: found {schema['format']} (written by version {version}), "
            f"expected at most {FORMAT}; update Foretide to read this artifact"
        )


def _write_weights(path: Path, weights: "Mapping[str, Tensor]") -> None:
    from safetensors.torch import save_file

    seen: set[int] = set()
    own = {}
    for name, tensor in weights.items():
        ready = tensor.detach().cpu().contiguous()
        storage = ready.untyped_storage().data_ptr()
        # Tied weights share memory, which the format has no word for: each name gets its own copy.
        own[name] = ready.clone() if storage in seen else ready
        seen.add(storage)
    save_file(own, path)


def _read_weights(path: Path) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ForetideError(f"{path}: is not readable as safetensors ({_one_line(error)}); {_AGAIN}") from error


def _refuse_pickle(path: Path) -> None:
    # A header of 640 bytes or so begins like a pickle; the brace that follows its length tells the two apart.
    with path.open("rb") as file:
        start = file.read(9)
    if start.startswith(_PICKLES) and start[8:] != b"{":
        raise ForetideError(
            f"{path}: found a pickle (as torch.save writes), expected safetensors; "
            "a pickle is never loaded, because it can run code"
        )


def _plain(value: Any, where: str, *, strict: bool) -> Any:
    """Lists, mappings and literals, without the password of a URL; a number that is not finite is null, or an error."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}: {key}", strict=strict) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, where, strict=strict) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), where, strict=strict)
    if isinstance(value, float) and not math.isfinite(value):
        if strict:
            raise ForetideError(
                f"{where}: found {value}, expected a finite number; check the data for a constant or empty variate"
            )
        return None
    if isinstance(value, str):
        return _PASSWORD.sub(r"\1***@", value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Path):
        return str(value)
    raise ForetideError(f"{where}: found a {type(value).__name__}, expected a number, text, list or mapping")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
