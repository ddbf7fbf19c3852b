from __future__ import annotations

import pytest

from supervisor.ctl.output import Terminal, render
from supervisor.ctl.verbs import list as list_verb

TITLES = ("NAME", "N", "TEXT")
ROWS = [["web", "1", "serves pages"], ["a-long-name", "1000", ""]]


def test_columns_fit_what_is_in_them() -> None:
    assert render(TITLES, "<><", ROWS) == [
        "NAME            N  TEXT",
        "web             1  serves pages",
        "a-long-name  1000",
    ]


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (100, "web             1  serves pages"),
        (31, "web             1  serves pages"),
        (30, "web             1  serves pag…"),
        (20, "web             1  …"),
        (19, "web             1"),
        (17, "web             1"),
        (15, "web           …"),
        (3, "web"),
        (2, "w…"),
        (1, "…"),
    ],
)
def test_lines_are_cut(columns: int, line: str) -> None:
    lines = render(TITLES, "<><", ROWS, columns)
    assert lines[1] == line
    assert all(len(line) <= columns for line in lines)


def test_wide_and_combining_characters() -> None:
    lines = render(("A", "B"), "<<", [["日本", "x"], ["e\u0301", "y"], ["abcd", "z"]])
    assert lines == ["A     B", "日本  x", "e\u0301     y", "abcd  z"]
    assert render(("A",), "<", [["日本語"]], 5)[1] == "日本…"
    assert render(("A",), "<", [["日本語"]], 4)[1] == "日…"


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert render(("A",), "<", [["a\x1b[2J\nb\u202e"]])[1] == "a\\x1b[2J\\nb\\u202e"


def test_no_rows() -> None:
    assert render(TITLES, "<><", []) == ["NAME  N  TEXT"]


def test_cells_are_painted_after_they_are_padded() -> None:
    lines = render(TITLES, "<><", ROWS, None, lambda row, column, cell: f"[{cell}]" if column == 0 else cell)
    assert lines[1] == "[web        ]     1  serves pages"
    assert lines[0].startswith("NAME ")


def row(**values: object) -> dict[str, object]:
    usual: dict[str, object] = {
        "name": "web",
        "state": "running",
        "pid": 123,
        "state_s": 5.0,
        "restarts": 2,
        "uptime_s": 7500.0,
        "memory_bytes": 3 << 20,
        "cpu_s": 0.25,
        "description": "serves pages",
        "reason": "gone",
    }
    return usual | values


def test_the_list() -> None:
    down = row(
        name="db", state="failed", pid=None, uptime_s=None, memory_bytes=None, cpu_s=None, description="", state_s=90.0
    )
    assert list_verb.table([row(), down], Terminal()) == [
        "NAME  STATE    PID    FOR  RESTARTS  MEMORY    CPU  DESCRIPTION",
        "web   running  123  2h05m         2    3.0M  0.25s  serves pages",
        "db    failed     -  1m30s         2       -      -  gone",
    ]


@pytest.mark.parametrize("state", ["stopped", "starting", "running", "reloading", "stopping", "done"])
def test_what_does_not_fail_to_come_up_is_described(state: str) -> None:
    assert list_verb.cells(row(state=state))[-1] == "serves pages"


@pytest.mark.parametrize("state", ["waiting", "backoff", "failed"])
def test_of_what_does_not_come_up_the_reason_is_told(state: str) -> None:
    assert list_verb.cells(row(state=state))[-1] == "gone"


def test_the_list_on_a_terminal() -> None:
    lines = list_verb.table(
        [row(), row(state="failed"), row(state="backoff"), row(state="stopped")], Terminal(57, True)
    )
    assert lines[0] == "NAME  STATE    PID    FOR  RESTARTS  MEMORY    CPU  DESC…"
    assert lines[1] == "web   \x1b[32mrunning\x1b[0m  123  2h05m         2    3.0M  0.25s  serv…"
    assert lines[2].startswith("web   \x1b[31mfailed \x1b[0m  ")
    assert lines[3].startswith("web   \x1b[33mbackoff\x1b[0m  ")
    assert "\x1b" not in lines[4]
