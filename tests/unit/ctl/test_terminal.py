from __future__ import annotations

import fcntl
import io
import os
import struct
import sys
import termios
from collections.abc import Iterator
from typing import TextIO

import pytest

from supervisor.ctl.output import standard_output


@pytest.fixture
def tty(monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    """A terminal of 90 columns, for standard output."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 90, 0, 0))
    for name in ("COLUMNS", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with open(theirs, "w") as file:
        yield file
    os.close(ours)


def test_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setenv("COLUMNS", "40")
    terminal = standard_output()
    assert (terminal.width, terminal.colours) == (None, False)
    assert terminal.state("failed", "x") == "x"


def test_a_terminal(tty: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", tty)
    terminal = standard_output()
    assert (terminal.width, terminal.colours) == (90, True)
    assert terminal.state("failed", "x") == "\x1b[31mx\x1b[0m"
    assert terminal.state("stopped", "x") == "x"


def test_what_the_environment_says(tty: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", tty)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    assert (standard_output().width, standard_output().colours) == (40, False)
    monkeypatch.setenv("COLUMNS", "many")
    monkeypatch.setenv("NO_COLOR", "")
    assert (standard_output().width, standard_output().colours) == (90, True)
    monkeypatch.setenv("TERM", "dumb")
    assert not standard_output().colours
