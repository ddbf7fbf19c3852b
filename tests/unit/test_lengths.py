"""Functions have at most 40 lines, and few, listed here, are longer; those of tests have 50. Files have at most 500."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINES = 40
LINES_OF_TEST = 50
LINES_OF_FILE = 500
LONGER = {
    "supervisor/control/server.py: __init__",
    "supervisor/ctl/errors.py: _explain",
    "workers/accessory/enter/arguments.py: parse_arguments",
}


def long_functions(lines: int, *folders: str) -> set[str]:
    return {
        f"{path.relative_to(ROOT)}: {node.name}"
        for top in folders
        for path in (ROOT / top).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if (node.end_lineno or 0) - node.lineno >= lines
    }


def test_few_functions_are_long() -> None:
    found = long_functions(LINES, "supervisor", "workers", "importer")
    assert found - LONGER == set(), f"split the function: it has more than {LINES} lines"
    assert LONGER - found == set(), f"take the function from LONGER: it has at most {LINES} lines now"
    assert len(LONGER) <= 3


def test_no_test_is_long() -> None:
    assert long_functions(LINES_OF_TEST, "tests") == set(), f"divide it: it has more than {LINES_OF_TEST} lines"


def test_no_file_is_long() -> None:
    for top in ("supervisor", "workers", "importer", "tests"):
        for path in (file for kind in ("*.py", "*.c", "*.h") for file in (ROOT / top).rglob(kind)):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            assert lines <= LINES_OF_FILE, f"divide {path.relative_to(ROOT)}: it has {lines} lines"
