"""Output on terminals of every width: nothing is wider, and what matters is there."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from supervisor.ctl.output import NARROWEST, Terminal, width, wrap
from supervisor.ctl.verbs import list as list_verb
from supervisor.ctl.verbs import monitor, status, why
from supervisor.ctl.verbs.plan import key_lines, setting_lines

WIDTHS = [40, 60, 79, 80, 100, 200]
REASON = "its process exited with status 3; failure 4 of 10, next start in 2.1 s"
LONG = "it could not open '/srv/customers/example/logs/access.log': Permission denied (EACCES)"


def service(name: str, state: str, **keys: Any) -> dict[str, Any]:
    known = {"pid": 12345, "state_s": 3600.0, "uptime_s": 3600.0, "restarts": 17, "memory_bytes": 123_000_000}
    return {"name": name, "state": state, "cpu_s": 12.5, "reason": REASON, "description": "serves", **known, **keys}


@pytest.mark.parametrize("columns", WIDTHS)
def test_list_keeps_name_state_and_reason(columns: int) -> None:
    rows = [service("customer-frontend", "backoff", pid=None), service("db", "running"), service("w", "failed")]
    lines = list_verb.table(rows, Terminal(columns))
    assert max(map(width, lines)) <= columns
    for line, row in zip(lines[1:], rows, strict=True):
        assert line.startswith(row["name"])
        assert row["state"] in line
    assert "its proc" in lines[1]
    assert (REASON in lines[1]) == (columns >= 200)


def test_list_leaves_out_only_what_has_to_go() -> None:
    rows = [service("web", "backoff")]
    assert list_verb.table(rows, Terminal(200))[0].split() == list(list_verb.TITLES)
    assert list_verb.table(rows, Terminal(100))[0].split() == ["NAME", "STATE", "PID", "FOR", "RESTARTS", "DESCRIPTION"]
    assert list_verb.table(rows, Terminal(60))[0].split() == ["NAME", "STATE", "DESCRIPTION"]
    well = [service("web", "running")]
    assert list_verb.table(well, Terminal(72))[0].split() == list(list_verb.TITLES), "a description can be cut"


def test_list_cuts_a_name_that_would_leave_no_room() -> None:
    (line,) = list_verb.table([service("n" * 64, "failed")], Terminal(60))[1:]
    assert width(line) <= 60
    assert "failed" in line
    assert "its proc" in line


@pytest.mark.parametrize("columns", WIDTHS)
def test_why(columns: int) -> None:
    links = [
        {"name": "customer-frontend", "state": "waiting", "state_s": 12.0, "text": "it needs customer-backend"},
        {"name": "customer-backend", "state": "failed", "state_s": 99999.0, "text": LONG},
    ]
    reply = {"answer": LONG, "chain": links, "hint": LONG, "root": "customer-backend", "lines": ["x" * 300, LONG, ""]}
    lines = why.explain(reply, Terminal(columns))
    assert max(map(width, lines)) <= columns
    joined = "".join("".join(lines).split())
    assert joined.count("".join(LONG.split())) == 4, "nothing is left out"
    assert why.explain(reply, Terminal())[0] == LONG, "only a terminal has a width"


@pytest.mark.parametrize("columns", WIDTHS)
def test_monitor(columns: int) -> None:
    change = {"at": "2026-11-21T22:40:01.123456+00:00", "name": "customer-frontend", "old": "reloading",
              "state": "stopping", "pid": 12345, "reason": LONG, "skipped": 1}  # fmt: skip
    line = monitor.line(change, 20, Terminal(columns))
    assert width(line) <= columns
    assert "stopping" in line
    assert "customer-f" in line
    assert "1 change before this one not read in time" in monitor.line(change, 20, Terminal())


@pytest.mark.parametrize("columns", WIDTHS)
def test_status(columns: int) -> None:
    row = service("customer-frontend", "backoff", waits="", next_start_s=2.14, status_text=LONG, last_exit=REASON,
                  disconnected=LONG, failures=1, start_limit=None, task=False, ready="notify", restart="always",
                  depends=["a" * 30] * 9, after=[], descriptors=3,
                  file="/etc/spawnd/services.d/customer.lua", line=3, internal=False)  # fmt: skip
    lines = status.describe(row, Terminal(columns))
    assert max(map(width, lines)) <= max(columns, 61), "the line of the state is as long as it is"
    assert any("17, 1 failure" in line for line in lines)


@pytest.mark.parametrize("columns", WIDTHS)
def test_plan(columns: int) -> None:
    key: dict[str, Any] = {"key": "exec", "old": "/usr/local/bin/" + "a" * 30, "new": LONG, "asks": "restart"}
    key |= {"file": "/a.lua", "line": 3}
    row = {"change": "changed", "keys": [key]}
    lines = [*key_lines(row, columns), *setting_lines([{**key, "deferred": True}], columns)]
    assert max(map(width, lines)) <= columns


def test_lines_of_a_plan_are_full() -> None:
    key = {"key": "description", "old": "", "new": "one two three " * 9, "asks": "adopt", "file": "/a.lua", "line": 3}
    lines = key_lines({"change": "changed", "keys": [key]}, 60)
    assert len(lines) > 3
    for line, following in pairwise(lines):
        assert width(f"{line} {following.split()[0]}") > 60


@pytest.mark.parametrize(
    ("text", "columns", "lines"),
    [
        ("one two three", 9, ["one two three"]),  # no terminal is as narrow as that
        ("", 20, [""]),
        ("aaaa bbbb cccc dddd eeee", 20, ["aaaa bbbb cccc dddd", "eeee"]),
        ("a" * 45, 20, ["a" * 20, "a" * 20, "a" * 5]),
        ("aaaaaaaaaaaaaaaaaaaa bbbb", 20, ["a" * 20, "bbbb"]),
        ("日本語日本語日本語日本語", 20, ["日本語日本語日本語日", "本語"]),
    ],
)
def test_wrap(text: str, columns: int, lines: list[str]) -> None:
    assert wrap(text, columns) == lines
    assert wrap(text, None) == [text]
    assert wrap(text, columns + 4, before=4) == lines
    assert NARROWEST == 20
