"""Exit statuses of spawnctl."""

from __future__ import annotations

DONE = 0
FAILED = 1
USAGE = 2
NOT_RUNNING = 3
NO_SUCH_SERVICE = 4
NOT_PERMITTED = 5
NO_SUPERVISOR = 6
TIMED_OUT = 7
INTERRUPTED = 130  # 128 + SIGINT, as the shell has it
BROKEN_PIPE = 141  # 128 + SIGPIPE
