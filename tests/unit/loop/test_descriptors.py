"""Watching descriptors."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from supervisor.loop.loop import MAX_EVENTS, Loop
from tests.unit.waiting import run_until, turn, wait_readable

Pipe = tuple[int, int]


@pytest.fixture
def pipes() -> Iterator[list[Pipe]]:
    """Two pipes with something to read in each."""
    made = [os.pipe(), os.pipe()]
    for _, write_end in made:
        os.write(write_end, b"x")
    yield made
    for fd in {fd for pipe in made for fd in pipe}:
        os.close(fd)


def test_it_calls_while_there_is_something(loop: Loop, pipes: list[Pipe]) -> None:
    (read_end, _), _ = pipes
    events: list[int] = []
    loop.watch(read_end, select.EPOLLIN, events.append)
    turn(loop, 2)
    assert events == [select.EPOLLIN, select.EPOLLIN]
    os.read(read_end, 1)
    turn(loop)
    assert len(events) == 2
    loop.unwatch(read_end)


def test_unwatched_wakes_nobody(loop: Loop, pipes: list[Pipe]) -> None:
    (read_end, _), _ = pipes
    loop.watch(read_end, select.EPOLLIN, lambda _events: None)
    loop.unwatch(read_end)
    assert loop._epoll.poll(0) == []


def test_modify_changes_what_is_waited_for(loop: Loop, pipes: list[Pipe]) -> None:
    (_, write_end), _ = pipes
    events: list[int] = []
    loop.watch(write_end, 0, events.append)
    turn(loop)
    assert events == []
    loop.modify(write_end, select.EPOLLOUT)
    turn(loop)
    assert events == [select.EPOLLOUT]
    loop.unwatch(write_end)


def test_hang_up_comes_unasked(loop: Loop) -> None:
    read_end, write_end = os.pipe()
    events: list[int] = []
    loop.watch(read_end, 0, events.append)
    turn(loop)
    os.close(write_end)
    turn(loop)
    loop.unwatch(read_end)
    os.close(read_end)
    assert events == [select.EPOLLHUP]


def test_unwatched_is_not_called_for_events_at_hand(loop: Loop, pipes: list[Pipe]) -> None:
    reads = [read_end for read_end, _ in pipes]
    called: list[int] = []

    def take(fd: int) -> None:
        called.append(fd)
        for each in reads:
            loop.unwatch(each)

    for fd in reads:
        loop.watch(fd, select.EPOLLIN, lambda _events, fd=fd: take(fd))  # type: ignore[misc]
    turn(loop, 2)
    assert len(called) == 1


def test_what_gets_the_number_of_a_closed_one_is_not_called_for_its_events(loop: Loop, pipes: list[Pipe]) -> None:
    """Both pipes are ready in one turn; the first callback closes the other and watches a new, silent file there."""
    reads = [read_end for read_end, _ in pipes]
    heard: list[int] = []
    silent: list[int] = []

    def take(fd: int) -> None:
        (other,) = {*reads} - {fd}
        for each in reads:
            loop.unwatch(each)
        read_end, write_end = os.pipe()
        os.dup2(read_end, other)
        os.close(read_end)
        silent.append(write_end)
        loop.watch(other, select.EPOLLIN, heard.append)

    try:
        for fd in reads:
            loop.watch(fd, select.EPOLLIN, lambda _events, fd=fd: take(fd))  # type: ignore[misc]
        turn(loop, 2)
        assert len(silent) == 1
        assert heard == []
    finally:
        for fd in silent:
            os.close(fd)


def test_unwatch_of_what_is_not_watched_does_nothing(loop: Loop, pipes: list[Pipe]) -> None:
    loop.unwatch(pipes[0][0])
    loop.watch(pipes[0][0], select.EPOLLIN, lambda _events: None)
    loop.unwatch(pipes[0][0])
    loop.unwatch(pipes[0][0])


def test_a_plain_file_cannot_be_watched_and_leaves_nothing_behind(loop: Loop, tmp_path: object) -> None:
    fd = os.open(f"{tmp_path}/plain", os.O_CREAT | os.O_RDWR)
    try:
        with pytest.raises(PermissionError):
            loop.watch(fd, select.EPOLLIN, lambda _events: None)
        loop.unwatch(fd)
    finally:
        os.close(fd)


class Full:
    """The epoll of a user who may watch no more."""

    def __init__(self, epoll: select.epoll, error: int) -> None:
        self._epoll = epoll
        self.error = error
        self.tried = 0

    def register(self, fd: int, events: int) -> None:
        self.tried += 1
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        self._epoll.register(fd, events)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.ENOMEM])
def test_a_watch_without_room_begins_once_there_is_some(pipes: list[Pipe], error: int) -> None:
    errors: list[BaseException] = []
    loop = Loop(on_error=errors.append)
    full = loop._epoll = Full(loop._epoll, error)  # type: ignore[assignment]
    (first, _), (second, _) = pipes
    called: list[int] = []
    try:
        loop.watch(first, 0, lambda _events: called.append(first))
        loop.watch(second, select.EPOLLIN, lambda _events: called.append(second))
        loop.modify(first, select.EPOLLIN)
        loop.unwatch(second)
        run_until(loop, lambda: full.tried > 4)
        assert called == []
        assert [str(each) for each in errors] == [f"cannot watch descriptor {first}: {os.strerror(error)}"]
        full.error = 0
        run_until(loop, lambda: called)
        loop.unwatch(first)
        turn(loop)
        assert set(called) == {first}
        assert len(errors) == 1
    finally:
        loop.close()


def test_an_exception_in_one_callback_does_not_keep_the_others(pipes: list[Pipe]) -> None:
    errors: list[BaseException] = []
    loop = Loop(on_error=errors.append)
    called: list[int] = []

    def fails(events: int) -> None:
        called.append(events)
        raise ValueError("mine")

    try:
        for read_end, _ in pipes:
            loop.watch(read_end, select.EPOLLIN, fails)
        turn(loop)
    finally:
        loop.close()
    assert len(called) == 2
    assert [str(error) for error in errors] == ["mine", "mine"]


def test_more_descriptors_than_one_wait_takes_are_all_served(loop: Loop) -> None:
    pipes = [os.pipe() for _ in range(2 * MAX_EVENTS + 1)]
    served: set[int] = set()
    try:
        for read_end, write_end in pipes:
            os.write(write_end, b"x")
            loop.watch(read_end, select.EPOLLIN, lambda _events, fd=read_end: served.add(fd))  # type: ignore[misc]
        # none reads: those that stay ready must not keep the others out
        turn(loop, 3)
        assert served == {read_end for read_end, _ in pipes}
    finally:
        for pipe in pipes:
            loop.unwatch(pipe[0])
            for fd in pipe:
                os.close(fd)


def test_exceptional_conditions_can_be_waited_for(loop: Loop) -> None:
    """As a cgroup's events are, which are always readable besides."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as peer:
        connection, _ = server.accept()
        with connection:
            events: list[int] = []
            peer.send(b"readable")
            wait_readable(connection.fileno())
            loop.watch(connection.fileno(), select.EPOLLPRI, events.append)
            turn(loop)
            assert events == []
            peer.send(b"!", socket.MSG_OOB)
            run_until(loop, lambda: events)
            assert set(events) == {select.EPOLLPRI}
            loop.unwatch(connection.fileno())
