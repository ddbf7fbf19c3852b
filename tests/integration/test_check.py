"""The check command: what it has, what becomes of its output, and what follows once its cause is mended."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from tests.daemon import Daemon, wait_until
from tests.integration.conftest import Start

Program = Callable[[str, str], str]
# what `haproxy -c` needs for `bind fd@3`: the listening socket at its number, and the variables that name it
LOOKS = f"""#!{sys.executable} -IS
import os, socket
assert os.environ["LISTEN_PID"] == str(os.getpid())
assert os.environ["LISTEN_FDS"] == "2", os.environ
assert os.environ["LISTEN_FDNAMES"] == "web:log", os.environ
assert socket.socket(fileno=3).getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
os.fstat(4)
"""
READS = """#!/bin/sh
echo "reading the configuration"
if [ -e @/out/good ]; then exit 0; fi
echo "line 7: no such option" >&2
exit 3
"""
NEVER = 'restart = "never"'


def why(daemon: Daemon, name: str) -> dict[str, object]:
    reply: dict[str, object] = json.loads(daemon.ctl("why", "--json", name).stdout)
    return reply


def test_it_has_the_whole_descriptor_table(spawnd: Start, program: Program) -> None:
    daemon = spawnd(f"""s = {{
        exec = "/bin/sleep", arg = {{ "100000" }}, check = {{ "{program("looks", LOOKS)}" }}, {NEVER},
        fd = {{ stream("@/out/socket", {{ name = "web" }}), file("@/out/log", "a", {{ name = "log" }}) }},
    }}""")
    wait_until(lambda: daemon.state("s") != "starting", "the end of the check")
    assert daemon.state("s") == "running", why(daemon, "s")


def failing(spawnd: Start, program: Program, folder: Path, more: str = "") -> Daemon:
    check = program("reads", READS.replace("@", str(folder)))
    return spawnd(f's = {{ exec = "/bin/sleep", arg = {{ "100000" }}, check = {{ "{check}" }}, {more} }}')


def test_its_output_is_kept_and_shown(spawnd: Start, program: Program, folder: Path) -> None:
    daemon = failing(spawnd, program, folder, NEVER)
    daemon.wait_state("s", "failed")
    said = ["reading the configuration", "line 7: no such option"]
    assert why(daemon, "s")["lines"] == said
    assert said[1] in daemon.ctl("why", "s").stdout
    assert f"s: check: {said[1]}" in daemon.log()
    assert daemon.ctl("reexec").returncode == 0
    wait_until(daemon.answers, "an answer")
    assert why(daemon, "s")["lines"] == said


def test_where_the_service_has_a_log_the_output_goes_there(spawnd: Start, program: Program, folder: Path) -> None:
    daemon = failing(spawnd, program, folder, f"stderr = log(), {NEVER}")
    daemon.wait_state("s", "failed")
    wait_until(lambda: "line 7: no such option" in daemon.ctl("logs", "s").stdout, "the line in its log")


def test_apply_tries_it_again(spawnd: Start, program: Program, folder: Path) -> None:
    """Nothing has changed in the definitions: it is a file of the service's own that was mended."""
    daemon = failing(spawnd, program, folder, NEVER)
    daemon.wait_state("s", "failed")
    again = daemon.ctl("apply")
    assert again.returncode != 0, "it has failed once more"
    assert daemon.state("s") == "failed"
    (folder / "out" / "good").touch()
    plan = daemon.ctl("plan")
    assert "tried again: check failed: exited with status 3" in plan.stdout
    assert daemon.ctl("apply").returncode == 0
    assert daemon.state("s") == "running"
    assert daemon.ctl("why", "s").stdout.count("no such option") == 0
    assert "tried again" not in daemon.ctl("plan").stdout


def test_a_reload_tells_what_the_check_said(spawnd: Start, program: Program, folder: Path) -> None:
    good = folder / "out" / "good"
    good.touch()
    daemon = failing(spawnd, program, folder, 'reload_signal = "HUP"')
    daemon.wait_running("s")
    good.unlink()
    reload = daemon.ctl("reload", "s")
    assert reload.returncode != 0
    assert "check failed: exited with status 3: line 7: no such option" in reload.stderr + reload.stdout


def test_one_that_floods_is_read_to_its_end_and_nobody_waits(spawnd: Start, program: Program) -> None:
    check = program("floods", "#!/bin/sh\nyes 0123456789 | head -c 20000000\necho\necho the end\nexit 1\n")
    env = 'env = { PATH = "/bin:/usr/bin" }'
    daemon = spawnd(f's = {{ exec = "/bin/sleep", {env}, check = {{ "{check}" }}, {NEVER} }}')
    daemon.wait_state("s", "failed")
    lines = why(daemon, "s")["lines"]
    assert isinstance(lines, list)
    assert lines[-1] == "the end"
