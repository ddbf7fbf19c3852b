"""spawnd as a service of systemd: what only a machine that systemd has booted can show."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import wait_until
from tests.vm.guest.installed import (
    CONTROL,
    DOCUMENTATION,
    EXAMPLES,
    PATIENCE,
    PAUSE,
    SCOPE,
    SCOPE_FOLDER,
    SLEEP,
    SLICE,
    UNIT,
    UNITS,
    call,
    cgroup,
    changed,
    clean_up,
    define,
    hanging,
    is_alive,
    journal,
    main_pid,
    messages,
    pids_in,
    run,
    services,
    show,
    signal_main,
    started,
    state,
    unit_file,
    wait_other_spawnd,
    wait_running,
    wait_show,
    witness,
)

pytestmark = pytest.mark.skipif("MACHINE" not in os.environ, reason="runs in a machine that the tests have booted")

MEMORY = 'memory_max = "64m"'
LIMITS = f'{MEMORY}, memory_high = "48m", pids_max = 10, cpu_weight = 50, cpu_max = "50%", io_weight = 200'
TALK = "echo plain; echo '<3>bad'; echo '<4>odd' >&2; exec sleep 100000"
TALKER = f'exec = "/bin/sh", arg = {{ "-c", [[{TALK}]] }}, stdout = log(), stderr = log()'
STAYS = "b = { exec = '/bin/sleep', arg = { '100000' } }"
HOG = "import time; data = []\nwhile True: data.append(bytearray(1 << 20)); time.sleep(0.01)"
RUNNING = f"""
_DEFAULT = {{ env = {{ PATH = "/bin:/usr/bin" }} }}
limited = {{ {SLEEP}, {LIMITS} }}
plain = {{ {SLEEP} }}
worth_less = {{ {SLEEP}, oom_score_adj = 500 }}
talker = {{ {TALKER} }}
broken = {{ exec = "/nowhere", start_limit = 1 }}
down = {{ {SLEEP}, status = "stop" }}
"""


@pytest.fixture(autouse=True)
def _alone(request: pytest.FixtureRequest) -> None:
    """A check begins with nothing of spawnd running, but for those that only look."""
    if "running" not in request.fixturenames and state() != "inactive":
        clean_up()


@pytest.fixture(scope="module")
def running() -> Iterator[int]:
    """The pid of a spawnd, for all checks that change nothing of it."""
    with started(RUNNING):
        for name in ("limited", "plain", "worth_less", "talker"):
            wait_running(name)
        yield main_pid()


# what is there


def test_units_are_what_systemd_understands() -> None:
    assert run("systemd-analyze", "verify", UNIT, "system-cm4all.slice").strip() == ""


def test_active_with_a_status_that_names_who_needs_attention(running: int) -> None:
    assert state() == "active"
    wait_show("StatusText", "4 of 6 services running, 1 stopped; failed: broken")
    call("Stop", names=["plain"])
    wait_show("StatusText", "3 of 6 services running, 2 stopped; failed: broken")
    call("Start", names=["plain"])
    wait_show("StatusText", "4 of 6 services running, 1 stopped; failed: broken")


def test_spawnd_alone_is_in_the_cgroup_of_its_unit(running: int) -> None:
    assert cgroup(running) == f"/system.slice/{UNIT}"
    assert pids_in(SLICE / UNIT) == [running]


def test_services_are_in_the_scope_with_their_limits(running: int) -> None:
    assert [cgroup(wait_running(name)) for name in ("limited", "plain")] == [
        f"/system.slice/{SCOPE}/limited",
        f"/system.slice/{SCOPE}/plain",
    ]
    assert pids_in(SCOPE_FOLDER) == []
    leaf = SCOPE_FOLDER / "limited"
    assert {name: (leaf / name).read_text().removeprefix("default ").strip() for name in (
        "memory.max", "memory.high", "pids.max", "cpu.weight", "cpu.max", "io.weight"
    )} == {
        "memory.max": str(64 << 20),
        "memory.high": str(48 << 20),
        "pids.max": "10",
        "cpu.weight": "50",
        "cpu.max": "50000 100000",
        "io.weight": "200",
    }  # fmt: skip
    assert (show("TasksMax", SCOPE), show("TasksMax")) == ("infinity", "infinity")
    assert services()["plain"]["memory_bytes"] > 0
    assert not [text for text, _ in messages(running) if "not enforced" in text]


def test_limits_outlive_what_systemd_does_to_itself(running: int) -> None:
    pid = wait_running("limited")
    for command in ("daemon-reload", "daemon-reexec"):
        run("systemctl", command)
        assert (SCOPE_FOLDER / "limited/memory.max").read_text() == f"{64 << 20}\n"
        assert (SCOPE_FOLDER / "limited/cpu.weight").read_text() == "50\n"
        assert pids_in(SCOPE_FOLDER / "limited") == [pid]
        assert state(SCOPE) == "active"


def test_the_kernel_spares_spawnd_and_not_its_services(running: int) -> None:
    pids = (running, wait_running("plain"), wait_running("worth_less"))
    assert [Path(f"/proc/{pid}/oom_score_adj").read_text().strip() for pid in pids] == ["-900", "0", "500"]


def test_services_get_the_soft_limit_and_may_raise_it(running: int) -> None:
    limits = Path(f"/proc/{wait_running('plain')}/limits").read_text().splitlines()
    assert next(line.split()[3:5] for line in limits if line.startswith("Max open files")) == ["1024", "524288"]


def test_services_have_nothing_of_systemd_s_in_their_environment(running: int) -> None:
    environment = Path(f"/proc/{wait_running('plain')}/environ").read_text().split("\0")
    assert [line for line in environment if line] == ["PATH=/bin:/usr/bin"]


def test_spawnd_s_own_log_has_priorities(running: int) -> None:
    found = messages(running)
    assert ("Starting broken", "6") in found
    assert [priority for text, priority in found if text.startswith("broken: failed")] == ["3"]
    assert ("Not running down", "5") in found


def test_output_is_in_the_journal_under_the_name_with_its_priorities(running: int) -> None:
    pid = wait_running("talker")

    def said(by: int) -> list[tuple[str, str]]:
        found = journal("SYSLOG_IDENTIFIER=talker", f"_PID={by}")
        return sorted((entry["MESSAGE"], entry["PRIORITY"]) for entry in found)

    lines = [("bad", "3"), ("odd", "4"), ("plain", "6")]
    wait_until(lambda: said(pid) == lines, "three lines in the journal", PATIENCE, PAUSE)
    # a restart of the service, or of the journal, costs nothing of what comes after
    run("systemctl", "restart", "systemd-journald")
    call("Restart", names=["talker"])
    again = wait_running("talker", other_than=pid)
    wait_until(lambda: said(again) == lines, "three more", PATIENCE, PAUSE)


def test_one_started_by_hand_has_a_scope_of_its_own(running: int, tmp_path: Path) -> None:
    (tmp_path / "a.lua").write_text(f"a = {{ {SLEEP}, {MEMORY} }}")
    command = ["spawnd", "--config", str(tmp_path / "a.lua"), "--runtime-dir", str(tmp_path / "run")]
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as spawnd:
        try:
            control = tmp_path / "run" / "control"
            wait_until(lambda: control.exists() or spawnd.poll() is not None, "its control socket", PATIENCE)
            assert spawnd.poll() is None, (tmp_path / "log").read_text()
            (folder,) = wait_until(lambda: list(SLICE.glob("spawnd-services-*.scope")), "its scope", PATIENCE)
            wait_until(lambda: pids_in(folder / "a"), "its service", PATIENCE)
            assert (folder / "a/memory.max").read_text() == f"{64 << 20}\n"
            spawnd.terminate()
            assert spawnd.wait(PATIENCE) == 0
            assert not folder.exists()
            assert pids_in(SCOPE_FOLDER / "plain") == [wait_running("plain")]
        finally:
            spawnd.kill()
            run("systemctl", "stop", "spawnd-services-*.scope")


def test_somebody_kills_the_keeper(running: int) -> None:
    (keeper,) = pids_in(SCOPE_FOLDER / "_keeper")
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: pids_in(SCOPE_FOLDER / "_keeper") not in ([], [keeper]), "another keeper", PATIENCE)
    pid = wait_running("plain")
    call("Restart", names=["plain"])
    assert cgroup(wait_running("plain", other_than=pid)) == f"/system.slice/{SCOPE}/plain"


def test_somebody_ends_all_that_is_in_the_scope(running: int) -> None:
    """systemd removes it, then.  What spawnd is to keep running runs again, with its limits."""
    before = {name: wait_running(name) for name in ("limited", "plain")}
    (SCOPE_FOLDER / "cgroup.kill").write_text("1")
    after = {name: wait_running(name, other_than=pid) for name, pid in before.items()}
    assert [cgroup(pid) for pid in after.values()] == [f"/system.slice/{SCOPE}/{name}" for name in after]
    assert (SCOPE_FOLDER / "limited/memory.max").read_text() == f"{64 << 20}\n"
    wait_until(lambda: pids_in(SCOPE_FOLDER / "_keeper"), "a keeper", PATIENCE)
    assert state(SCOPE) == "active"


# what happens


def test_an_out_of_memory_kill_is_named() -> None:
    command = f'exec = "/usr/bin/python3", arg = {{ "-c", [[{HOG}]] }}'
    limits = 'memory_max = "32m", memory_swap_max = 0, start_limit = 1, healthy_after = "10m"'
    with started(f"hog = {{ {command}, {limits} }}\n{STAYS}"):
        pid = wait_running("b")
        wait_until(lambda: services()["hog"]["state"] == "failed", "the end of hog", PATIENCE, PAUSE)
        for verb in ("status", "why"):
            assert "out of memory" in run("spawnctl", verb, "hog", check=False)
        assert wait_running("b") == pid
        assert (state(), state(SCOPE)) == ("active", "active")


def test_hup_reloads_and_the_status_says_what_came_of_it() -> None:
    with started(f"a = {{ {SLEEP} }}"):
        pid = wait_running("a")
        define(f"a = {{ {SLEEP} }}\n{STAYS}")
        signal_main("HUP")
        wait_show("StatusText", "2 of 2 services running")
        call("Apply")  # also this is a reload
        wait_show("StatusText", "2 of 2 services running")
        define("a = { exec = 7 }")
        signal_main("HUP")
        wait_show("StatusText", "definitions not changed: 1 problem; 2 of 2 services running")
        assert (state(), show("SubState")) == ("active", "running")
        assert wait_running("a") == pid


def test_systemctl_reload_waits_and_fails_where_definitions_are_wrong() -> None:
    with started(f"a = {{ {SLEEP} }}"):
        pid = wait_running("a")
        define(f"a = {{ {SLEEP} }}\n{STAYS}")
        run("systemctl", "reload", UNIT)
        assert services().keys() == {"a", "b"}
        define("a = { exec = 7 }")
        with pytest.raises(AssertionError, match="status 1"):
            run("systemctl", "reload", UNIT)
        assert state() == "active"
        assert wait_running("a") == pid


def test_notify_reload_of_newer_systemd() -> None:
    if int(run("systemctl", "--version").split()[1]) < 254:
        pytest.skip("this systemd knows no notify-reload")
    with unit_file(f"{UNIT}.d/check.conf", (DOCUMENTATION / "notify-reload.conf").read_text()):
        assert run("systemd-analyze", "verify", UNIT).strip() == ""
        with started(f"a = {{ {SLEEP} }}"):
            pid = wait_running("a")
            define(f"a = {{ {SLEEP} }}\n{STAYS}")
            run("systemctl", "reload", UNIT)
            assert services().keys() == {"a", "b"}
            define("a = { exec = 7 }")
            run("systemctl", "reload", UNIT)
            assert show("StatusText").startswith("definitions not changed: 1 problem")
            assert wait_running("a") == pid


def test_kill_9_of_spawnd_leaves_services_and_limits_alone() -> None:
    with started(f"a = {{ {SLEEP}, {MEMORY} }}\n{STAYS}"):
        pids = [wait_running("a"), wait_running("b")]
        made = show("InactiveExitTimestampMonotonic", SCOPE)
        before = main_pid()
        for count in (1, 2):
            os.kill(before, signal.SIGKILL)
            before = wait_other_spawnd(before)
            assert show("NRestarts") == str(count)
            assert [wait_running("a"), wait_running("b")] == pids
            assert [cgroup(pid) for pid in pids] == [f"/system.slice/{SCOPE}/{name}" for name in ("a", "b")]
            assert (SCOPE_FOLDER / "a/memory.max").read_text() == f"{64 << 20}\n"
        assert show("InactiveExitTimestampMonotonic", SCOPE) == made
        run("systemctl", "stop", UNIT)
        assert [pid for pid in pids if is_alive(pid)] == []
        assert not SCOPE_FOLDER.exists()


def test_usr1_leaves_process_unit_and_services_alone() -> None:
    with started(f"a = {{ {SLEEP}, {MEMORY} }}"):
        pid, before = wait_running("a"), main_pid()
        (keeper,) = pids_in(SCOPE_FOLDER / "_keeper")
        fed = int(show("WatchdogTimestampMonotonic"))
        signal_main("USR1")
        wait_until(lambda: [text for text, _ in messages(before) if "executed anew" in text], "it", PATIENCE, PAUSE)
        wait_show("SubState", "running")
        assert (main_pid(), show("NRestarts"), wait_running("a")) == (before, "0", pid)
        wait_until(lambda: int(show("WatchdogTimestampMonotonic")) > fed, "a watchdog that is fed", PATIENCE, PAUSE)
        assert pids_in(SCOPE_FOLDER / "_keeper") == [keeper]
        os.kill(keeper, signal.SIGKILL)
        wait_until(lambda: pids_in(SCOPE_FOLDER / "_keeper") not in ([], [keeper]), "another keeper", PATIENCE)


def test_the_watchdog_sees_a_spawnd_that_hangs() -> None:
    with changed("Service", "WatchdogSec=3s"), started(f"a = {{ {SLEEP} }}"):
        pid, before = wait_running("a"), main_pid()
        os.kill(before, signal.SIGSTOP)
        wait_other_spawnd(before)
        assert wait_running("a") == pid


# the end


def test_stop_leaves_nothing_behind() -> None:
    script = "setsid sleep 100000 & exec sleep 100000"
    command = f'exec = "/bin/sh", arg = {{ "-c", [[{script}]] }}, env = {{ PATH = "/bin:/usr/bin" }}'
    with started(f'a = {{ {command}, {MEMORY} }}\nb = {{ {SLEEP}, fd = {{ stream("/run/checks.sock") }} }}'):
        wait_running("a")
        wait_running("b")
        wait_until(lambda: len(pids_in(SCOPE_FOLDER / "a")) == 2, "both processes", PATIENCE)
        pids = [pid for leaf in SCOPE_FOLDER.iterdir() if leaf.is_dir() for pid in pids_in(leaf)]
        assert len(pids) == 4, "three of the services, and the keeper"
        pids.append(main_pid())
        run("systemctl", "stop", UNIT)
        assert (state(), show("Result")) == ("inactive", "success")
        assert [pid for pid in pids if is_alive(pid)] == []
        assert not SCOPE_FOLDER.exists()
        assert run("systemctl", "list-units", "--all", "--plain", "--no-legend", f"{SCOPE}*").strip() == ""
        assert list(Path("/run/spawnd").iterdir()) == []
        assert not Path("/run/checks.sock").exists()


def test_restart_is_a_stop_and_a_start() -> None:
    with started(f"a = {{ {SLEEP}, {MEMORY} }}"):
        pid = wait_running("a")
        for _ in range(2):
            run("systemctl", "restart", UNIT)
            assert not is_alive(pid)
            pid = wait_running("a", other_than=pid)
            assert cgroup(pid) == f"/system.slice/{SCOPE}/a"


def test_a_stop_takes_as_long_as_the_services_do(tmp_path: Path) -> None:
    """Longer than the unit's own limit."""
    with changed("Service", "TimeoutStopSec=4s"), started(f"a = {{ {witness(tmp_path / 'a', 8)} }}"):
        wait_running("a")
        spawnd = main_pid()
        run("systemctl", "stop", UNIT)
        assert (state(), show("Result")) == ("inactive", "success")
        sender, received, ended = (tmp_path / "a").read_text().split()
        assert int(sender) == spawnd
        assert float(ended) - float(received) >= 8


def test_a_stop_of_a_spawnd_that_hangs_ends_everything() -> None:
    with changed("Service", "TimeoutStopSec=3s"), started(f"a = {{ {SLEEP} }}"):
        pid = wait_running("a")
        spawnd = main_pid()
        with hanging(spawnd):
            run("systemctl", "stop", UNIT, check=False)
        assert not is_alive(spawnd)
        wait_until(lambda: not is_alive(pid) and not SCOPE_FOLDER.exists(), "the end of the scope", PATIENCE)
        assert (state(), show("Result")) == ("failed", "timeout")


def test_who_is_told_to_end_is_not_started_again() -> None:
    with started(f"a = {{ {SLEEP} }}"):
        pid = wait_running("a")
        signal_main("TERM")
        wait_until(lambda: state() == "inactive", "the end of spawnd", PATIENCE, PAUSE)
        assert (show("Result"), show("NRestarts")) == ("success", "0")
        assert not is_alive(pid)


def test_definitions_that_prevent_a_start_are_not_tried_again() -> None:
    define("a = { exec = 7 }")
    try:
        assert subprocess.run(["systemctl", "start", UNIT], check=False).returncode != 0
        assert (state(), show("ExecMainStatus"), show("NRestarts")) == ("failed", "78", "0")
        assert not SCOPE_FOLDER.exists()
    finally:
        clean_up()


def test_a_failure_of_its_own_is_tried_again() -> None:
    """Until what is in the way is gone: here, another supervisor on the same folder."""
    define(f"a = {{ {SLEEP} }}")
    Path("/run/spawnd").mkdir(exist_ok=True)
    with subprocess.Popen(["flock", "/run/spawnd", "cat"], stdin=subprocess.PIPE) as other:
        try:
            run("systemctl", "start", "--no-block", UNIT)
            wait_until(lambda: int(show("NRestarts")) >= 2, "two more tries", PATIENCE, PAUSE)
            assert other.stdin is not None
            other.stdin.close()
            wait_until(lambda: state() == "active" and Path(CONTROL).exists(), "an active spawnd", PATIENCE, PAUSE)
            wait_running("a")
        finally:
            other.kill()
            clean_up()


# what it may find


def test_the_scope_needs_no_message_bus() -> None:
    run("systemctl", "stop", "dbus.socket", "dbus.service")
    try:
        with started(f"a = {{ {SLEEP}, {MEMORY} }}"):
            assert cgroup(wait_running("a")) == f"/system.slice/{SCOPE}/a"
    finally:
        run("systemctl", "start", "dbus.socket")


def test_services_run_also_where_there_is_no_scope_to_be_had() -> None:
    with changed("Service", "InaccessiblePaths=/usr/bin/systemd-run"), started(f"a = {{ {SLEEP}, {MEMORY} }}"):
        pid, before = wait_running("a"), main_pid()
        assert cgroup(pid) == f"/system.slice/{UNIT}"
        log = messages(before)
        assert [priority for text, priority in log if text.startswith(f"cannot get {SCOPE}")] == ["3"]
        assert [priority for text, priority in log if "a: not enforced" in text] == ["4"]
        os.kill(before, signal.SIGKILL)
        wait_other_spawnd(before)
        assert wait_running("a") == pid


def test_the_daemons_it_takes_the_place_of_are_gone_before_it_starts() -> None:
    old = "cm4all-spawn-accessory.service"
    with unit_file(old, "[Service]\nExecStart=/bin/sleep 100000\nExecStop=/bin/sleep 2\n"):
        try:
            run("systemctl", "start", old)
            with started(f"a = {{ {SLEEP} }}"):
                ended = int(show("InactiveEnterTimestampMonotonic", old))
                assert 0 < ended <= int(show("ExecMainStartTimestampMonotonic"))
                # and the way back
                run("systemctl", "start", old)
                assert (state(), state(old)) == ("inactive", "active")
                assert not SCOPE_FOLDER.exists()
        finally:
            run("systemctl", "stop", old)


def test_dependants_of_these_daemons_get_spawnd_by_an_alias() -> None:
    old = "cm4all-spawn-accessory.service"
    dependant = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"
    define(f"a = {{ {SLEEP} }}")
    try:
        with (
            unit_file(f"{UNIT}.d/check.conf", (EXAMPLES / "systemd/cm4all-names.conf").read_text()),
            unit_file("checks-spawner.service", f"[Unit]\nRequires={old}\nAfter={old}\n{dependant}"),
        ):
            run("systemctl", "enable", UNIT)
            run("systemctl", "start", "checks-spawner.service")
            assert state() == "active"
            wait_running("a")
            run("systemctl", "stop", "checks-spawner.service")
            clean_up()
            run("systemctl", "disable", UNIT)
            assert not (UNITS / old).exists()
    finally:
        clean_up()
