"""The inits of an earlier process: held soon, or when they are asked for."""

from __future__ import annotations

import errno
import os
import select
import signal
from collections.abc import Callable, Iterator

import pytest

from supervisor.loop.loop import Loop
from tests.unit.process.forked import open_numbers
from tests.unit.process.requirements import needs_root
from tests.unit.waiting import checked_loop, run_until, turn, wait_exit
from tests.unit.workers.accessory.entries import entry
from workers.accessory import expiry as expiry_module
from workers.accessory import registry as registry_module
from workers.accessory.c_helpers import Init, find_init
from workers.accessory.entry import Accounts, Entry
from workers.accessory.expiry import INITS_AT_ONCE, adopt_inits
from workers.accessory.ledger import Journal, Ledger, read_lines
from workers.accessory.main import Report
from workers.accessory.new_namespaces import NamespaceMaker
from workers.accessory.options import Quota
from workers.accessory.protocol import Refused, Request
from workers.accessory.registry import Grant, Registry
from workers.accessory.rights import SHARED, Rights

ROOT = Rights(0, 0, SHARED)
A_PID = Request("a", pid=True)
LONG = 3600.0


@pytest.fixture
def loop() -> Iterator[Loop]:
    with checked_loop() as loop:
        yield loop


def entries(number: int) -> list[Entry]:
    return [entry(id, f"n{id}") for id in range(number)]


def test_some_in_a_turn_until_all_are_held(loop: Loop) -> None:
    held: list[Entry] = []
    found = entries(2 * INITS_AT_ONCE + 1)
    adopt_inits(loop, held.append, found)
    assert held == []
    turn(loop)
    assert len(held) == INITS_AT_ONCE
    run_until(loop, lambda: len(held) == len(found))
    assert held == found


def test_those_that_cannot_be_held_are_tried_again_and_told_of_once(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(expiry_module, "PAUSE", 0.01)
    tries: list[int] = []
    held: set[int] = set()

    def hold(entry: Entry) -> None:
        tries.append(entry.id)
        if entry.id % 2 and tries.count(entry.id) < 3:
            raise Refused(f"cannot hold n{entry.id}")
        held.add(entry.id)

    adopt_inits(loop, hold, entries(2 * INITS_AT_ONCE))
    run_until(loop, lambda: len(held) == 2 * INITS_AT_ONCE)
    assert [tries.count(id) for id in range(2 * INITS_AT_ONCE)] == [1, 3] * INITS_AT_ONCE
    assert [record.message for record in caplog.records] == ["cannot hold n1; trying again"] * 2


class Earlier:
    """A name `a` that an earlier process has left, and its init, a child of this process."""

    def __init__(self, loop: Loop, expiry: float = LONG) -> None:
        self._held = NamespaceMaker.make_pid("a")
        self._held.go()
        self.pid = self._held.pid
        self.accounts = Accounts(Quota(), 10_000)
        self.account = self.accounts.of(0)
        self.account.charge("names", 1, 0)
        self.entry = entry(1, "a", loop.clock(), self.account)
        self.entry.init = Init(self.pid, self._held.started)
        self.realms: dict[int, dict[str, Entry]] = {}
        self.journal = Journal.create()
        self.ledger = Ledger(self.journal, self.realms, loop, "")
        self.registry = Registry(loop, self.ledger, self.realms, expiry)
        self.registry.adopt([self.entry])

    def ask(self, request: Request) -> Grant:
        return self.registry.fulfil(ROOT, self.account, request)

    @property
    def namespace(self) -> int:
        return os.fstat(self._held.fd).st_ino

    @property
    def is_held(self) -> bool:
        return self.entry.init is not None and self.entry.init.is_held

    def known(self) -> tuple[int, int] | None:
        """Return the log's record of its init."""
        journal, lines = Journal.resume(os.dup(self.journal.fd))
        known, damaged = read_lines(lines)
        journal.close()
        assert damaged == 0
        return known[1].init

    @property
    def has_ended(self) -> bool:
        poll = select.poll()
        poll.register(self._held.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def end(self) -> None:
        self._held.kill()
        self._held.wait()
        self._held.close()
        init = self.entry.init
        if init is not None and init.is_held:
            if init.pid != self.pid:  # it was made anew
                init.kill()
                init.wait()
            init.close()
        for fd in self.entry.stored():
            os.close(fd)
        self.registry._maker.close()
        self.registry.hangups._epoll.close()
        self.journal.close()


@pytest.fixture
def earlier(loop: Loop) -> Iterator[Callable[..., Earlier]]:
    made: list[Earlier] = []

    def make(expiry: float = LONG) -> Earlier:
        made.append(Earlier(loop, expiry))
        return made[-1]

    before = open_numbers()
    yield make
    for one in made:
        one.end()
    assert open_numbers() == before


class Descriptors:
    """In the place of `find_init`: there are none for it, as long as `are_short`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.are_short = True
        monkeypatch.setattr(registry_module, "find_init", self._find)

    def _find(self, pid: int, started: int) -> Init | None:
        if self.are_short:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return find_init(pid, started)


@needs_root
def test_who_asks_first_has_it_and_who_does_not_ask_for_it_does_not_wait(earlier: Callable[..., Earlier]) -> None:
    left = earlier()
    left.ask(Request("a", ipc=True))
    assert not left.is_held
    (fd,) = left.ask(A_PID).handles
    assert os.fstat(fd).st_ino == left.namespace


@needs_root
def test_nobody_asks_and_its_end_is_heard(loop: Loop, earlier: Callable[..., Earlier]) -> None:
    left = earlier()
    run_until(loop, lambda: left.is_held)
    os.kill(left.pid, signal.SIGKILL)
    run_until(loop, lambda: left.entry.init is None)
    assert left.ask(A_PID).is_made


@needs_root
def test_one_that_ended_before_it_was_held_is_made_anew(earlier: Callable[..., Earlier]) -> None:
    left = earlier()
    os.kill(left.pid, signal.SIGKILL)
    assert wait_exit(left.pid) == -signal.SIGKILL
    left.ledger.write_anew()
    left.registry.hold(left.entry)
    assert left.known() is None
    assert left.account.used == {"connections": 0, "names": 1, "namespaces": 0, "leases": 0}
    assert left.accounts.descriptors[0] == 0
    grant = left.ask(A_PID)
    assert grant.is_made
    assert os.fstat(grant.handles[0]).st_ino


@needs_root
def test_without_descriptors_it_is_refused_and_nothing_is_forgotten(
    loop: Loop, earlier: Callable[..., Earlier], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry_module, "PAUSE", 0.01)
    descriptors = Descriptors(monkeypatch)
    left = earlier()
    with pytest.raises(Refused, match=r"cannot hold the init of 'a': Too many open files"):
        left.ask(A_PID)
    turn(loop, 3)
    assert left.entry.init is not None
    assert not left.is_held
    descriptors.are_short = False
    run_until(loop, lambda: left.is_held)
    assert os.fstat(left.ask(A_PID).handles[0]).st_ino == left.namespace


@needs_root
def test_it_does_not_expire_before_its_init_can_be_ended(
    loop: Loop, earlier: Callable[..., Earlier], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(expiry_module, "PAUSE", LONG)
    descriptors = Descriptors(monkeypatch)
    left = earlier(expiry=0.05)
    run_until(loop, lambda: "it does not expire yet" in caplog.text)
    assert left.realms
    descriptors.are_short = False
    run_until(loop, lambda: not left.realms)
    run_until(loop, lambda: left.has_ended and not left.registry.hangups._inits)


@needs_root
def test_all_are_ended_also_those_that_are_not_held(earlier: Callable[..., Earlier]) -> None:
    left = earlier()
    assert not left.is_held
    left.registry.end_all()
    assert wait_exit(left.pid) == -signal.SIGKILL


@needs_root
def test_a_log_written_anew_knows_what_is_not_held(earlier: Callable[..., Earlier]) -> None:
    left = earlier()
    left.ledger.write_anew()
    assert left.entry.init is not None
    assert left.known() == (left.entry.init.pid, left.entry.init.started)


@needs_root
def test_it_is_told_that_it_is_known(earlier: Callable[..., Earlier], monkeypatch: pytest.MonkeyPatch) -> None:
    """The process before this one may not have come to that, and it would end by itself."""
    told: list[int] = []
    monkeypatch.setattr(Init, "go", lambda init: told.append(init.pid))
    left = earlier()
    left.registry.hold(left.entry)
    assert told == [left.pid, left.pid], "by the earlier process and by this one"


@needs_root
def test_one_that_cannot_be_watched_is_as_before(
    loop: Loop, earlier: Callable[..., Earlier], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = earlier()
    before = open_numbers()

    def refuse(_entry: Entry, _init: Init) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(left.registry.hangups, "watch_init", refuse)
        with pytest.raises(Refused, match="cannot hold the init of 'a': No space left on device"):
            left.registry.hold(left.entry)
    assert open_numbers() == before
    assert not left.is_held
    run_until(loop, lambda: left.is_held)


@needs_root
def test_one_that_cannot_be_held_keeps_none_of_the_others_from_their_end(
    earlier: Callable[..., Earlier], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    left = earlier()
    first = entry(2, "b", 0.0, left.account)
    first.init = Init(1, 0)
    left.registry.adopt([first])
    left.realms[SHARED]["a"] = left.realms[SHARED].pop("a")

    def find(pid: int, started: int) -> Init | None:
        if pid == 1:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return find_init(pid, started)

    monkeypatch.setattr(registry_module, "find_init", find)
    left.registry.end_all()
    assert wait_exit(left.pid) == -signal.SIGKILL
    assert "cannot hold the init of 'b': Too many open files: it is not ended" in caplog.text


@needs_root
def test_who_is_told_of_it_is_told_its_namespace(earlier: Callable[..., Earlier]) -> None:
    left = earlier()
    report = Report(left.registry, None, left.accounts, left.ledger)  # type: ignore[arg-type]  # nobody asks for counters
    assert report._row(left.entry)["pid"] == left.namespace
