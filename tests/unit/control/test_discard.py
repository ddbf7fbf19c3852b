"""Connections with descriptors in them, closed without waiting."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from supervisor.control import discard as discard_module
from supervisor.control.discard import PAUSE, Discard
from supervisor.loop.loop import Loop
from tests.unit.control.bench import Clock
from tests.unit.varlink.lingering import LINGER, lingering, pass_on
from tests.unit.waiting import run_until, turn


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop(clock: Clock) -> Iterator[Loop]:
    """A loop; every child that came of it is reaped in the end."""
    errors: list[BaseException] = []
    loop = Loop(errors.append, clock)
    yield loop
    loop.close()
    assert not errors
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break


def test_a_connection_without_descriptors_is_closed_at_once(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.send(b"x")
        Discard(loop)(ours)
        assert ours.fileno() == -1
        assert theirs.recv(1) == b""


@pytest.mark.parametrize("nested", [False, True])
def test_nothing_that_lingers_is_waited_for(loop: Loop, clock: Clock, nested: bool) -> None:
    """Not in a connection that is itself on its way in another one, either."""
    discard = Discard(loop)
    ours, theirs = socket.socketpair()
    begun = time.monotonic()
    with lingering() as sock, theirs:
        if nested:
            inner, other = socket.socketpair()
            pass_on(other, sock)
            other.close()
            pass_on(theirs, inner)
        else:
            pass_on(theirs, sock)
        discard(ours)
        assert ours.fileno() != -1
        clock.ahead += PAUSE + 1
        run_until(loop, lambda: ours.fileno() == -1)
        with suppress(ConnectionResetError):  # so does a socket end that had something left to read
            assert theirs.recv(1) == b""
        os.waitpid(-1, 0)
        assert time.monotonic() - begun < LINGER / 2


def test_many_share_a_child(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discard_module, "MOST", 3)
    discard = Discard(loop)
    pairs = [socket.socketpair() for _ in range(3)]
    for ours, theirs in pairs:
        kept, sent = socket.socketpair()
        pass_on(theirs, sent)
        discard(ours)
        kept.close()
        theirs.close()
    assert all(ours.fileno() == -1 for ours, _ in pairs)
    os.waitpid(-1, 0)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, 0)


def test_without_descriptors_for_a_child_it_is_tried_again(
    loop: Loop, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    discard = Discard(loop)
    ours, theirs = socket.socketpair()
    kept, sent = socket.socketpair()
    pass_on(theirs, sent)
    discard(ours)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        clock.ahead += PAUSE
        turn(loop, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "cannot close 1 control connections: Too many open files" in caplog.text
    assert ours.fileno() != -1
    clock.ahead += PAUSE
    run_until(loop, lambda: ours.fileno() == -1)
    theirs.close()
    kept.close()
