from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.linux.namespaces import CLONE_NEWPID, CLONE_NEWUSER, setns
from tests.daemon import children
from tests.unit.process.forked import in_child, open_numbers
from tests.unit.process.requirements import needs_root
from tests.unit.varlink.lingering import LINGER, lingering, pass_on
from tests.unit.waiting import wait_exit, wait_readable, wait_until
from tests.unit.workers.accessory.slow import send_packet_sockets
from tests.unit.workers.accessory.status import KILL, capabilities, pss, status
from tests.unit.workers.accessory.tracing import call_instead
from workers.accessory import c_helpers as module
from workers.accessory.c_helpers import (
    PROGRAM,
    Init,
    end_child,
    find_init,
    start_disposal,
    start_init,
    start_time,
    start_user_namespace,
)
from workers.accessory.new_namespaces import NamespaceMaker

pytestmark = needs_root
WAITING = "S"
GETPID, EXECVE = 39, 59  # <asm/unistd_64.h>


@pytest.fixture
def make() -> Iterator[Callable[[str], Init]]:
    maker, made = NamespaceMaker(), []

    def make(name: str) -> Init:
        init = maker.make_pid(name)
        made.append(init)
        return init

    yield make
    for init in made:
        init.kill()
        wait_readable(init.pidfd)
        init.reap()
        init.close()
    maker.close()


def settled(init: Init) -> Init:
    """Start an init that has been told to go on; wait for its end afterwards."""
    init.go()
    wait_until(lambda: status(init.pid)["Seccomp"] == "2" and not int(status(init.pid)["ShdPnd"], 16))
    wait_until(lambda: status(init.pid)["State"].startswith(WAITING))
    return init


def run_inside(init: Init, program: str) -> int:
    """Run a shell program in the PID namespace; its exit status."""

    def enter() -> int:
        setns(init.fd, CLONE_NEWPID)
        return subprocess.run(["sh", "-c", program], check=False).returncode

    return in_child(enter)


@pytest.mark.parametrize(
    ("name", "kernel_name"),
    [
        ("a", "init-a"),
        ("0123456789", "init-0123456789"),
        ("0123456789a", "i-0123456789a"),
        ("0123456789abcdef", "i-0123456789abc"),
        ("../x", "init-../x"),
        (" ", "init- "),
        ("\x7f", "init-\x7f"),
    ],
)
def test_its_title_is_that_of_the_name(make: Callable[[str], Init], name: str, kernel_name: str) -> None:
    init = settled(make(name))
    assert Path(f"/proc/{init.pid}/cmdline").read_bytes() == f"init-{name}\0".encode()
    assert Path(f"/proc/{init.pid}/comm").read_text() == f"{kernel_name}\n"


def test_a_name_may_be_very_long(make: Callable[[str], Init]) -> None:
    init = settled(make("n" * 65000))
    assert Path(f"/proc/{init.pid}/comm").read_text() == f"i-{'n' * 13}\n"


def test_it_is_process_1_and_has_what_it_needs_and_no_more(make: Callable[[str], Init]) -> None:
    init = settled(make("modest"))
    facts = status(init.pid)
    assert facts["NSpid"].split()[-1] == "1"
    assert capabilities(init.pid) == {"CapInh": 0, "CapPrm": KILL, "CapEff": KILL, "CapAmb": 0}
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    assert os.listdir(f"/proc/{init.pid}/fd") == []
    assert pss(init.pid) <= 30


def test_it_inherits_no_descriptor_that_is_open_on_exec(make: Callable[[str], Init]) -> None:
    read_end, write_end = os.pipe()
    try:
        os.set_inheritable(write_end, True)
        init = settled(make("closed"))
        os.close(write_end)
        write_end = -1
        wait_readable(read_end)
        assert os.read(read_end, 1) == b""
        assert os.listdir(f"/proc/{init.pid}/fd") == []
    finally:
        os.close(read_end)
        if write_end >= 0:
            os.close(write_end)


def test_it_leaves_no_zombies(make: Callable[[str], Init]) -> None:
    init = settled(make("reaper"))
    # the first ends before its child does, the second after it and without having asked for it
    assert run_inside(init, "(sleep 0.05 &) ; (true & exec sleep 0.05) & exit 0") == 0
    wait_until(lambda: not children(init.pid))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("told", [True, False])
def test_it_ends_on(make: Callable[[str], Init], signum: int, told: bool) -> None:
    init = make("mortal")
    if told:
        init.go()
    os.kill(init.pid, signum)
    assert wait_exit(init.pid) == 0


def test_it_lives_through_other_signals_and_a_stop(make: Callable[[str], Init]) -> None:
    init = settled(make("tough"))
    for signum in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE, signal.SIGALRM, signal.SIGRTMIN):
        os.kill(init.pid, signum)
    os.kill(init.pid, signal.SIGSTOP)
    wait_until(lambda: status(init.pid)["State"].startswith("T"))
    os.kill(init.pid, signal.SIGCONT)
    wait_until(lambda: status(init.pid)["State"].startswith(WAITING))
    assert find_again(init)


def find_again(init: Init) -> bool:
    found = find_init(init.pid, init.started)
    if found is None:
        return False
    same = os.path.sameopenfile(found.fd, init.fd)
    found.close()
    return same


def test_one_that_nobody_knows_of_ends_by_itself(make: Callable[[str], Init]) -> None:
    assert wait_exit(make("orphan").pid) == 0


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="registers are those of x86-64")
@pytest.mark.parametrize("number", [GETPID, EXECVE])
def test_any_other_system_call_ends_it(make: Callable[[str], Init], number: int) -> None:
    init = settled(make("filtered"))
    call_instead(init.pid, number)
    assert wait_exit(init.pid) == -signal.SIGSYS


def test_one_that_has_ended_is_not_found(make: Callable[[str], Init]) -> None:
    init = make("gone")
    init.kill()
    wait_readable(init.pidfd)
    assert find_init(init.pid, init.started) is None  # a zombie
    init.reap()
    assert find_init(init.pid, init.started) is None
    assert find_init(os.getpid(), start_time(os.getpid()) + 1) is None


# the process that makes a user namespace


def test_the_namespace_is_the_users_who_may_not_trace_its_process() -> None:
    pid = start_user_namespace(4711, 4712)
    try:
        facts = status(pid)
        assert int(facts["SigBlk"], 16) & 1 << (signal.SIGTERM - 1)
        assert facts["Uid"].split() == ["0", "4711", "0", "4711"]
        assert facts["Gid"].split() == ["0", "4712", "0", "4712"]
        assert os.stat(f"/proc/{pid}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino
        with pytest.raises(AssertionError, match="PermissionError"):
            in_child(lambda: as_user(4711, 4712, lambda: call_instead(pid, GETPID)))
        with pytest.raises(AssertionError, match="PermissionError"):
            in_child(lambda: as_user(4713, 4712, lambda: os.kill(pid, signal.SIGKILL)))
    finally:
        end_child(pid)


def as_user(uid: int, gid: int, act: Callable[[], object]) -> None:
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    act()


def test_only_its_user_may_enter_it() -> None:
    maker = NamespaceMaker()
    fd = maker.make_user(4711, 4712, b"0 4711 1", b"", deny_setgroups=False)
    try:
        in_child(lambda: as_user(4711, 4712, lambda: setns(fd, CLONE_NEWUSER)))
        with pytest.raises(AssertionError, match="PermissionError"):
            in_child(lambda: as_user(4713, 4712, lambda: setns(fd, CLONE_NEWUSER)))
    finally:
        os.close(fd)
        maker.close()


def test_it_dies_with_its_parent() -> None:
    program = (
        "import os; from workers.accessory.c_helpers import start_user_namespace as start\n"
        "print(start(1, 1), flush=True); os.kill(os.getpid(), 9)"
    )
    run = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    pid = int(run.stdout)
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or status(pid)["State"].startswith("Z"))


def test_whoever_makes_it_is_root_again() -> None:
    before = status(os.getpid())
    end_child(start_user_namespace(4711, 4712))
    after = status(os.getpid())
    for key in ("Uid", "Gid", "Groups", "CapPrm", "CapEff", "SigBlk"):
        assert after[key] == before[key]


def test_what_the_kernel_says_is_raised() -> None:
    with pytest.raises(OSError, match="Invalid argument") as caught:
        start_user_namespace(2**32 - 1, 0)  # the id that is none: then there is nobody whose it would be
    assert caught.value.errno == errno.EINVAL


def test_its_cost_does_not_grow_with_descriptors(make: Callable[[str], Init]) -> None:
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(3000)]
    try:
        init = settled(make("crowded"))
        assert status(init.pid)["FDSize"] == "64"  # the least that there is: nothing was copied
    finally:
        for fd in opened:
            os.close(fd)


def test_a_program_that_cannot_be_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRAM", "/no/such/program")
    before = children(os.getpid())
    with pytest.raises(FileNotFoundError):
        start_init("a")
    assert children(os.getpid()) == before


@pytest.mark.parametrize("arguments", [["x", "1"], ["x", "1", "1", "1"]])
def test_init_takes_its_title_alone(arguments: list[str]) -> None:
    assert subprocess.run(arguments, executable=PROGRAM, check=False).returncode == errno.EINVAL


def dispose(*socks: socket.socket) -> int:
    """Start a child that takes what is left in them; its pid."""
    for sock in socks:
        sock.shutdown(socket.SHUT_RD)
    return start_disposal(0, [sock.fileno() for sock in socks])


@pytest.mark.parametrize("nested", [False, True])
def test_a_child_takes_what_is_left_in_sockets_and_lingers_not(nested: bool) -> None:
    started = time.monotonic()
    read_end, write_end = os.pipe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    more, others = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with lingering() as passed, ours, theirs, more, others:
        if nested:
            outer, peer = socket.socketpair()
            with peer:
                pass_on(peer, passed)
            passed = outer
        theirs.send(b"one")
        pass_on(theirs, passed, b"two")
        theirs.send(b"")
        socket.send_fds(theirs, [b"three"], [write_end])
        socket.send_fds(others, [b"four"], [write_end])
        os.close(write_end)
        assert wait_exit(dispose(ours, more)) == 0
        assert (ours.recv(9), more.recv(9)) == (b"", b"")
        assert os.read(read_end, 1) == b""
        os.close(read_end)
        assert time.monotonic() - started < LINGER / 2


def test_a_child_that_takes_long_holds_nothing_else_of_ours() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, open("/dev/null") as null:
        above = fcntl.fcntl(null, fcntl.F_DUPFD, 300)
        send_packet_sockets(theirs, b"slow")
        pid = dispose(ours)
        wait_until(lambda: os.listdir(f"/proc/{pid}/fd") == [str(ours.fileno())])
        os.close(above)
        os.kill(pid, signal.SIGKILL)
        assert wait_exit(pid) == -signal.SIGKILL


def test_one_that_cannot_be_looked_at_leaves_nothing_open(
    make: Callable[[str], Init], monkeypatch: pytest.MonkeyPatch
) -> None:
    init = settled(make("short"))
    times = iter([init.started])

    def short_of_descriptors(_pid: int) -> int:
        for started in times:
            return started
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(module, "start_time_of_any", short_of_descriptors)
    before = open_numbers()
    with pytest.raises(OSError, match="Too many open files"):
        find_init(init.pid, init.started)
    assert open_numbers() == before
