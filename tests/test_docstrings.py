"""What ruff does not look for: that the errors a function raises are announced."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("cnnjax/**/*.py"), *ROOT.glob("experiments/**/*.py")])


def public_functions(
    tree: ast.Module | ast.ClassDef, outer: str = ""
) -> Iterator[tuple[ast.FunctionDef, str]]:
    """Yields functions and methods with their docstring and their class's."""
    for node in tree.body:
        hidden = getattr(node, "name", "").startswith("_")
        if isinstance(node, ast.ClassDef) and not hidden:
            yield from public_functions(node, ast.get_docstring(node) or "")
        elif isinstance(node, ast.FunctionDef) and (
            not hidden or node.name in ("__init__", "__call__")
        ):
            yield node, f"{outer}\n{ast.get_docstring(node)}"


def raised(function: ast.FunctionDef) -> Iterator[str]:
    """Yields the names of the exceptions raised in a function's own body."""
    nodes: list[ast.AST] = list(function.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            continue
        nodes.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func).split(".")[-1]
            if not name.startswith("_"):
                yield name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_errors_are_announced(path: Path) -> None:
    for function, docstring in public_functions(ast.parse(path.read_text())):
        for name in raised(function):
            announced = f"Raises {name}" in docstring or (
                "Raises:" in docstring and f"{name}: " in docstring
            )
            assert announced, f"{function.name} does not say that it raises {name}"
