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
from supervisor.ctl.errors import ExitCode
from supervisor.ctl.verbs.accounting import moment
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
    METHODS[METHOD] = lambda pending, _: pending.reply({"reply": REPLY})


def echo(core: FakeCore) -> None:
    METHODS[METHOD] = lambda pending, _: pending.reply({"reply": pending.call.parameters})


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ((), {}),
        (("/a/b.scope",), {"by": "path", "path": "/a/b.scope"}),
        (("/a", "--by", "path", "--depth", "2"), {"by": "path", "path": "/a", "depth": 2}),
        (("/a", "--depth", "3"), {"by": "path", "path": "/a", "depth": 3}),
        (("/ü",), {"by": "path", "path": "/ü"}),
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
    assert spawnctl("accounting", "--json", *arguments) == ExitCode.DONE
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
    assert spawnctl("accounting") == ExitCode.DONE
    assert capsys.readouterr().out.splitlines() == [
        "NAME      CGROUPS    CPU   USER  SYSTEM  MEMORY  PROCS  FORKS  OOM",
        'a,"b\\x1b        2  7.50s  7.00s   0.50s    3.0M      4      0    -',
        "-               1      -      -       -       -      -      -    -",
        "TOTAL           3  7.50s  7.00s   0.50s    3.0M      4      0    -",
    ]


def test_csv_and_json(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise(replying)
    assert spawnctl("accounting", "--csv") == ExitCode.DONE
    lines = capsys.readouterr().out.split("\n")
    assert lines[0].startswith("name,cgroups,cpu_total,")
    assert lines[1] == '"a,""b\x1b",2,7.5,7.0,0.5,3145728,,,,4,0,,,'
    assert lines[2] == ",1,,,,,,,,,,,,"
    assert spawnctl("accounting", "--json") == ExitCode.DONE
    assert json.loads(capsys.readouterr().out) == REPLY


def test_a_reaper_without_a_database(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    error = ServiceError("reaper", "io.spawnd.reaper.NoDatabase", {})
    supervise(lambda core: METHODS.update({METHOD: lambda pending, _: pending.fail(error)}))
    assert spawnctl("accounting") == ExitCode.FAILED
    assert capsys.readouterr().err == "spawnctl: reaper keeps no accounting: its options have no database\n"


def test_no_reaper(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise()
    assert spawnctl("accounting") == ExitCode.NO_SUCH_SERVICE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("spawnctl: there is no reaper: no definition has `reaper = {")
    assert "`make install PLATFORM=1`" in line
    assert "--service NAME" in line
    assert "--database DATABASE" in line
    assert spawnctl("accounting", "--service", "wbe") == ExitCode.NO_SUCH_SERVICE
    assert capsys.readouterr().err == "spawnctl: no such service 'wbe'; did you mean 'web'?\n"


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
        ("--depth", "2"),
        ("--by", "scope", "--depth", "2"),
        ("/a", "--by", "host", "--depth", "1"),
        ("--csv", "--json"),
        ("/a\udcff",),
        ("--where", "account=\udcff"),
        ("--by", "xattr:\udcff"),
    ],
)
def test_wrong_usage(spawnctl: Spawnctl, capsys: Capture, arguments: tuple[str, ...]) -> None:
    assert spawnctl("accounting", *arguments) == ExitCode.USAGE
    assert "Traceback" not in (said := capsys.readouterr().err)
    assert said


def test_what_is_not_utf8_is_told_as_the_accounting_has_it(spawnctl: Spawnctl, capsys: Capture) -> None:
    assert spawnctl("accounting", "/a\udcff") == ExitCode.USAGE
    assert "not UTF-8; the accounting has it as '/a\\xff'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "the accounting is empty"),
        (("/a",), "no cgroup at or below '/a' in the accounting: it is a path of /proc/PID/cgroup"),
        (("/a", "--csv"), "no cgroup at or below '/a' in the accounting"),
        (("--since", "1d"), "no cgroup in the accounting: --where, --since or --until may leave out what there is"),
    ],
)
def test_what_matches_nothing(
    spawnctl: Spawnctl, supervise: Supervise, capsys: Capture, arguments: tuple[str, ...], said: str
) -> None:
    reply = {"groups": [], "all": {**NOTHING, "name": None, "cgroups": 0}}
    supervise(lambda core: METHODS.update({METHOD: lambda pending, _: pending.reply({"reply": reply})}))
    assert spawnctl("accounting", *arguments) == ExitCode.DONE
    told = capsys.readouterr()
    assert told.err.startswith(f"spawnctl: {said}")
    assert told.out, "and an empty table"


@pytest.mark.parametrize("address", ["mysql:x", "sqlite:relative", "sqlite:/nonexistent/a.db"])
def test_a_database_that_is_none(spawnctl: Spawnctl, capsys: Capture, address: str) -> None:
    assert spawnctl("accounting", "--database", address) == ExitCode.FAILED
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
