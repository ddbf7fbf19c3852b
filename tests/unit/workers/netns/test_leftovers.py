"""The owners of the processes in a network namespace."""

from __future__ import annotations

import os
import signal
import time

import pytest

from supervisor.process import marks
from tests import fuse
from tests.hung import executing
from tests.unit.waiting import HELD_UP, child_process
from workers.netns import remove as leftovers


def test_the_mark_of_services_has_one_name() -> None:
    assert leftovers.SERVICE_MARK == marks.SERVICE_MARK


@pytest.mark.skipif(not fuse.is_possible(), reason="needs FUSE")
def test_a_process_that_does_not_show_where_it_is_holds_up_nobody() -> None:
    status = os.stat("/proc/self/ns/net")
    with executing() as (pid, *_), child_process(signal.pause) as other:
        before = time.monotonic()
        found = leftovers._find((status.st_dev, status.st_ino), lambda pid: True)
        assert other in found
        assert pid not in found
        assert not leftovers._is_left_in(pid, (status.st_dev, status.st_ino), "name", [os.getpid()])
        assert time.monotonic() - before < HELD_UP
