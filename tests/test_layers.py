"""The layers: imports point downwards only, and the lower packages need little to be imported."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BELOW = {
    "datasets": set(),
    "kernels": set(),
    "forecasting": {"kernels", "datasets"},
    "surrogates": {"kernels", "datasets"},
    "app": {"forecasting", "surrogates", "kernels", "datasets"},
    "dashboards": {"app", "forecasting", "surrogates", "kernels", "datasets"},
}
ABOVE_ALL = {"benchmarks", "tests"}
LOWER = ("datasets", "kernels", "forecasting", "surrogates")
AT_TOP = {"torch", "pytorch_lightning", "numpy", "scipy", "xarray", "yaml"}
FILES = [path for package in BELOW for path in sorted((ROOT / package).rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def modules(node: ast.AST) -> list[str]:
    """Top-level names that an import statement brings; none for relative imports, which stay in their package."""
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [node.module.split(".")[0]]
    return []


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported: no function bodies, nothing that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from run_at_import(child)


def upward(source: str, package: str) -> list[str]:
    """Imports in ``source`` that a file of ``package`` must not have, those inside functions included."""
    forbidden = (set(BELOW) | ABOVE_ALL) - BELOW[package] - {package}
    return [
        f"line {node.lineno}: {name}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in modules(node)
        if name in forbidden
    ]


def heavy(source: str, allowed: set[str]) -> list[str]:
    """Imports that run when the module is imported, and are neither ours, nor the standard library's, nor allowed."""
    light = set(sys.stdlib_module_names) | set(BELOW) | allowed
    return [
        f"line {node.lineno}: {name}"
        for node in run_at_import(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in modules(node)
        if name not in light
    ]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_downwards_only(path: Path) -> None:
    assert not upward(path.read_text(encoding="utf-8"), path.relative_to(ROOT).parts[0])


@pytest.mark.parametrize("path", [path for path in FILES if path.relative_to(ROOT).parts[0] in LOWER], ids=name_of)
def test_lower_packages_import_little_at_the_top(path: Path) -> None:
    """A compute node has torch, Lightning, xarray, numpy and scipy; frames and stores are imported where needed."""
    fused = path.relative_to(ROOT).parts[0] == "kernels" and path.name == "fused.py"
    assert not heavy(path.read_text(encoding="utf-8"), AT_TOP | ({"triton"} if fused else set()))


def test_an_upward_import_is_found_wherever_it_stands() -> None:
    source = (
        "import numpy\nfrom datasets import schema\n"
        "def f():\n    from app.runs import RunStore\n    import surrogates.x\n"
    )
    assert upward(source, "forecasting") == ["line 4: app", "line 5: surrogates"]
    assert upward("from forecasting import engine", "dashboards") == []
    assert upward("import kernels", "datasets") == ["line 1: kernels"]
    assert upward("from benchmarks import harness", "app") == ["line 1: benchmarks"]


def test_a_heavy_import_is_found_unless_it_is_lazy() -> None:
    source = (
        "import polars\ntry:\n    import pandas as pd\nexcept ImportError:\n    pass\n"
        "if TYPE_CHECKING:\n    import zarr\ndef f():\n    import duckdb\n"
        "from torch import nn\nfrom . import mlflow\n"
    )
    assert heavy(source, AT_TOP) == ["line 1: polars", "line 3: pandas"]
