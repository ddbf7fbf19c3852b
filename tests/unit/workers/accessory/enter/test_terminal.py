from __future__ import annotations

import os
import termios
from collections.abc import Iterator

import pytest

from tests.unit.waiting import wait_readable
from workers.accessory.enter.terminal import Terminal


@pytest.fixture
def pair() -> Iterator[tuple[int, int]]:
    """Master and slave of a terminal that is nobody's."""
    master, slave = os.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


@pytest.fixture
def callers(pair: tuple[int, int]) -> int:
    return pair[1]


@pytest.fixture
def terminal(callers: int) -> Iterator[Terminal]:
    terminal = Terminal([callers])
    yield terminal
    terminal.close_theirs()
    for fd in (terminal.master, terminal.output, terminal.begun):
        os.close(fd)


def test_modes_are_restored_once(callers: int, terminal: Terminal) -> None:
    before = termios.tcgetattr(callers)
    terminal.restore()
    terminal.make_raw()
    terminal.make_raw()
    assert not termios.tcgetattr(callers)[3] & termios.ICANON
    terminal.restore()
    assert termios.tcgetattr(callers) == before
    other = [*before]
    other[3] &= ~termios.ECHO
    termios.tcsetattr(callers, termios.TCSANOW, other)
    terminal.restore()
    assert termios.tcgetattr(callers) == other


def test_modes_that_somebody_set_meanwhile_are_those_to_restore(callers: int, terminal: Terminal) -> None:
    terminal.make_raw()
    other = termios.tcgetattr(callers)
    other[3] |= termios.ICANON
    termios.tcsetattr(callers, termios.TCSANOW, other)
    other = termios.tcgetattr(callers)
    terminal.make_raw()
    terminal.restore()
    assert termios.tcgetattr(callers) == other


def test_what_was_typed_ahead_is_kept(pair: tuple[int, int], terminal: Terminal) -> None:
    master, callers = pair
    terminal.make_raw()
    os.write(master, b"typed ahead\n")
    wait_readable(callers)
    terminal.restore()
    assert os.read(callers, 100) == b"typed ahead\n"


def test_a_terminal_that_has_hung_up_is_gone() -> None:
    master, slave = os.openpty()
    terminal = Terminal([slave])
    assert (terminal.is_gone(), terminal.is_ours()) == (False, True)
    os.close(master)
    assert (terminal.is_gone(), terminal.is_ours()) == (True, False)
    terminal.make_raw()
    terminal.restore()
    terminal.close_theirs()
    for fd in (terminal.master, terminal.output, terminal.begun, slave):
        os.close(fd)


def test_where_only_the_output_is_a_terminal_it_is_not_processed_twice(callers: int, terminal: Terminal) -> None:
    assert not terminal.has_input
    assert not termios.tcgetattr(terminal.slave)[1] & termios.OPOST
    assert termios.tcgetattr(terminal.slave)[3] == termios.tcgetattr(callers)[3]
