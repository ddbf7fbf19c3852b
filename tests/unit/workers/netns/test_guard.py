"""A program, and what it leaves: in a process that adopts it."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from tests.unit.process.forked import in_child
from workers.netns.script import Guard

# three processes of their own sessions, without environment: two of them a chain, and all deaf to TERM
LEAVES = """trap '' TERM
for _ in 1 2; do
    env -i setsid sh -c 'env -i setsid sleep 1000 & echo $! $$ >> "$0"; exec sleep 1000' "$1" &
done
until [ "$(wc -l < "$1")" = 2 ]; do sleep 0.01; done
exit 7
"""


def program(*arguments: str) -> Callable[[], NoReturn]:
    def become() -> NoReturn:
        os.execv(arguments[0], arguments)  # noqa: S606

    return become


def test_all_that_it_has_left_is_ended(tmp_path: Path) -> None:
    def check() -> tuple[int | None, int, list[bool]]:
        (tmp_path / "left").touch()
        guard = Guard(program("/bin/sh", "-c", LEAVES, "sh", str(tmp_path / "left")))
        status = guard.wait(60.0)
        pids = (tmp_path / "left").read_text().split()
        ended = guard.end_left()
        return status, ended, [os.path.exists(f"/proc/{pid}") for pid in pids]

    assert in_child(check) == (7, 4, [False] * 4)


def test_one_that_takes_too_long_is_killed() -> None:
    def check() -> tuple[int | None, bool]:
        guard = Guard(program("/bin/sleep", "1000"))
        begun = time.monotonic()
        return guard.wait(0.1), time.monotonic() - begun >= 0.1

    assert in_child(check) == (None, True)


def test_how_it_has_ended() -> None:
    def check() -> list[int | None]:
        texts = ("exit 0", "exit 3", "kill -TERM $$")
        return [Guard(program("/bin/sh", "-c", text)).wait(60.0) for text in texts]

    assert in_child(check) == [0, 3, -signal.SIGTERM]


def test_one_that_cannot_be_executed() -> None:
    def check() -> int | None:
        with pytest.raises(OSError, match="No such file") as error:
            Guard(program("/nowhere"))
        return error.value.errno

    assert in_child(check) == errno.ENOENT
