"""What `make check` cannot see: ruff has limits for statements and complexity, and none for the lines of a function."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINES = 60  # a screen


def lines(node):
    return node.end_lineno - node.lineno + 1


def functions():
    """Each function of the repository, by file and name, with its number of lines; its docstring is not counted."""
    for folder in ("src", "tests", "benchmarks", "docs"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    name = f"{path.relative_to(ROOT).as_posix()}:{node.name}"
                    yield name, lines(node) - (lines(node.body[0]) if ast.get_docstring(node) else 0)


def test_a_function_fits_a_screen():
    too_long = {name: length for name, length in functions() if length > LINES}
    assert not too_long, f"longer than {LINES} lines: {too_long}"
