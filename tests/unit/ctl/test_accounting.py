"""`accounting`: what is asked for, and how it is shown."""

from __future__ import annotations

import json
import time
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from supervisor.control.errors import ServiceError
from supervisor.control.verbs import METHODS
from supervisor.ctl import exit_code
from supervisor.ctl.moment import moment
from tests.unit.control.fake_core import FakeCore

Spawnctl = Callable[..., int]
Supervise = Callable[..., None]
Capture = pytest.CaptureFixture[str]
METHOD = "io.spawnd.Call"
NOTHING = dict.fromkeys(
    ("cpu_total", "cpu_user", "cpu_system", "memory_peak", "memory_events_high", "memory_events_max",
     "memory_events_oom", "pids_peak", "pids_forks", "pids_events_max", "first", "last")
)  # fmt: skip
USED = {"cpu_total": 7.5, "cpu_user": 7.0, "cpu_system": 0.5, "memory_peak": 3 << 20, "pids_peak": 4, "pids_forks": 0}
REPLY = {
    "groups": [
        {**NOTHING, **USED, "name": 'a,"b\x1b', "cgroups": 2},
        {**NOTHING, "name": None, "cgroups": 1},
    ],
    "all": {**NOTHING, **USED, "name": None, "cgroups": 3},
}


def replying(core: FakeCore) -> None:
    METHODS[METHOD] = lambda exchange, _: exchange.reply({"reply": REPLY})


def echo(core: FakeCore) -> None:
    METHODS[METHOD] = lambda exchange, _: exchange.reply({"reply": exchange.call.parameters})


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ((), {}),
        (("/a/b.scope",), {"by": "path", "path": "/a/b.scope"}),
        (("/a", "--by", "scope", "--depth", "2"), {"by": "scope", "path": "/a", "depth": 2}),
        (("--by", "xattr:user.account"), {"by": "xattr", "xattr": "user.account"}),
        (("--where", "account=a=b", "--where", "x="), {"where": {"account": "a=b", "x": ""}}),
        (("--sort", "memory", "--top", "7"), {"sort": "memory_peak", "top": 7}),
        (("--since", "2026-11-21T22:40+00:00"), {"since": 1795300800.0}),
        (("--until", "2026-11-21T22:40Z"), {"until": 1795300800.0}),
    ],
)
def test_what_is_asked_for(
    spawnctl: Spawnctl, supervise: Supervise, capsys: Capture, arguments: tuple[str, ...], parameters: dict[str, Any]
) -> None:
    supervise(echo)
    assert spawnctl("accounting", "--json", *arguments) == exit_code.DONE
    asked = json.loads(capsys.readouterr().out)
    given = {
        "by": "scope",
        "path": "",
        "depth": 1,
        "xattr": None,
        "where": {},
        "since": None,
        "until": None,
        "sort": "cpu_usage_usec",
        "top": 20,
    }
    assert asked["name"] == "reaper"
    assert asked["method"] == "io.spawnd.reaper.Totals"
    assert asked["parameters"] == {**given, **parameters}


def test_a_table(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise(replying)
    assert spawnctl("accounting") == exit_code.DONE
    assert capsys.readouterr().out.splitlines() == [
        "NAME      CGROUPS    CPU   USER  SYSTEM  MEMORY  PROCS  FORKS  OOM",
        'a,"b\\x1b        2  7.50s  7.00s   0.50s    3.0M      4      0    -',
        "-               1      -      -       -       -      -      -    -",
        "TOTAL           3  7.50s  7.00s   0.50s    3.0M      4      0    -",
    ]


def test_csv_and_json(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise(replying)
    assert spawnctl("accounting", "--csv") == exit_code.DONE
    lines = capsys.readouterr().out.split("\n")
    assert lines[0].startswith("name,cgroups,cpu_total,")
    assert lines[1] == '"a,""b\x1b",2,7.5,7.0,0.5,3145728,,,,4,0,,,'
    assert lines[2] == ",1,,,,,,,,,,,,"
    assert spawnctl("accounting", "--json") == exit_code.DONE
    assert json.loads(capsys.readouterr().out) == REPLY


def test_a_reaper_without_a_database(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    error = ServiceError("reaper", "io.spawnd.reaper.NoDatabase", {})
    supervise(lambda core: METHODS.update({METHOD: lambda exchange, _: exchange.fail(error)}))
    assert spawnctl("accounting") == exit_code.FAILED
    assert capsys.readouterr().err == "spawnctl: reaper keeps no accounting: its options have no database\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--by", "size"),
        ("--by", "xattr:"),
        ("--depth", "0"),
        ("--top", "1001"),
        ("--where", "account"),
        ("--where", "=x"),
        ("--since", "soon"),
        ("--sort", "name"),
        ("/a", "/b"),
    ],
)
def test_wrong_usage(spawnctl: Spawnctl, arguments: tuple[str, ...]) -> None:
    assert spawnctl("accounting", *arguments) == exit_code.USAGE


@pytest.mark.parametrize("address", ["mysql:x", "sqlite:relative", "sqlite:/nonexistent/a.db"])
def test_a_database_that_is_none(spawnctl: Spawnctl, capsys: Capture, address: str) -> None:
    assert spawnctl("accounting", "--database", address) == exit_code.FAILED
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(("text", "ago"), [("90s", 90), ("5m", 300), ("24h", 86400), ("1.5d", 129600), ("2w", 1209600)])
def test_how_long_ago(text: str, ago: float) -> None:
    assert abs(time.time() - ago - moment(text)) < 5


def test_a_day_is_its_beginning_where_we_are() -> None:
    assert moment("2026-11-21") == datetime(2026, 11, 21).timestamp()


@pytest.mark.parametrize("text", ["", "5", "5y", "-5m", "21.11.2026", "2026-13-01"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        moment(text)
