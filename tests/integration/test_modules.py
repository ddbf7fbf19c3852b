"""Services of modules under a real spawnd: their order, and how they fail."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.daemon import children, wait_until
from tests.integration.conftest import Start
from tests.integration.modules import NOTE, module, notes
from tests.machine_of_services import NEEDS, ORDER, TREE, modules

pytestmark = pytest.mark.lasting

# the whole machine


def test_a_machine_of_22_services(spawnd: Start) -> None:
    daemon = spawnd(modules())
    wait_until(lambda: all(row["state"] == "running" for row in daemon.services().values()), "all up")
    assert list(daemon.services()) == list(NEEDS)
    assert daemon.ctl("graph").stdout == TREE
    assert daemon.ctl("graph", "--order").stdout == ORDER
    rows = {row["name"]: row for row in json.loads(daemon.ctl("graph", "--times", "--json").stdout)}
    for name, needs in NEEDS.items():
        for other in needs:
            assert rows[other]["ready_s"] <= rows[name]["started_s"], (name, other)
    critical = [name for name, row in rows.items() if row["critical"]]
    assert critical[:3] == ["microcode_ctl", "sysstat", "cpuspeed"]
    wait_until(lambda: len(children(daemon.pid)) <= 2, "the log worker and the fork server alone")


def test_all_go_in_reverse(spawnd: Start, folder: Path) -> None:
    body = 'function start() note("+" .. _NAME) end\nfunction stop() note("-" .. _NAME) end\n'
    daemon = spawnd(NOTE + modules(body))
    # a start that has not answered yet would be interrupted, and its stop never called
    wait_until(lambda: all(row["state"] == "running" for row in daemon.services().values()), "all up")
    assert daemon.stop() == 0
    written = notes(folder)
    place = {note: number for number, note in enumerate(written)}
    assert len(place) == 2 * len(NEEDS)
    for name, needs in NEEDS.items():
        for other in needs:
            assert place[f"+{other}"] < place[f"+{name}"]
            assert place[f"-{name}"] < place[f"-{other}"]


def test_one_that_takes_long_delays_only_what_needs_it(spawnd: Start) -> None:
    slow = 'function start() return proc.run("sleep", "2") end'
    daemon = spawnd(module("a") + module("slow", slow, "a") + module("b", "", "slow") + module("c", "", "a"))
    daemon.wait_state("b", "running")
    rows = {row["name"]: row for row in json.loads(daemon.ctl("graph", "--times", "--json").stdout)}
    assert rows["slow"]["took_s"] >= 2
    assert rows["b"]["started_s"] >= 2
    assert rows["c"]["ready_s"] < 2
    assert [row["name"] for row in rows.values() if row["critical"]] == ["a", "slow", "b"]


# failures


FAILURES = {
    "return false": "start failed",
    'return nil, "no such device"': "start failed: no such device",
    'return fsys.mkdir("/none/x")': "start failed: /none/x: No such file or directory",
    'error("boom")': "start failed: services.lua:LINE: boom",
    "error({})": "start failed: an error that is not a string but a table",
    "local x = nil + 1": "start failed: services.lua:LINE: attempt to perform arithmetic on a nil value",
    "fsys.mkdir()": "start failed: services.lua:LINE: bad argument #1 to 'mkdir' (string expected, got nil)",
    "proc.exit(3)": "start exited with status 3",
    "os.exit(3)": "start exited with status 3",
    'proc.kill(proc.getpid(), "KILL")': "start killed by KILL",
    'proc.exec("/bin/false")': "start exited with status 1",
}


def test_failures(spawnd: Start, folder: Path) -> None:
    """Each function is in a line of its own, and a module that needs it comes after it."""
    text, expected = "", {}
    for number, (body, reason) in enumerate(FAILURES.items()):
        text += module(f"a{number}", f"function start() {body} end restart = nil start_limit = 1")
        expected[f"a{number}"] = reason.replace("LINE", str(text.count("\n")))
        text += module(f"b{number}", "", f"a{number}")
    daemon = spawnd(text)
    for name in expected:
        daemon.wait_state(name, "failed")
    reasons = {name: row["reason"].replace(f"{folder}/", "") for name, row in daemon.services().items()}
    assert {name: reasons[name] for name in expected} == {name: f"{why}; 1 failure" for name, why in expected.items()}
    for name, why in expected.items():
        needs = name.replace("a", "b")
        assert daemon.state(needs) == "waiting", why
        assert reasons[needs].startswith(f"needs {name}, which has failed ({why}")
    started = daemon.ctl("start", *(name.replace("a", "b") for name in expected))
    assert started.returncode == 1
    for name in expected:
        assert f"needs {name}, which has failed" in started.stderr


def test_an_error_is_shown_with_its_traceback(spawnd: Start, folder: Path) -> None:
    text = 'local function deeper()\n  error("boom")\nend\n'
    daemon = spawnd(text + module("a", "function start()\n deeper()\nend\nstart_limit = 1"))
    daemon.wait_state("a", "failed")
    wait_until(lambda: "deeper" in daemon.ctl("logs", "a").stdout, "the traceback")
    lines = daemon.ctl("logs", "a").stdout.replace(f"{folder}/", "")
    assert "start failed: services.lua:2: boom\nstack traceback:\n" in lines
    assert "services.lua:2: in function 'deeper'\n" in lines
    assert lines.endswith("services.lua:7: in function <services.lua:6>\n")
    assert "its function start failed: " in daemon.ctl("why", "a").stdout


SUCCESSES = ["", "return true", "return nil", 'return "words"', 'proc.exec("/bin/true")', "proc.exit()"]


def test_successes(spawnd: Start) -> None:
    daemon = spawnd("".join(module(f"s{n}", f"function start() {body} end") for n, body in enumerate(SUCCESSES)))
    for number, body in enumerate(SUCCESSES):
        wait_until(lambda: daemon.state(f"s{number}") == "running", body)  # noqa: B023


def test_what_waits_starts_by_itself_once_the_cause_is_gone(spawnd: Start, folder: Path) -> None:
    start = 'function start() return fsys.access("@/out/flag") end start_limit = 1'
    daemon = spawnd(module("a", start) + module("b", "function start() end", "a") + module("c", "", "b"))
    daemon.wait_state("a", "failed")
    assert daemon.state("c") == "waiting"
    (folder / "out" / "flag").touch()
    assert daemon.ctl("start", "a").returncode == 0
    daemon.wait_state("c", "running")


def test_a_start_that_hangs_is_ended(spawnd: Start) -> None:
    daemon = spawnd(module("a", 'function start() while true do end end start_timeout = "300ms" start_limit = 1'))
    daemon.wait_state("a", "failed")
    assert re.match("start not finished after [0-9.]+ s; start killed by TERM", daemon.services()["a"]["reason"])
    assert "its function start was not finished in time" in daemon.ctl("why", "a").stdout


def test_a_stop_that_fails_is_told(spawnd: Start) -> None:
    daemon = spawnd(module("a", 'function start() end\nfunction stop() return nil, "busy" end'))
    daemon.wait_state("a", "running")
    stopped = daemon.ctl("stop", "a")
    assert (stopped.returncode, daemon.state("a")) == (1, "failed")
    assert stopped.stderr == "a: failed: stop requested; stop failed: busy\n"
    assert daemon.ctl("start", "a").returncode == 0


# order


def test_the_status_of_one_without_a_process_has_what_applies_to_it(spawnd: Start) -> None:
    daemon = spawnd(module("a", "function start() end") + module("b", "", "a") + module("c", "exec = '/bin/cat'"))
    daemon.wait_state("b", "running")
    text = daemon.ctl("status", "a").stdout
    assert "Policy: service without a process, ready after its function start\n" in text
    assert "Last call: start succeeded\n" in text
    assert "Last exit" not in text
    assert "Policy: service without a process\n" in daemon.ctl("status", "b").stdout
    assert "Policy: service, ready on exec, restart always\n" in daemon.ctl("status", "c").stdout


def test_a_stop_names_what_needs_it(spawnd: Start) -> None:
    start = "function start() end"
    daemon = spawnd(module("a", start) + module("b", start, "a") + module("c", start, "b") + module("d", start))
    daemon.wait_state("c", "running")
    refused = daemon.ctl("stop", "a", "d")
    assert refused.returncode == 1
    assert refused.stderr == (
        "spawnctl: a is needed by b, c: nothing was stopped; --cascade stops them, too\n"
    )
    assert {row["state"] for row in daemon.services().values()} == {"running"}
    stopped = daemon.ctl("stop", "--cascade", "a")
    assert stopped.returncode == 0
    assert [line.split(":")[0] for line in stopped.stdout.splitlines()] == ["b", "c", "a"]
    assert [row["state"] for row in daemon.services().values()] == ["stopped", "stopped", "stopped", "running"]
    assert daemon.ctl("start", "c").returncode == 0
    assert {row["state"] for row in daemon.services().values()} == {"running"}
    assert daemon.ctl("stop", "a", "b", "c").returncode == 0


def test_groups(spawnd: Start) -> None:
    daemon = spawnd(
        "all_of_it = { depends = { 'one', 'two' } }\n"
        + module("one", "function start() end")
        + module("two", "", "one")
    )
    daemon.wait_state("all_of_it", "running")
    assert daemon.ctl("stop", "--cascade", "one").returncode == 0
    assert daemon.ctl("start", "all_of_it").returncode == 0
    assert {row["state"] for row in daemon.services().values()} == {"running"}


# what ships


def test_the_example(spawnd: Start, folder: Path) -> None:
    text = (Path(__file__).parents[2] / "conf" / "examples" / "start-up.lua").read_text()
    daemon = spawnd(text.replace("/tmp/start-up-example", f"{folder}/place"))
    daemon.wait_state("everything", "running")
    (row,) = json.loads(daemon.ctl("status", "--json", "inventory").stdout)
    assert row["status_text"] == (folder / "place" / "inventory").read_text().strip()
    assert re.fullmatch(r"Linux \S+: \d+ processes, \d+ MiB", row["status_text"])
    os.unlink(folder / "place" / "inventory")
    assert daemon.ctl("reload", "inventory").returncode == 0
    assert (folder / "place" / "inventory").exists()
    assert daemon.ctl("graph").stdout.splitlines()[:3] == ["folder", "  inventory", "    everything"]
    assert daemon.stop() == 0
    assert not (folder / "place").exists()
