"""Functions have at most 40 lines; few are longer, and they are listed here."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINES = 40
LONGER = {
    "supervisor/control/server.py: __init__",
    "supervisor/ctl/errors.py: _explain",
    "workers/accessory/enter/arguments.py: parse_arguments",
}


def long_functions() -> set[str]:
    return {
        f"{path.relative_to(ROOT)}: {node.name}"
        for top in ("supervisor", "workers")
        for path in (ROOT / top).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if (node.end_lineno or 0) - node.lineno >= LINES
    }


def test_few_functions_are_long() -> None:
    assert long_functions() - LONGER == set(), f"split the function: it has more than {LINES} lines"
    assert LONGER - long_functions() == set(), f"take the function from LONGER: it has at most {LINES} lines now"
    assert len(LONGER) <= 3
