"""Processes that are started only to end what earlier ones have kept, under a real spawnd."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon import Daemon, wait_until
from tests.integration.conftest import Start

SLEEP = 'exec = "/bin/sleep", arg = { "100000" }'
KEEPS = 'kill_mode = "process", handover_signal = "USR1", backoff = { first = "1h", max = "1h" }'

Program = Callable[[str, str], str]


def keeping(said: Path) -> str:
    """Return a script that says whether it is started to end what it keeps, and ends: well only then."""
    return f'#!/bin/sh\necho "${{SPAWND_LAST-start}}" >> {said}\n[ "$SPAWND_LAST" = 1 ]\n'


def test_a_process_that_is_started_to_be_stopped_knows_it(spawnd: Start, program: Program, folder: Path) -> None:
    """It may end before its stop_signal comes, which waits until it is ready."""
    said = folder / "out" / "said"
    script = program("keeps", keeping(said))
    daemon = spawnd(f's = {{ exec = "{script}", ready = "notify", {KEEPS} }}')
    daemon.wait_state("s", "backoff")
    assert daemon.ctl("stop", "s").returncode == 0
    assert said.read_text() == "start\n1\n"
    assert daemon.state("s") == "stopped"


def test_a_stop_that_cannot_end_what_is_kept_says_so_and_is_tried_again(
    spawnd: Start, program: Program, folder: Path
) -> None:
    said = folder / "out" / "said"
    script = Path(program("keeps", keeping(said)))
    daemon = spawnd(f's = {{ exec = "{script}", ready = "notify", {KEEPS} }}')
    daemon.wait_state("s", "backoff")
    away = script.rename(script.with_name("away"))
    for _ in range(2):
        stop = daemon.ctl("stop", "s")
        assert stop.returncode == 1
        assert "stop requested; what it keeps was not ended: " in stop.stderr
        assert daemon.state("s") == "failed"
        why = " ".join(daemon.ctl("why", "s").stdout.split())
        assert "No such file or directory, so what it keeps was not ended" in why
        assert "then run `spawnctl stop s` again" in why
    assert "s: failed: stop requested; what it keeps was not ended" in daemon.log()
    away.rename(script)
    assert daemon.ctl("stop", "s").returncode == 0
    assert said.read_text() == "start\n1\n"
    assert daemon.state("s") == "stopped"


def failed_for_good(spawnd: Start, program: Program, said: Path, more: str = "") -> tuple[Daemon, Path]:
    """Return a spawnd whose service has failed for good and keeps things, and the script of that."""
    script = Path(program("out/keeps", keeping(said)))  # where services may rename it
    daemon = spawnd(f's = {{ exec = "{script}", ready = "notify", {KEEPS}, start_limit = 1 }}\n{more}')
    daemon.wait_state("s", "failed")
    return daemon, script


@pytest.mark.parametrize("order", ["stop", "reset", "remove", "shutdown"])
def test_what_is_kept_by_a_service_that_has_failed_for_good_is_ended_by_a_stop(
    spawnd: Start, program: Program, folder: Path, order: str
) -> None:
    said = folder / "out" / "said"
    daemon, _script = failed_for_good(spawnd, program, said)
    assert "`spawnctl stop s` ends what it keeps" in " ".join(daemon.ctl("why", "s").stdout.split())
    match order:
        case "shutdown":
            assert daemon.stop() == 0
        case "remove":
            daemon.definitions.write_text("")
            assert daemon.ctl("apply").returncode == 0
            wait_until(lambda: "s" not in daemon.ctl("list").stdout.split(), "its end")
        case _:
            assert order != "reset" or daemon.ctl("reset", "s").returncode == 0
            assert daemon.ctl("stop", "s").returncode == 0
            assert daemon.state("s") == "stopped"
            assert daemon.ctl("stop", "s").returncode == 0
    assert said.read_text() == "start\n1\n"


def test_a_spawnd_that_takes_over_knows_what_a_failed_service_keeps(
    spawnd: Start, program: Program, folder: Path
) -> None:
    said = folder / "out" / "said"
    daemon, _script = failed_for_good(spawnd, program, said)
    daemon.lose()
    daemon.again()
    assert daemon.state("s") == "failed"
    assert daemon.ctl("stop", "s").returncode == 0
    assert said.read_text() == "start\n1\n"


def test_a_shutdown_stops_once_more_what_could_not_be_ended_while_others_ran(
    spawnd: Start, program: Program, folder: Path
) -> None:
    """The program of the one is there only once the other has ended, and nothing else runs by then."""
    said = folder / "out" / "said"
    script = folder / "out" / "keeps"
    back = f"trap 'mv {script}.away {script}; exit 0' TERM"
    other = program("other", f"#!/bin/sh\nPATH=/bin:/usr/bin\n{back}\necho >&9\nwhile :; do sleep 0.01; done\n")
    fd = 'ready = "fd", ready_fd = 9, env = { PATH = "/bin:/usr/bin" }'
    daemon, script = failed_for_good(spawnd, program, said, f'o = {{ exec = "{other}", {fd} }}')
    daemon.wait_running("o")
    script.rename(f"{script}.away")
    assert daemon.stop() == 0
    assert said.read_text() == "start\n1\n"
    assert "s: failed: shutdown; what it keeps was not ended: " in daemon.log()


def test_a_shutdown_ends_although_something_is_kept_for_good(spawnd: Start, program: Program, folder: Path) -> None:
    daemon, script = failed_for_good(spawnd, program, folder / "out" / "said")
    script.unlink()
    assert daemon.stop() == 0
    assert daemon.log().count("s: failed: shutdown; what it keeps was not ended: ") == 2


def test_a_process_that_is_started_to_be_stopped_gets_files_that_were_moved(
    spawnd: Start, program: Program, folder: Path
) -> None:
    log = folder / "out" / "log"
    script = program("keeps", '#!/bin/sh\necho "${SPAWND_LAST-start}"\n[ "$SPAWND_LAST" = 1 ]\n')
    daemon = spawnd(f's = {{ exec = "{script}", ready = "notify", stdout = file("{log}", "a"), {KEEPS} }}')
    daemon.wait_state("s", "backoff")
    log.rename(log.with_name("old"))
    assert daemon.ctl("stop", "s").returncode == 0
    assert log.read_text() == "1\n"


def test_what_a_removed_service_keeps_is_ended_although_its_stop_had_failed(
    spawnd: Start, program: Program, folder: Path
) -> None:
    said = folder / "out" / "said"
    script = Path(program("keeps", keeping(said)))
    daemon = spawnd(f's = {{ exec = "{script}", ready = "notify", {KEEPS} }}')
    daemon.wait_state("s", "backoff")
    away = script.rename(script.with_name("away"))
    assert daemon.ctl("stop", "s").returncode == 1
    away.rename(script)
    daemon.definitions.write_text("")
    assert daemon.ctl("apply").returncode == 0
    wait_until(lambda: said.read_text() == "start\n1\n", "its last process")
    wait_until(lambda: "s" not in daemon.ctl("list").stdout.split(), "its end")


def test_a_shutdown_ends_what_a_failed_stop_has_left_once_its_dependents_have_stopped(
    spawnd: Start, program: Program, folder: Path
) -> None:
    said = folder / "out" / "said"
    last = f'[ "$SPAWND_LAST" ] && sleep 0.5 && echo last >> {said} && exit'
    script = Path(program("keeps", f"#!/bin/sh\n{last}\necho >&9\nexec sleep 100000\n"))
    env = 'env = { PATH = "/bin:/usr/bin" }, backoff = { first = "1h", max = "1h" }, healthy_after = "1h"'
    keeps = f'exec = "{script}", {env}, ready = "fd", ready_fd = 9, kill_mode = "process", handover_signal = "USR1"'
    daemon = spawnd(f's = {{ {keeps} }}\nd = {{ {SLEEP}, depends = "s" }}')
    daemon.wait_running("d")
    away = script.rename(script.with_name("away"))
    os.kill(daemon.wait_running("s"), signal.SIGKILL)
    daemon.wait_state("s", "backoff")
    assert daemon.ctl("stop", "--alone", "s").returncode == 1
    assert (daemon.state("s"), daemon.state("d")) == ("failed", "running")
    away.rename(script)
    assert daemon.stop() == 0
    assert said.read_text() == "last\n"
