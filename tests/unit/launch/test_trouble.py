"""Errors, floods and traps: a client that cannot be served is closed, the next one is served."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from supervisor.launch.acceptor import Rate
from supervisor.launch.operations import Kind, operation
from supervisor.launch.session_table import DENIED_SIZE, open_denied
from supervisor.process.failure import read_failure
from tests import fuse
from tests.unit.launch.accepting import Acceptor, is_answered, is_let_in, networks, port_of, session_plan, wait_until
from tests.unit.launch.filters import Faults

MOMENT = 5.0  # seconds: a pause of 0.2 s, on a busy machine
UID = 54399  # of nobody else


def cause(acceptor: Acceptor) -> str:
    wait_until(lambda: acceptor.counters().trouble is not None)  # it is noted once the client is gone
    trouble = acceptor.counters().trouble
    assert trouble is not None
    failure = read_failure(trouble.report)
    assert failure is not None
    assert failure.errno == trouble.number
    return str(failure)


def test_a_missing_program(tmp_path: Path) -> None:
    program = tmp_path / "program"
    with Acceptor((str(program),)) as acceptor:
        assert [acceptor.ask() for _ in range(50)] == [b""] * 50
        assert cause(acceptor) == f"cannot exec {str(program)!r}: No such file or directory (ENOENT)"
        found = acceptor.counters()
        assert found.trouble is not None
        assert (found.trouble.failures, found.started, found.sessions) == (50, 0, 0)
        assert acceptor.text() == f"cannot exec {program}: No such file or directory\n"
        program.write_text("#!/bin/sh\necho ok\n")
        program.chmod(0o755)
        assert acceptor.ask() == b"ok\n"
        found = acceptor.counters()
        assert found.trouble is not None
        assert found.last_start >= found.trouble.time


def test_a_script_without_its_interpreter(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/none\n")
    program.chmod(0o755)
    with Acceptor((str(program),)) as acceptor:
        assert acceptor.ask() == b""
        assert "the interpreter that it names, '/none', does not exist" in cause(acceptor)


def test_a_path_of_any_length() -> None:
    with Acceptor(("/" + "\u00e9" * 2000,)) as acceptor:
        assert acceptor.ask() == b""
        assert "\u00e9" * 2000 in cause(acceptor)


def test_another_trouble_is_told_at_once(tmp_path: Path) -> None:
    with Acceptor((str(tmp_path),)) as acceptor:
        acceptor.ask()
        acceptor.stop()
        acceptor.plan = session_plan(("/none",))
        acceptor.start()
        acceptor.ask()
        assert acceptor.text().count("\n") == 2


def test_an_impossible_limit() -> None:
    limit = operation(Kind.BINDING_LIMIT, "set limit nofile", numbers=[resource.RLIMIT_NOFILE, 9, 8])
    with Acceptor(plan=session_plan(("/bin/true",), last=[limit])) as acceptor:
        assert acceptor.ask() == b""
        assert cause(acceptor) == "cannot set limit nofile: Invalid argument (EINVAL)"


def test_no_descriptor_is_left() -> None:
    with Acceptor() as acceptor:
        assert acceptor.ask() == b"ok\n"
        wait_until(lambda: acceptor.counters().sessions == 0)  # whose process has a descriptor
        limits = resource.prlimit(acceptor.pid, resource.RLIMIT_NOFILE)
        numbers = set(map(int, os.listdir(f"/proc/{acceptor.pid}/fd")))
        free = min(set(range(len(numbers) + 1)) - numbers)
        resource.prlimit(acceptor.pid, resource.RLIMIT_NOFILE, (free, limits[1]))
        assert acceptor.ask() == b""
        assert cause(acceptor) == "cannot accept a client: Too many open files (EMFILE)"
        resource.prlimit(acceptor.pid, resource.RLIMIT_NOFILE, limits)
        assert acceptor.ask() == b"ok\n"
        wait_until(lambda: set(map(int, os.listdir(f"/proc/{acceptor.pid}/fd"))) == numbers)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a user that nobody else is")
def test_no_process_is_left() -> None:
    def become() -> None:
        resource.setrlimit(resource.RLIMIT_NPROC, (2, 2))
        os.setresuid(UID, UID, UID)

    other = subprocess.Popen(["/bin/sleep", "1000"], user=UID)
    with Acceptor(before=become) as acceptor:
        assert acceptor.ask() == b""
        assert cause(acceptor) == "cannot start a session: Resource temporarily unavailable (EAGAIN)"
        assert acceptor.counters().sessions == 0
        other.kill()
        other.wait()
        assert acceptor.ask() == b"ok\n"


SHORTAGES = [
    ("accept4", errno.ENFILE, "cannot accept a client: Too many open files in system (ENFILE)", b""),
    ("accept4", errno.ENOBUFS, "cannot accept a client: No buffer space available (ENOBUFS)", b"ok\n"),
    ("accept4", errno.ENOMEM, "cannot accept a client: Cannot allocate memory (ENOMEM)", b"ok\n"),
    ("clone", errno.EAGAIN, "cannot start a session: Resource temporarily unavailable (EAGAIN)", b""),
    ("clone", errno.ENOMEM, "cannot start a session: Cannot allocate memory (ENOMEM)", b""),
]


@pytest.mark.parametrize(("call", "number", "told", "expected"), SHORTAGES)
def test_a_shortage_of_the_host_is_soon_over(call: str, number: int, told: str, expected: bytes) -> None:
    """Clients are closed where they can be accepted, and wait otherwise; the next one is served within a second."""
    faults = Faults(call)
    with closing(faults), Acceptor(before=faults.install) as acceptor:
        assert acceptor.ask() == b"ok\n"
        for _ in range(3):
            wait_until(lambda: acceptor.counters().started == acceptor.counters().ended)  # it looks for clients no more
            faults.errnos.append(number)
            assert acceptor.ask() == expected
            begin = time.monotonic()
            assert acceptor.ask() == b"ok\n"
            assert time.monotonic() - begin < MOMENT
        assert cause(acceptor) == told
        found = acceptor.counters()
        assert found.trouble is not None
        assert found.trouble.failures == 3
        assert acceptor.text().count("\n") == 1


def test_failures_that_take_turns_are_logged_now_and_then(tmp_path: Path) -> None:
    with Acceptor((str(tmp_path / "none"),)) as acceptor:
        assert acceptor.ask() == b""  # it has raised its own limit by now
        limits = resource.prlimit(acceptor.pid, resource.RLIMIT_NOFILE)
        for _ in range(25):
            for limit in (4, limits[0]):
                resource.prlimit(acceptor.pid, resource.RLIMIT_NOFILE, (limit, limits[1]))
                assert acceptor.ask() == b""
        found = acceptor.counters().trouble
        assert found is not None
        assert found.failures == 51
        lines = acceptor.text().splitlines()
        assert 20 <= len(lines) < 30
        assert lines[2].endswith("; failures before: 2")


@pytest.mark.skipif(not fuse.is_possible(), reason="needs root and FUSE")
def test_a_program_that_nobody_serves_delays_no_end() -> None:
    """The acceptor waits for the exec of a session, and TERM ends it all the same; the next one counts that session."""
    with Acceptor() as acceptor:
        acceptor.stop()
        with fuse.unanswering(fuse.OPEN) as path, acceptor.connect():
            acceptor.plan = session_plan((path,))
            acceptor.start()
            wait_until(acceptor.sessions)
            (session,) = acceptor.sessions()
            acceptor.stop()
            assert acceptor.status == -signal.SIGTERM
            acceptor.plan = session_plan(("/bin/echo", "ok"))
            acceptor.start()
            assert acceptor.ask() == b"ok\n"
            assert session in acceptor.sessions()
        wait_until(lambda: acceptor.counters().sessions == 0)


def test_failing_sessions_are_logged_now_and_then() -> None:
    with Acceptor(("/bin/false",)) as acceptor:
        for _ in range(200):
            acceptor.ask()
        wait_until(lambda: acceptor.counters().ended == 200)
        assert 20 <= acceptor.text().count("\n") < 100


def test_a_flood_from_a_source_harms_nobody_else() -> None:
    with Acceptor(("/bin/cat",), per_source=2) as acceptor, ExitStack() as stack:
        stay = [stack.enter_context(acceptor.connect("127.0.0.2")) for _ in range(2)]
        assert [is_answered(client) for client in stay] == [True, True]
        for number in range(10):
            for client in [acceptor.connect("127.0.0.2") for _ in range(100)]:
                client.close()
            assert is_let_in(port_of(acceptor), f"127.0.1.{number}")
        wait_until(lambda: acceptor.counters().refused["per_source"] == 1000)
        assert acceptor.text().count("\n") == 1
        assert [is_answered(client) for client in stay] == [True, True]


def test_more_sources_than_there_is_room_for() -> None:
    """The table of rates has 4096 places; those that come last have their limits."""
    with Acceptor(("/bin/true",), source_rate=Rate(3600, 1), max=8) as acceptor:
        sources = [f"127.{number >> 8}.{number & 255}.9" for number in range(256, 5256)]
        for source in sources:
            with acceptor.connect(source):
                pass
        wait_until(lambda: acceptor.counters().accepted == len(sources))
        before = acceptor.counters().refused["source_rate"]
        acceptor.ask(sources[-1])
        assert acceptor.counters().refused["source_rate"] == before + 1


@pytest.fixture
def denied(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """The table of denied addresses, for a trap and for others."""
    fds = open_denied(str(tmp_path / "denied"), True), open_denied(str(tmp_path / "denied"), False)
    yield fds
    for fd in fds:
        os.close(fd)


def test_a_client_of_a_trap_is_refused_everywhere(denied: tuple[int, int]) -> None:
    with (
        Acceptor(denied=denied[0], is_trap=True) as trap,
        Acceptor(("/bin/cat",), denied=denied[1]) as first,
        Acceptor(("/bin/cat",), denied=denied[1]) as second,
    ):
        assert is_let_in(port_of(first), "127.0.0.2")
        assert trap.ask("127.0.0.2") == b""
        assert trap.counters().refused["trap"] == 1
        for acceptor in (first, second):
            assert not is_let_in(port_of(acceptor), "127.0.0.2")
            assert is_let_in(port_of(acceptor), "127.0.0.1")
            refusal = acceptor.counters().refusal
            assert refusal is not None
            assert refusal.rule == "denied"


def test_denials_outlive_their_traps(tmp_path: Path) -> None:
    path = str(tmp_path / "denied")
    with open(open_denied(path, True), "rb") as file, Acceptor(denied=file.fileno(), is_trap=True) as trap:
        assert trap.ask("127.0.0.2") == b""
    with open(open_denied(path, False), "rb") as file, Acceptor(("/bin/cat",), denied=file.fileno()) as acceptor:
        assert not is_let_in(port_of(acceptor), "127.0.0.2")
        assert is_let_in(port_of(acceptor))


@pytest.mark.parametrize("at", [0, 16, DENIED_SIZE])
def test_a_table_of_another_boot_or_version_is_made_anew(tmp_path: Path, at: int) -> None:
    path = tmp_path / "denied"
    os.close(open_denied(str(path), True))
    before = path.stat()
    assert (before.st_mode & 0o777, before.st_size) == (0o600, DENIED_SIZE)
    os.close(open_denied(str(path), False))
    assert path.stat().st_ino == before.st_ino
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"other")
    os.close(open_denied(str(path), False))
    after = path.stat()
    assert after.st_ino != before.st_ino
    assert after.st_size == DENIED_SIZE
    assert path.read_bytes()[32:] == bytes(DENIED_SIZE - 32)


def test_a_table_without_denials_is_no_rule(denied: tuple[int, int]) -> None:
    """Where there are rules, clients are accepted although they have to wait."""
    with Acceptor(("/bin/cat",), denied=denied[1], max=1) as acceptor, ExitStack() as stack:
        first, second = (stack.enter_context(acceptor.connect()) for _ in range(2))
        assert is_answered(first)
        assert acceptor.counters().accepted == 1
        with Acceptor(denied=denied[0], is_trap=True) as trap:
            assert trap.ask("127.0.0.2") == b""
        first.close()
        assert is_answered(second)


def test_a_denial_ends(denied: tuple[int, int]) -> None:
    with (
        Acceptor(denied=denied[0], is_trap=True, deny_time=0.3) as trap,
        Acceptor(("/bin/cat",), denied=denied[1]) as acceptor,
    ):
        assert trap.ask() == b""
        assert not is_let_in(port_of(acceptor))
        wait_until(lambda: is_let_in(port_of(acceptor)))


def test_another_trap_shortens_no_denial(denied: tuple[int, int]) -> None:
    with (
        Acceptor(denied=denied[0], is_trap=True, deny_time=3600) as trap,
        Acceptor(denied=denied[0], is_trap=True, deny_time=0) as other,
        Acceptor(("/bin/cat",), denied=denied[1]) as acceptor,
    ):
        assert trap.ask() == b""
        assert other.ask() == b""
        assert other.counters().refused["trap"] == 1
        assert not is_let_in(port_of(acceptor))


def test_the_table_of_denials_has_its_room_from_the_start(tmp_path: Path) -> None:
    """A page without room ends an acceptor that reads or writes it, on a full tmpfs."""
    path = tmp_path / "denied"
    os.close(open_denied(str(path), True))
    assert path.stat().st_blocks * 512 >= DENIED_SIZE


def test_addresses_without_access_are_not_trapped(denied: tuple[int, int]) -> None:
    with (
        Acceptor(denied=denied[0], is_trap=True, no_access=networks("127.0.0.1")) as trap,
        Acceptor(("/bin/cat",), denied=denied[1]) as acceptor,
    ):
        assert trap.ask() == b""
        assert is_let_in(port_of(acceptor))


def test_a_trap_has_room_for_new_addresses(denied: tuple[int, int]) -> None:
    with Acceptor(denied=denied[0], is_trap=True) as trap, Acceptor(("/bin/cat",), denied=denied[1]) as acceptor:
        for number in range(256, 5256):
            with trap.connect(f"127.{number >> 8}.{number & 255}.9"):
                pass
        wait_until(lambda: trap.counters().accepted == 5000)
        assert not is_let_in(port_of(acceptor), "127.20.135.9")
        assert is_let_in(port_of(acceptor), "127.0.0.1")


def test_only_traps_can_deny(denied: tuple[int, int]) -> None:
    with Acceptor(denied=denied[1], is_trap=True) as acceptor:
        assert acceptor.wait() == 111
        assert f'"errno": {errno.EACCES}' in acceptor.text()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_users_cannot_open_the_addresses_for_writing(denied: tuple[int, int]) -> None:
    pid = os.fork()
    if pid == 0:
        with suppress(OSError):
            os.setresuid(UID, UID, UID)
            os.open(f"/proc/self/fd/{denied[1]}", os.O_RDWR)
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert os.fstat(denied[0]).st_size == DENIED_SIZE


def test_a_client_that_left_costs_nothing() -> None:
    with Acceptor() as acceptor:
        for _ in range(100):
            client = acceptor.connect()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()  # with a reset
        assert acceptor.ask() == b"ok\n"
