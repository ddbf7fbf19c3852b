"""A call on a pipe whose child is killed before it has read anything, as the kernel may do where memory is short."""

from __future__ import annotations

import os
import signal

from supervisor.linux.pipe_call import PipeCall, start_read


def killed_call() -> PipeCall:
    """A child waits for data that never come, and is killed."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        call = start_read(read_end, patience=0)
        os.kill(call.pid, signal.SIGKILL)
        while not call.has_ended(100):
            pass
    finally:
        os.close(read_end)
        os.close(write_end)
    assert call.was_killed
    return call
