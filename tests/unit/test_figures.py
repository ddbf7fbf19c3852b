"""The sizes and limits that docs/figures.md tells are those of the source."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
NEAR = 0.1  # part by which a size may differ: it is for readers, and not for bookkeepers
UNITS = {"MiB": 1 << 20}


def rows(heading: str) -> Iterator[list[str]]:
    """Yield the rows of the table in a section, without its two lines of head."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.split("\n") if line.startswith("|")]
    yield from ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:])


def number(text: str) -> float:
    return float(text.replace(",", ""))


def lines_of(path: Path) -> int:
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return sum(bool(line.strip()) for file in files for line in file.read_text(encoding="utf-8").split("\n"))


SIZES = list(rows("Instead of a library"))
LIMITS = list(rows("Limits"))


@pytest.mark.parametrize(("what", "lines", "files"), [row[:3] for row in SIZES], ids=[row[0] for row in SIZES])
def test_what_is_our_own_has_that_many_lines(what: str, lines: str, files: str) -> None:
    counted = sum(lines_of(ROOT / name) for name in re.findall(r"`([^`]+)`", files))
    assert abs(counted - number(lines)) <= NEAR * counted, f"{what} has {counted} lines, docs/figures.md says {lines}"


@pytest.mark.parametrize(("limit", "value", "constant"), LIMITS, ids=[row[2].strip("`") for row in LIMITS])
def test_a_limit_is_that_of_the_source(limit: str, value: str, constant: str) -> None:
    module, _, name = constant.strip("`").rpartition(".")
    found = getattr(importlib.import_module(module), name)
    unit = UNITS.get(limit.rpartition(" ")[2], 1)
    assert found == pytest.approx(number(value) * unit), f"{constant} is {found / unit:g}, docs/figures.md says {value}"


def test_the_tables_are_found() -> None:
    assert len(SIZES) > 1
    assert len(LIMITS) > 30
