"""What `make check` cannot see: ruff has limits for statements and complexity, and none for the lines of a function."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINES = 60  # a screen
TOO_LONG = {
    "src/mien/cli/prediction.py:predict",
    "src/mien/prediction/cluster.py:predict_cluster",
    "src/mien/reports/explanations.py:explain_groups",
    "src/mien/service/app.py:make_app",
}
"""To be shortened; none may be added."""


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
    assert {name for name, length in functions() if length > LINES} == TOO_LONG
