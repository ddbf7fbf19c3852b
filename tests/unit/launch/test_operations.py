"""C reads the numbers that Python writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from supervisor.launch import acceptor, operations, program, session_table
from supervisor.launch.operations import Kind, operation
from supervisor.process import failure, fork, run

ROOM = Path(__file__).parents[3] / "supervisor" / "launch"


def test_kinds_have_the_same_numbers() -> None:
    names = re.search(r"enum kind \{(.*?)\};", (ROOM / "plan.h").read_text(), re.S)
    assert names is not None
    assert re.findall(r"\w+", names[1]) == [*(name for name in vars(Kind) if name.isupper()), "KINDS"]


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        ("plan.h", "PLAN_MAGIC", operations.MAGIC),
        ("plan.h", "PLAN_VERSION", operations.VERSION),
        ("start.c", "LEAST", program.BLOCK - 63),
        ("start.c", "NO_PROGRAM", program.NO_PROGRAM),
        ("arguments.h", "IS_THERE", failure.IS_THERE),
        ("arguments.h", "IS_COMMAND_LINE", failure.IS_COMMAND_LINE),
        ("walk.h", "UNSEARCHABLE", failure.UNSEARCHABLE),
        ("arguments.h", "IRREGULAR", failure.IRREGULAR),
        ("arguments.h", "ON_NOEXEC", failure.ON_NOEXEC),
        ("arguments.h", "INEXECUTABLE", failure.INEXECUTABLE),
        ("arguments.h", "OF_INTERPRETER", failure.OF_INTERPRETER),
        ("report.h", "EXIT_CHILD_FAILED", fork.EXIT_CHILD_FAILED),
        ("table.h", "MOST_SESSIONS", session_table.MOST_SESSIONS),
        ("sessions.h", "CONNECTION", acceptor.RESERVE),
        ("sessions.h", "TICKS", session_table.TICKS),
        ("plan.h", "EXPANDS", operations.EXPANDS),
        ("plan.h", "HAS_ARGV0", operations.HAS_ARGV0),
    ],
)
def test_numbers_are_the_same(file: str, name: str, value: int) -> None:
    found = re.search(rf"\b{name} = (\w+)", (ROOM / file).read_text())
    assert found is not None
    assert int(found[1], 0) == value


def test_rules_have_the_same_order() -> None:
    names = re.search(r"enum rule \{(.*?)\};", (ROOM / "table.h").read_text(), re.S)
    assert names is not None
    assert [name.lower() for name in re.findall(r"\w+", names[1])] == ["no_rule", *session_table.RULES[1:], "rules"]


def test_as_much_of_a_report_is_read_as_is_shared() -> None:
    found = re.search(r"\bSHARED_REPORT = (\d+) << (\d+)", (ROOM / "report.h").read_text())
    assert found is not None
    assert int(found[1]) << int(found[2]) == run.SHARED_REPORT


def test_no_string_ends_early() -> None:
    with pytest.raises(ValueError, match="embedded null byte"):
        operation(Kind.WRITE, "write", "/path", strings=["a\0b"])


def test_operations_fill_whole_words() -> None:
    for length in range(9):
        data = operation(Kind.WRITE, "s" * length, strings=["\udcff"])
        assert len(data) % 8 == 0
        assert int.from_bytes(data[12:16], "little") == len(data) or len(data) > 16
        assert b"\xff\0" in data
