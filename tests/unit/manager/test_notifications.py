"""The descriptors that are stored, by service."""

from __future__ import annotations

import os
import socket
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from supervisor.definitions.service import Service
from supervisor.lifecycle.life import Transition
from supervisor.loop.loop import Loop
from supervisor.manager.notifications import LAST_PATIENCE, SLICE, LastWords, take_notifications
from supervisor.manager.unit import Unit
from supervisor.notify.receiver import MAX_AT_ONCE, Receiver
from supervisor.notify.store import NAMES_MAX
from supervisor.notify.untrusted import MAX_DESCRIPTORS
from supervisor.process.run import Run
from tests.unit.closing import PatientCloser, bind_receiver
from tests.unit.waiting import run_until, turn

NAME = "n" * 255
TOO_MANY = NAMES_MAX // (len(NAME) + 1) + 1


class Silent:
    def event(self, unit: Unit, event: Callable[..., Transition], *args: object) -> None:
        pass

    def touch(self, unit: Unit) -> None:
        pass

    def said_busy(self, unit: Unit, is_busy: bool) -> None:
        unit.says_busy = is_busy


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    receiver = bind_receiver(tmp_path / "socket")
    yield receiver
    receiver.close()


def stored_of(service: Service, loop: Loop, receiver: Receiver) -> int:
    """How many descriptors are stored of one more than there are names for in an environment."""
    unit = Unit(service, loop, PatientCloser())
    unit.receiver, unit.run = receiver, Run(os.getpid())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(receiver.path)
        left = TOO_MANY
        while left:
            fds = [os.memfd_create("x") for _ in range(min(left, MAX_DESCRIPTORS))]
            left -= len(fds)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))]
            sock.sendmsg([f"FDSTORE=1\nFDPOLL=0\nFDNAME={NAME}".encode()], rights)
            for fd in fds:
                os.close(fd)
            take_notifications(unit, Silent(), 10)
    number = len(unit.store)
    unit.store.clear()
    return number


def test_what_is_executed_can_have_as_many_as_it_can_be_told_the_names_of(loop: Loop, receiver: Receiver) -> None:
    uid = os.geteuid()
    assert stored_of(Service("s", exec="/bin/s", uid=uid, fdstore_max=9999), loop, receiver) == TOO_MANY - 1


def test_a_worker_that_is_forked_is_told_all_names(loop: Loop, receiver: Receiver) -> None:
    assert stored_of(Service("w", worker="w", uid=os.geteuid(), fdstore_max=9999), loop, receiver) == TOO_MANY


def test_a_turn_ends_when_its_time_is_over_and_the_next_goes_on(loop: Loop, receiver: Receiver) -> None:
    """A service whose messages take long keeps the others waiting no longer; each turn takes one at least."""
    unit = Unit(Service("s", exec="/bin/s", uid=os.geteuid()), loop, PatientCloser())
    unit.receiver, unit.run = receiver, Run(os.getpid())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(receiver.path)
        for number in range(3):
            sock.send(b"STATUS=%d" % number)
    for number in range(2):
        take_notifications(unit, Silent(), 10, 0.0)
        assert unit.status_text == str(number)
    take_notifications(unit, Silent(), 10)
    assert unit.status_text == "2"


class Noting(Silent):
    """Notes what it is told; what it does takes a while."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.said: list[str] = []
        self._seconds = seconds

    def touch(self, unit: Unit) -> None:
        self.said.append(unit.status_text)
        time.sleep(self._seconds)

    def said_busy(self, unit: Unit, is_busy: bool) -> None:
        unit.says_busy = is_busy


def send_all(receiver: Receiver, number: int, fds: list[int] | None = None) -> list[str]:
    """Send as many status texts as the queue takes, `number` at most."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
    sent = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(receiver.path)
        with suppress(BlockingIOError):
            for each in range(number):
                sock.sendmsg([f"STATUS={each}".encode()], rights, socket.MSG_DONTWAIT)
                sent.append(str(each))
    return sent


def test_the_last_words_of_a_process_are_heard_over_turns(loop: Loop, receiver: Receiver) -> None:
    unit, listener = Unit(Service("s", exec="/bin/s", uid=os.geteuid()), loop, PatientCloser()), Noting(SLICE)
    unit.receiver, unit.run = receiver, Run(os.getpid())
    sent = send_all(receiver, 10)
    words = LastWords(loop, unit, listener)
    assert not words.hear()
    assert listener.said == sent[:1]
    heard: list[bool] = []
    words.hear_rest(lambda: heard.append(True))
    turn(loop)
    assert len(listener.said) < len(sent)
    run_until(loop, lambda: heard)
    assert listener.said == sent


def test_few_last_words_are_heard_at_once(receiver: Receiver) -> None:
    loop = Loop(on_error=lambda _error: None, clock=lambda: 0.0)  # a busy machine does not make it late
    unit, listener = Unit(Service("s", exec="/bin/s", uid=os.geteuid()), loop, PatientCloser()), Noting()
    unit.receiver, unit.run = receiver, Run(os.getpid())
    assert LastWords(loop, unit, listener).hear()
    sent = send_all(receiver, 3)
    assert LastWords(loop, unit, listener).hear()
    assert listener.said == sent
    loop.close()


def test_last_words_behind_descriptors_that_are_not_closed_are_given_up(
    loop: Loop, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop goes round meanwhile."""
    unit, listener = Unit(Service("s", exec="/bin/s", uid=os.geteuid()), loop, PatientCloser()), Noting()
    unit.receiver, unit.run = receiver, Run(os.getpid())
    sent = send_all(receiver, 2, [0])
    monkeypatch.setattr("supervisor.notify.receiver.has_ended", lambda pid, seconds: False)
    words = LastWords(loop, unit, listener)
    begun = time.monotonic()
    assert not words.hear()
    heard: list[bool] = []
    words.hear_rest(lambda: heard.append(True))
    turns = 0
    while not heard:
        turn(loop)
        turns += 1
    assert turns > 10
    assert LAST_PATIENCE <= time.monotonic() - begun
    assert listener.said == sent[:1]


def test_no_more_last_words_are_heard_than_a_queue_may_have(loop: Loop, receiver: Receiver) -> None:
    """Another process may say something all the time."""
    unit = Unit(Service("s", exec="/bin/s", uid=os.geteuid()), loop, PatientCloser())
    unit.receiver, unit.run = receiver, Run(os.getpid())

    class Answering(Noting):
        def touch(self, unit: Unit) -> None:
            super().touch(unit)
            send_all(receiver, 2)

        def said_busy(self, unit: Unit, is_busy: bool) -> None:
            unit.says_busy = is_busy

    listener = Answering()
    send_all(receiver, 2)
    words, heard = LastWords(loop, unit, listener), list[bool]()
    if not words.hear():
        words.hear_rest(lambda: heard.append(True))
        run_until(loop, lambda: heard)
    assert len(listener.said) <= MAX_AT_ONCE
