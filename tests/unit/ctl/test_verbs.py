"""Each verb of the command line: what it prints, and its exit code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from supervisor import __version__
from supervisor.ctl.errors import ExitCode
from supervisor.ctl.verbs.list import use
from supervisor.ctl.verbs.sessions import cells
from supervisor.ctl.verbs.status import idleness, limited, policy, refused, unserved
from supervisor.definitions.service import Definitions
from supervisor.lifecycle.life import Idleness, Life, State
from tests.unit.control.fake_core import FakeCore

Spawnctl = Callable[..., int]
Supervise = Callable[..., None]
Capture = pytest.CaptureFixture[str]


def set_plans(**plans: str) -> Callable[[FakeCore], None]:
    return lambda core: core.plans.update(plans)


def test_list(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise()
    assert spawnctl("list") == ExitCode.DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "PID", "FOR", "RESTARTS", "MEMORY", "CPU", "DESCRIPTION"]
    assert [line.split()[0] for line in lines[1:]] == ["web", "qotd", "mute"]
    assert spawnctl("list", "--all") == ExitCode.DONE
    assert capsys.readouterr().out.splitlines()[-1].startswith("log ")
    assert spawnctl("list", "q*", "log") == ExitCode.DONE
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == ["qotd", "log"]


@pytest.mark.parametrize("arguments", [(), ("--json",), ("status",), ("status", "--json"), ("--json", "status")])
def test_no_verb_and_no_name_mean_list(
    spawnctl: Spawnctl, supervise: Supervise, capsys: Capture, arguments: tuple[str, ...]
) -> None:
    def text() -> str:
        return re.sub(r'[0-9.]+(?=s |,|")', "0", capsys.readouterr().out)  # it gets later

    supervise()
    assert spawnctl("list", *(option for option in arguments if option != "status")) == ExitCode.DONE
    listed = text()
    assert spawnctl(*arguments) == ExitCode.DONE
    assert text() == listed


def test_list_of_nothing(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise(lambda core: core.units.clear())
    assert spawnctl("list") == ExitCode.DONE
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert spawnctl("list", "--json") == ExitCode.DONE
    assert capsys.readouterr().out == "[]\n"


@pytest.mark.parametrize("arguments", [("--json", "list"), ("list", "--json")])
def test_list_as_json(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture, arguments: tuple[str, ...]) -> None:
    supervise()
    assert spawnctl(*arguments) == ExitCode.DONE
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["web", "qotd", "mute"]
    wanted = {"name", "state", "pid", "since", "restarts", "uptime_s", "memory_bytes", "cpu_s", "description"}
    assert wanted <= set(rows[0])


def test_a_signal_behind_the_names_is_told(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise()
    assert spawnctl("signal", "web", "qotd", "TERM") == ExitCode.USAGE
    said = "no such signal: 'web'; the signal comes first: `spawnctl signal TERM web qotd`"
    assert capsys.readouterr().err == f"spawnctl: {said}\n"
    assert spawnctl("signal", "web", "qotd") == ExitCode.USAGE
    assert capsys.readouterr().err == "spawnctl: no such signal: 'web'\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("web",),
            "no session: `spawnctl sessions web` shows them; "
            "`spawnctl signal TERM web` sends a signal to the main process",
        ),
        (("web", "TERM"), "the signal comes last: `spawnctl kill web PID|PEER TERM`"),
        (("web", "1", "NOPE"), "no such signal: 'NOPE'"),
    ],
)
def test_kill_says_what_is_missing(
    spawnctl: Spawnctl, supervise: Supervise, capsys: Capture, arguments: tuple[str, ...], said: str
) -> None:
    supervise()
    assert spawnctl("kill", *arguments) == ExitCode.USAGE
    assert capsys.readouterr().err == f"spawnctl: {said}\n"


def test_kill_of_a_session_that_is_not_there(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise()
    assert spawnctl("kill", "web", "4711", "HUP") == ExitCode.FAILED
    said = "web: stopped: it has no sessions: its definition has no `accept`\n"
    assert capsys.readouterr().err == said
    assert spawnctl("sessions") == spawnctl("sessions", "web") == ExitCode.DONE
    assert capsys.readouterr().out == "No sessions\n" * 2


def test_denied_addresses(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    """The fake supervisor has none."""
    supervise()
    assert spawnctl("sessions", "--denied") == spawnctl("sessions", "--forgive", "all") == ExitCode.DONE
    assert capsys.readouterr().out == "No address is denied\n" * 2
    assert spawnctl("sessions", "--denied", "--json") == ExitCode.DONE
    assert capsys.readouterr().out == "[]\n"
    assert spawnctl("sessions", "--forgive", "192.0.2.7", "--json") == ExitCode.FAILED
    out, err = capsys.readouterr()
    assert err == "192.0.2.7 is not denied: `spawnctl sessions --denied` shows those that are\n"
    assert json.loads(out)[0]["ok"] is False
    assert spawnctl("sessions", "--denied", "web") == ExitCode.USAGE
    assert "go without names" in capsys.readouterr().err


def test_the_columns_of_sessions() -> None:
    row = {"name": "git", "pid": 24110, "age_s": 4321.5, "memory_bytes": 4 << 20, "cpu_s": 0.614, "peer": "[::1]:51"}
    assert cells(row) == ["git", "24110", "1h12m", "4.0M", "0.61s", "[::1]:51"]


def test_status_tells_who_got_no_session() -> None:
    row: dict[str, object] = {"refused": {"max": 3, "per_source": 1}, "last_unserved": None}
    row["last_refusal"] = {"at": "2026-07-28T14:03:31.000+00:00", "peer": "192.0.2.7:4", "rule": "max"}
    text = refused(row)
    assert text.startswith("3 by max, 1 by per_source; the last one 192.0.2.7:4 by max at 2026-07-2")
    assert unserved(row) == ""
    row["last_unserved"] = {"at": "2026-07-28T14:03:31.000+00:00", "failures": 2, "text": "cannot exec '/x'"}
    assert unserved(row).startswith("2 clients, the last one at 2026-07-2")
    assert unserved(row).endswith(": cannot exec '/x'")
    assert refused({}) == unserved({}) == limited({}) == ""  # of an older spawnd
    assert limited({"limit": None}) == ""
    assert limited({"limit": {"rule": "load_max", "effect": "wait"}}) == "load_max: clients wait"
    assert limited({"limit": {"rule": "max", "effect": "refuse"}}) == "max: clients are refused"


def test_the_policy_says_that_a_client_starts_a_service() -> None:
    row = {"task": False, "ready": "notify", "restart": "always", "has_process": True, "functions": []}
    assert policy(row) == "service, ready on notify, restart always"
    assert policy(row | {"demand": True, "accept": False}) == "service on demand, ready on notify, restart always"
    both = row | {"demand": True, "accept": True}
    assert policy(both) == "service on demand, a process for each connection, restart always"


def test_orders_about_sessions(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise()
    assert spawnctl("start", "web") == ExitCode.DONE
    assert spawnctl("restart", "--sessions", "web") == ExitCode.DONE
    assert spawnctl("stop", "--keep-sessions", "web") == ExitCode.DONE
    assert capsys.readouterr().out == "web: running\nweb: running\nweb: stopped\n"


@pytest.mark.parametrize(
    ("row", "shown", "listed"),
    [
        (
            {"idle_s": None, "busy": "3 connections", "next_look_s": 12.0},
            "no, busy: 3 connections; next look in 12s",
            1,
        ),
        ({"idle_s": None, "busy": "it says so", "next_look_s": None}, "no, busy: it says so", 1),
        ({"idle_s": 65.0, "busy": "", "next_look_s": 2.0}, "for 1m05s; next look in 2s", 1),
        ({"idle_s": None, "busy": "", "next_look_s": 2.0}, "not known yet; next look in 2s", 0),
        ({"idle_s": None, "busy": "", "next_look_s": None}, "", 0),
        ({}, "", 0),  # of an older spawnd
    ],
)
def test_the_use_of_a_service(row: dict[str, object], shown: str, listed: int) -> None:
    assert idleness(row) == shown
    assert bool(use(row)) is bool(listed)


def test_the_use_is_listed_before_the_description(
    spawnctl: Spawnctl, supervise: Supervise, capsys: Capture
) -> None:
    def set_up(core: FakeCore) -> None:
        core.units["web"].idle = Idleness(busy="2 connections")

    supervise(set_up)
    assert spawnctl("list") == ExitCode.DONE
    assert "busy: 2 connections" in capsys.readouterr().out


def test_orders(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise()
    assert spawnctl("start", "web", "qotd") == ExitCode.DONE
    assert capsys.readouterr().out == "web: running\nqotd: running\n"
    assert spawnctl("restart", "web", "--quiet") == ExitCode.DONE
    assert capsys.readouterr().out == ""
    assert spawnctl("reload", "web") == ExitCode.DONE
    assert spawnctl("signal", "HUP", "web") == ExitCode.DONE
    assert spawnctl("reset", "all") == ExitCode.DONE
    capsys.readouterr()
    assert spawnctl("stop", "all", "--json") == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)[0] == {"name": "web", "ok": True, "state": "stopped", "message": ""}


@pytest.mark.parametrize("state", [State.DONE, State.FAILED])
def test_a_stop_of_what_has_ended(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture, state: State) -> None:
    def set_up(core: FakeCore) -> None:
        core.units["web"].life = Life(state, core.loop.clock())

    supervise(set_up)
    for arguments in (("web", "qotd"), ("web", "qotd", "--no-wait")):
        assert spawnctl("stop", *arguments) == ExitCode.DONE
        told = f"web: {state}: there was nothing to stop: it had ended before\nqotd: stopped\n"
        assert capsys.readouterr() == (told, "")


def test_nothing_to_reload_or_to_reopen(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise()
    for verb, missing in (("reload", "has a reload_signal"), ("reopen", "writes to files")):
        for names in (["all"], ["w*", "q*"]):
            assert spawnctl(verb, *names) == ExitCode.DONE
            told, said = capsys.readouterr()
            assert told.startswith(f"Nothing to {verb}: none of these services {missing}")
            assert (told.count("\n"), said) == (1, "")
        assert spawnctl(verb, "all", "--quiet") == ExitCode.DONE
        assert capsys.readouterr() == ("", "")
        assert spawnctl(verb, "all", "--json") == ExitCode.DONE
        assert capsys.readouterr() == ("[]\n", "")


@pytest.mark.parametrize("verb", ["status", "start", "stop", "restart", "signal TERM", "reset"])
def test_there_are_no_services(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture, verb: str) -> None:
    supervise(lambda core: core.units.clear())
    assert spawnctl(*verb.split(), "all") == ExitCode.DONE
    assert capsys.readouterr() == ("Nothing to do: no services are defined\n", "")


def test_orders_that_fail(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise(set_plans(web="fails"))
    for arguments in (("start", "qotd", "web"), ("restart", "qotd", "web"), ("reload", "qotd", "web")):
        assert spawnctl(*arguments) == ExitCode.FAILED
        captured = capsys.readouterr()
        assert captured.out == "qotd: running\n"
        assert captured.err.startswith("web: backoff: ")
    assert spawnctl("signal", "12", "web", "qotd", "--json") == ExitCode.FAILED
    captured = capsys.readouterr()
    assert [row["ok"] for row in json.loads(captured.out)] == [False, True]
    assert captured.err == "web: backoff: it has no process\n"


def test_an_order_that_is_not_waited_for(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise(set_plans(web="hangs"))
    assert spawnctl("start", "--no-wait", "web") == ExitCode.DONE
    assert capsys.readouterr().out == "web: waiting: start requested\n"


def test_status(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise()
    assert spawnctl("status", "web") == ExitCode.NOT_RUNNING
    assert capsys.readouterr().out.splitlines()[0] == "web - serves pages"
    assert spawnctl("start", "web") == ExitCode.DONE
    assert spawnctl("status", "web") == ExitCode.DONE
    assert "State: running for 0s" in capsys.readouterr().out
    assert spawnctl("status", "web", "qotd") == ExitCode.NOT_RUNNING
    assert len(capsys.readouterr().out.split("\n\n")) == 2
    assert spawnctl("status", "web", "--json") == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)[0]["file"] == "/a.lua"


@pytest.mark.parametrize("state", sorted(set(State) - {State.RUNNING, State.RELOADING}))
def test_status_of_what_is_not_up(spawnctl: Spawnctl, supervise: Supervise, state: State) -> None:
    def set_up(core: FakeCore) -> None:
        core.units["web"].life = Life(state, core.loop.clock())

    supervise(set_up)
    assert spawnctl("status", "web") == ExitCode.NOT_RUNNING


def test_fds(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise()
    assert spawnctl("fds", "web") == ExitCode.DONE
    assert " 3          udp 127.0.0.1:69" in capsys.readouterr().out.splitlines()
    assert spawnctl("fds", "web", "--json") == ExitCode.DONE
    assert len(json.loads(capsys.readouterr().out)) == 5


def test_check(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise()
    assert spawnctl("check") == ExitCode.DONE
    assert capsys.readouterr().out == "OK: 4 services\n"


def test_check_with_notices(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    def set_up(core: FakeCore) -> None:
        core.files = Definitions(notices=("/a.lua:1: odd",))

    supervise(set_up)
    assert spawnctl("check") == ExitCode.DONE
    assert capsys.readouterr().out == "notice: /a.lua:1: odd\nOK: 4 services, 1 notice\n"


def test_check_with_problems(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    def set_up(core: FakeCore) -> None:
        core.problems = ["/a.lua:1: bad", "/b.lua:2: worse"]

    supervise(set_up)
    assert spawnctl("check") == ExitCode.FAILED
    assert capsys.readouterr().out == "/a.lua:1: bad\n/b.lua:2: worse\n"
    assert spawnctl("check", "--json") == ExitCode.FAILED
    assert json.loads(capsys.readouterr().out)["problems"] == ["/a.lua:1: bad", "/b.lua:2: worse"]


def test_version(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    assert spawnctl("version") == ExitCode.NO_SUPERVISOR
    captured = capsys.readouterr()
    assert captured.out == f"spawnctl {__version__}\n"
    assert len(captured.err.splitlines()) == 1
    supervise()
    assert spawnctl("version") == ExitCode.DONE
    assert capsys.readouterr().out == f"spawnctl {__version__}\nspawnd {__version__}\n"
    assert spawnctl("version", "--json") == ExitCode.DONE
    assert json.loads(capsys.readouterr().out) == {"spawnctl": __version__, "spawnd": __version__}
