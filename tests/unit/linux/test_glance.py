"""Looks at other processes by a child that somebody kills."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from threading import Thread

from supervisor.linux.glance import CONTENT, _ask
from tests.daemon import children, process_state
from tests.unit.process.forked import in_child
from tests.unit.waiting import wait_until

PATIENCE_MS = 60_000


def test_a_child_that_is_killed_is_replaced(tmp_path: Path) -> None:
    """Otherwise the processes that it has not looked at would count as hidden."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def waiting_child(but: int = 0) -> int:
        """Return the child that waits for a writer."""
        found: list[int] = []

        def look() -> bool:
            found[:] = [pid for pid in children(os.getpid()) if pid != but and process_state(pid) == "S"]
            return bool(found)

        wait_until(look)
        return found[0]

    def check() -> list[bytes | int]:
        def kill_and_answer() -> None:
            first = waiting_child()
            os.kill(first, signal.SIGKILL)
            waiting_child(but=first)
            fifo.write_text("text")

        thread = Thread(target=kill_and_answer)
        thread.start()
        answers = _ask([f"{CONTENT}/proc/self/comm", f"{CONTENT}{fifo}"], PATIENCE_MS)
        thread.join()
        return answers

    name, text = in_child(check)
    assert isinstance(name, bytes)
    assert text == b"text"
