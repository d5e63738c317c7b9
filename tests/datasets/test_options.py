"""Option dataclasses from plain data: everything declared is taken, everything else is one clear line."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from datasets.errors import ForetideError
from datasets.options import build, plain, require, tunable
from datasets.scaling import ScalingOptions


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    kind: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        require(self.rate > 0, "inner.rate", self.rate, "a positive number")


@dataclass(frozen=True)
class Outer:
    count: int
    name: str | None = None
    flag: bool = False
    where: Path = Path()
    parts: list[int] = field(default_factory=list)
    units: dict[str, str] | None = None
    inner: Inner = field(default_factory=Inner)
    free: dict[str, Any] = field(default_factory=dict)
    width: int = tunable(8, choices=(4, 8))
    speed: float = tunable(1e-3, low=1e-4, high=1e-1, log=True)


FULL = {
    "count": 3,
    "name": "x",
    "flag": True,
    "where": "a/b",
    "parts": [1, 2],
    "units": {"OT": "°C"},
    "inner": {"rate": 2, "kind": "b"},
    "free": {"anything": [1, {"deep": None}]},
    "width": 4,
    "speed": 0.01,
}


def test_plain_values_make_the_dataclass() -> None:
    made = build(Outer, FULL, "run.yaml")
    assert made == Outer(
        3, "x", True, Path("a/b"), [1, 2], {"OT": "°C"}, Inner(2.0, "b"), {"anything": [1, {"deep": None}]}, 4, 0.01
    )
    assert isinstance(made.inner.rate, float)
    assert build(Outer, {"count": 1}, "run.yaml") == Outer(1)
    assert build(Outer, {"count": 1, "inner": Inner(3.0)}, "run.yaml").inner.rate == 3.0


def test_plain_is_the_inverse_of_build() -> None:
    made = build(Outer, FULL, "run.yaml")
    assert plain(made) == {**FULL, "inner": {"rate": 2.0, "kind": "b"}}
    assert build(Outer, plain(made), "again") == made
    assert plain(ScalingOptions()) == {"kind": "standard", "transform": "none", "lower": 0.0, "upper": 1.0}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, ["'count'", "missing"]),
        ({"count": 1, "colour": 2}, ["'colour'"]),
        ({"count": "many"}, ["count", "'many'"]),
        ({"count": True}, ["count", "True"]),
        ({"count": 1.5}, ["count", "1.5"]),
        ({"count": None}, ["count", "None"]),
        ({"count": 1, "flag": 1}, ["flag", "1"]),
        ({"count": 1, "parts": "12"}, ["parts", "list"]),
        ({"count": 1, "parts": [1, "2"]}, ["parts[1]", "'2'"]),
        ({"count": 1, "units": {"OT": 3}}, ["units", "3"]),
        ({"count": 1, "units": ["OT"]}, ["units", "['OT']"]),
        ({"count": 1, "inner": {"kind": "c"}}, ["inner: kind", "'c'", "a, b"]),
        ({"count": 1, "inner": {"rate": -1}}, ["inner.rate", "-1", "a positive number"]),
        ({"count": 1, "inner": 5}, ["inner", "5", "mapping"]),
        ({"count": 1, "inner": {"class_path": "os.system"}}, ["inner", "class_path"]),
        ([1, 2], ["[1, 2]", "mapping"]),
    ],
)
def test_what_is_not_declared_is_refused_in_one_line(values: Any, words: list[str]) -> None:
    with pytest.raises(ForetideError) as caught:
        build(Outer, values, "run.yaml")
    message = str(caught.value)
    assert all(word in message for word in words) and "\n" not in message
    assert message.startswith("run.yaml") or "inner.rate" in message


def test_a_field_carries_its_tuning_range() -> None:
    ranges = {f.name: f.metadata.get("tune") for f in dataclasses.fields(Outer)}
    assert ranges["width"] == {"choices": (4, 8)}
    assert ranges["speed"] == {"low": 1e-4, "high": 1e-1, "log": True}
    assert ranges["count"] is None


def test_a_value_out_of_range_says_what_was_expected() -> None:
    require(True, "x", 1, "anything")
    with pytest.raises(ForetideError, match=r"training\.batch_size: found 0, expected at least 1"):
        require(False, "training.batch_size", 0, "at least 1")
