"""What README and docs tell people to type can be typed.

Every ``foretide`` line of a code block goes through the parser of its command. Those about ``mine.csv`` and those that
only look are run in order, as they stand, in a process of their own, beside a small file of that name.
"""

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from app.cli import find_command, options_of
from app.report import OWN_FILE

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`foretide ([^`]+)`")
# placeholders of inline examples, and a model that docs/models.md makes up
MADE_UP = re.compile(r"\b(FILE|FOLDER|RUN|COMMAND|NAME)\b|--model linear")


class Typed(NamedTuple):
    """A command of a page."""

    page: str
    words: list[str]


def commands() -> list[Typed]:
    """The ``foretide`` lines of all code blocks, without comments, continued lines joined."""
    found = []
    for page in PAGES:
        for language, block in BLOCK.findall(page.read_text(encoding="utf-8")):
            lines = block.replace("\\\n", " ").splitlines() if language != "python" else []
            words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines if "foretide" in line]
            found += [Typed(page.name, line) for line in words if line[:1] == ["foretide"]]
    return found


def inline() -> list[Typed]:
    """The ``foretide`` commands inside sentences and tables, where they are complete."""
    texts = [(page.name, text) for page in PAGES for text in INLINE.findall(page.read_text(encoding="utf-8"))]
    return [Typed(name, ["foretide", *shlex.split(text)]) for name, text in texts if not MADE_UP.search(text)]


def test_there_are_commands_to_test() -> None:
    assert len([typed for typed in commands() if typed.page == "README.md"]) >= 5


@pytest.mark.parametrize("typed", commands(), ids=lambda typed: " ".join(typed.words[:6]))
def test_a_command_parses(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    command, rest = find_command(typed.words[1:])
    assert command is not None
    options_of(command, rest).parse(rest).arguments()


@pytest.mark.parametrize("typed", inline(), ids=lambda typed: " ".join(typed.words[:6]))
def test_a_command_in_a_sentence_parses(typed: Typed) -> None:
    if typed.words[1:] in (["--help"], ["--version"]):
        return
    command, rest = find_command(typed.words[1:])
    if command is not None:
        options_of(command, rest).parse([word for word in rest if word not in ("--help", "--print_config")])


@pytest.mark.parametrize("line", [command for _, command in OWN_FILE])
def test_the_commands_of_the_report_parse(line: str) -> None:
    command, rest = find_command(line.split()[1:])
    assert command is not None
    options_of(command, rest).parse(rest).arguments()


def test_the_commands_on_a_file_of_ones_own_run(tmp_path: Path) -> None:
    rows = np.arange(900)
    load, flow = (100 + 20 * np.sin(2 * np.pi * (rows + shift) / 24) for shift in (0, 6))
    stamps = (np.datetime64("2024-01-01T00", "h") + rows).astype(str)
    lines = [f"{stamp}:00,{a:.2f},{b:.2f}" for stamp, a, b in zip(stamps, load, flow, strict=True)]
    (tmp_path / "mine.csv").write_text("\n".join(["time,load,flow", *lines]) + "\n", encoding="utf-8")
    looks = (["foretide", "runs", "list"], ["foretide", "models", "list"])
    chosen = [typed.words for typed in commands() if "mine.csv" in typed.words or typed.words in looks]
    assert any("train" in words for words in chosen) and any("forecast" in words for words in chosen)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FORETIDE_HOME": str(tmp_path / ".foretide")}
    for words in chosen:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", *words[1:]],
            cwd=tmp_path,
            env=environment,
            text=True,
            capture_output=True,
            check=False,
            timeout=200,
        )
        assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}"
        for target in (words[at + 1] for at, word in enumerate(words) if word == "--output"):
            assert (tmp_path / target).stat().st_size > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_is_python_and_imports_what_exists(page: Path) -> None:
    for language, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and "linear" not in node.module:
                module = importlib.import_module(node.module)
                assert all(
                    hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")
                    for alias in node.names
                )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:configs|docs|datasets|forecasting|app|benchmarks|tests|kernels)/[\w./-]*)`", text)
    made_up = {"forecasting/models/linear.py", "tests/kernels/"}
    assert [name for name in named if name not in made_up and not (ROOT / name).exists()] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150
