"""plan, apply and graph on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from supervisor.ctl.errors import ExitCode
from supervisor.ctl.output import Terminal
from supervisor.ctl.verbs.plan import summary, title
from supervisor.definitions.service import Definitions, Service, Settings
from supervisor.lifecycle.life import Life, State
from tests.machine_of_services import NEEDS, ORDER, TREE
from tests.unit.control.fake_core import FakeCore

Spawnctl = Callable[..., int]
Supervise = Callable[..., None]
Capture = pytest.CaptureFixture[str]

DB, WEB = Service("db", exec="/db"), Service("web", exec="/web", depends=("db",))
NEW_WEB = replace(WEB, exec="/w", stop_timeout=3.0, file="/a.lua", line=2, lines={"exec": 3, "stop_timeout": 4})


def changed(core: FakeCore) -> None:
    """db and web run; web has changed, qotd is new, log_level too."""
    core.__init__(core.loop, [DB, WEB])  # type: ignore[misc]
    for unit in core.units.values():
        unit.life = Life(State.RUNNING, core.loop.clock(), starts=1)
    services = {each.name: each for each in (DB, NEW_WEB, Service("qotd", exec="/q", file="/a.lua", line=9))}
    settings = Settings(log_level="debug", places={"log_level": "/a.lua:1"})
    core.files = Definitions(services, settings, notices=("/a.lua:5: look",), digest="d1")


def wrong(core: FakeCore) -> None:
    core.problems = ["/a.lua:1: bad", "/a.lua:2: worse\x1b"]


PLAN = """\
web: restart: exec, stop_timeout changed
    exec: "/web" -> "/w"  [restart]  /a.lua:3
    stop_timeout: "10s" -> "3s"  [no restart]  /a.lua:4
qotd: start: new
    defined at /a.lua:9
_SUPERVISOR
    log_level: "info" -> "debug"  [no restart]  /a.lua:1
notice: /a.lua:5: look
Plan: 1 to restart, 1 to start, 1 of _SUPERVISOR
"""


def test_plan(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise(changed)
    assert spawnctl("plan") == ExitCode.FAILED
    assert capsys.readouterr() == (PLAN, "")
    assert spawnctl("plan", "--json") == ExitCode.FAILED
    captured = capsys.readouterr()
    assert captured.err == ""
    reply = json.loads(captured.out)
    assert reply["problems"] == []
    assert [row["name"] for row in reply["services"]] == ["web", "qotd"]


def test_plan_of_nothing(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise()
    assert spawnctl("plan") == ExitCode.DONE
    assert capsys.readouterr() == ("Nothing to do: 4 services are as defined\n", "")
    assert spawnctl("apply") == ExitCode.DONE
    assert capsys.readouterr() == ("Nothing to do\n", "")
    assert spawnctl("apply", "--quiet") == ExitCode.DONE
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("verb", "what"), [("plan", "the definitions are wrong"), ("apply", "nothing was changed")])
def test_wrong_definitions(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture, verb: str, what: str) -> None:
    supervise(wrong)
    assert spawnctl(verb) == ExitCode.FAILED
    captured = capsys.readouterr()
    assert captured.err == f"spawnctl: {what}: 2 problems\n"
    assert spawnctl("check") == ExitCode.FAILED
    assert capsys.readouterr().out == captured.out
    assert spawnctl(verb, "--json") == ExitCode.FAILED
    captured = capsys.readouterr()
    assert json.loads(captured.out)["problems"][0] == "/a.lua:1: bad"
    assert captured.err == f"spawnctl: {what}: 2 problems\n"


def test_apply(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise(changed)
    assert spawnctl("apply", "--expect", "d0") == ExitCode.FAILED
    assert capsys.readouterr().err == (
        "spawnctl: not the expected definitions, nothing was changed: their digest is d1\n"
    )
    assert spawnctl("apply", "--expect", "d1") == ExitCode.DONE
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.splitlines() == [
        "web: restart: exec, stop_timeout changed: running",
        "qotd: start: new: running",
        "_SUPERVISOR",
        '    log_level: "info" -> "debug"  [no restart]  /a.lua:1',
        "notice: /a.lua:5: look",
    ]
    assert spawnctl("plan") == ExitCode.DONE


def test_apply_that_fails(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    def set_up(core: FakeCore) -> None:
        changed(core)
        core.plans["qotd"] = "fails"

    supervise(set_up)
    assert spawnctl("apply", "--json") == ExitCode.FAILED
    captured = capsys.readouterr()
    assert captured.err == (
        "qotd: start: new: backoff: exited with status 1; its output is not kept: add `stderr = log()`\n"
    )
    rows = json.loads(captured.out)["services"]
    assert [(row["name"], row["ok"]) for row in rows] == [("web", True), ("qotd", False)]


def test_apply_that_is_not_waited_for(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    def set_up(core: FakeCore) -> None:
        changed(core)
        core.plans["web"] = "hangs"

    supervise(set_up)
    assert spawnctl("apply", "--no-wait") == ExitCode.DONE
    assert capsys.readouterr().out.startswith("web: restart: exec, stop_timeout changed: stopping: restart requested\n")


def test_titles() -> None:
    row = {"name": "a", "step": "rebuild", "reason": "fd\x1b changed", "reloads": False}
    assert title(row, Terminal()) == "a: sockets rebuilt, restart: fd\\x1b changed"
    assert title(row, Terminal(colours=True)) == "a: \x1b[33msockets rebuilt, restart\x1b[0m: fd\\x1b changed"
    row |= {"reloads": True, "reason": "x"}
    assert title(row | {"step": "limits"}, Terminal()) == "a: limits written, asked to reload: x"
    assert title(row | {"step": "reload"}, Terminal()) == "a: reload: x"


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        (["restart", "rebuild", "stop", "adopt"], "Plan: 2 to restart, 1 to stop, 1 without either"),
        (["limits", "reload", "adopt"], "Plan: 3 without either"),
        ([], "Nothing to do: 5 services are as defined"),
    ],
)
def test_summaries(steps: list[str], text: str) -> None:
    assert summary({"services": [{"step": step} for step in steps], "settings": [], "defined": 5}) == text


# graph


def needs(core: FakeCore) -> None:
    services = [DB, WEB, Service("logger"), Service("probe", depends=("web",), after=("logger",))]
    core.__init__(core.loop, services)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "db\n  web\n    probe\nlogger\n"),
        (("--after",), "db\n  web\n    probe\nlogger\n  probe\n"),
        (("--order",), "db logger\nweb\nprobe\n"),
        (("logger",), "logger\n"),
        (("w*",), "db\n  web\n    probe\n"),
        (("--order", "web"), "db\nweb\nprobe\n"),
        (("--order", "--json"), '[\n["db", "logger"],\n["web"],\n["probe"]\n]\n'),
    ],
)
def test_graph(
    spawnctl: Spawnctl, supervise: Supervise, capsys: Capture, arguments: tuple[str, ...], expected: str
) -> None:
    supervise(needs)
    assert spawnctl("graph", *arguments) == ExitCode.DONE
    assert capsys.readouterr().out == expected


def test_graph_in_other_forms(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise(needs)
    assert spawnctl("graph", "--json") == ExitCode.DONE
    reply = json.loads(capsys.readouterr().out)
    db = {"name": "db", "state": "stopped", "internal": False, "asked": None, "began": None, "came_up": None}
    assert reply["nodes"][0] == db
    assert {"from": "probe", "to": "logger", "kind": "after"} in reply["edges"]
    assert spawnctl("graph", "--dot") == ExitCode.DONE
    assert '  "logger" -> "probe" [style = dashed];\n' in capsys.readouterr().out
    assert spawnctl("graph", "--dot", "--json") == ExitCode.USAGE
    assert spawnctl("graph", "--dot", "--order") == ExitCode.USAGE
    assert spawnctl("graph", "nope") == ExitCode.NO_SUCH_SERVICE


def whole_machine(core: FakeCore) -> None:
    services = [Service(name, depends=needed) for name, needed in NEEDS.items()]
    core.__init__(core.loop, services)  # type: ignore[misc]


def test_the_graph_of_a_whole_machine(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise(whole_machine)
    assert spawnctl("graph") == ExitCode.DONE
    assert capsys.readouterr().out == TREE
    assert len(TREE.splitlines()) == 27
    assert spawnctl("graph", "--order") == ExitCode.DONE
    assert capsys.readouterr().out == ORDER


# the times of a start


def started(core: FakeCore) -> None:
    """web had to wait for db, which took 2 s; logger was up meanwhile."""
    needs(core)
    times = {"db": (10.0, 12.0), "logger": (10.25, 10.5), "web": (12.125, 12.25), "probe": (12.5, None)}
    for name, (began, came_up) in times.items():
        unit = core.units[name]
        unit.life = unit.life._replace(state=State.RUNNING, asked=10.0, began=began, came_up=came_up)


TIMES = """\
   STARTED    READY    TOOK  NAME
*   0.000s   2.000s  2.000s  db
    0.250s   0.500s  0.250s  logger
*   2.125s   2.250s  0.125s  web
    2.500s        -       -  probe
"""


def test_times(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise(started)
    assert spawnctl("graph", "--times") == ExitCode.DONE
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        line.split() for line in TIMES.splitlines()
    ]
    assert spawnctl("graph", "--times", "--json") == ExitCode.DONE
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows if row["critical"]] == ["db", "web"]
    assert rows[2]["started_s"] - rows[0]["ready_s"] == 0.125
    assert rows[3]["ready_s"] is None


def test_the_critical_path_leads_to_what_is_named(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise(started)
    assert spawnctl("graph", "--times", "--json", "logger") == ExitCode.DONE
    assert [row["name"] for row in json.loads(capsys.readouterr().out) if row["critical"]] == ["logger"]


def test_a_picture(spawnctl: Spawnctl, supervise: Supervise, tmp_path: Path, capsys: Capture) -> None:
    supervise(started)
    path = tmp_path / "start.svg"
    assert spawnctl("graph", "--plot", str(path)) == ExitCode.DONE
    assert capsys.readouterr().out == ""
    svg = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in ElementTree.parse(path).getroot().iter(f"{svg}text")]  # noqa: S314  # our own
    assert "db (2.000 s)" in texts
    assert "probe (not ready)" in texts
    assert "1 s" in texts
    bars = [bar for bar in ElementTree.parse(path).getroot().iter(f"{svg}rect") if bar.get("height") == "12"]  # noqa: S314
    assert len(bars) == 4
    assert float(bars[0].get("width", 0)) > 7 * float(bars[1].get("width", 0))
    assert spawnctl("graph", "--plot", str(tmp_path / "none" / "x.svg")) == ExitCode.FAILED
    assert "No such file or directory" in capsys.readouterr().err


def test_a_picture_shows_failures_and_what_waited_for_what(
    spawnctl: Spawnctl, supervise: Supervise, tmp_path: Path
) -> None:
    def failed(core: FakeCore) -> None:
        started(core)
        unit = core.units["logger"]
        unit.life = unit.life._replace(state=State.FAILED)

    supervise(failed)
    path = tmp_path / "start.svg"
    assert spawnctl("graph", "--plot", str(path)) == ExitCode.DONE
    svg = "{http://www.w3.org/2000/svg}"
    root = ElementTree.parse(path).getroot()  # noqa: S314  # our own
    texts = {text.text: text.get("y") for text in root.iter(f"{svg}text")}
    assert "logger (failed)" in texts
    rows = {str(text).split()[0]: float(y or 0) for text, y in texts.items()}
    arrows = [way for way in root.iter(f"{svg}path") if way.get("marker-end")]
    red = [way for way in arrows if way.get("marker-end") == "url(#critical)"]
    assert len(arrows) == 3
    assert len(red) == 1
    *_, begin, end = [float(point.split(",")[1]) for point in str(red[0].get("d"))[1:].replace("L", "").split()]
    assert begin == end, "it comes from the left"
    assert abs(end - rows["web"]) < 12


def test_a_picture_of_nothing(spawnctl: Spawnctl, supervise: Supervise, tmp_path: Path) -> None:
    supervise()
    assert spawnctl("graph", "--plot", str(tmp_path / "x.svg")) == ExitCode.DONE
    ElementTree.parse(tmp_path / "x.svg")  # noqa: S314


def test_graph_leaves_out_what_is_built_in(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise()
    assert spawnctl("graph") == ExitCode.DONE
    assert capsys.readouterr().out == "web\nqotd\nmute\n"
    assert spawnctl("graph", "log") == ExitCode.DONE
    assert capsys.readouterr().out == "log\n"
