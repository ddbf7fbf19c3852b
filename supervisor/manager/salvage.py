"""What one unit had, got back after a loss: from its process, from the log worker, from systemd's store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from supervisor.log.ring import make_ring
from supervisor.process.run import Run
from supervisor.process.survivor import Holder
from supervisor.process.table import STDIO


class Salvage:
    """The `Source` of a unit whose process is `run`, None where that has ended.

    `readers` hold something of every service's output, `pool` are descriptors of anybody by
    identity; what is wanted is taken out of it.
    """

    def __init__(self, run: Run | None, readers: Sequence[Holder], pool: dict[str, int]) -> None:
        self._run = run
        self._own = [Holder(run)] if run is not None else []
        self._readers = readers
        self._pool = pool

    def run(self) -> Run | None:
        return self._run

    def descriptor(self, kept: Sequence[Any], slot: str = "") -> int | None:
        likely = STDIO.index(slot) if slot in STDIO else int(slot or -1)
        return self._find(kept[1], self._own, likely)

    def streams(self, kept: Sequence[Sequence[Any]]) -> list[int]:
        """The service has the writing end, the log worker the others; the journal's are made anew.

        One end of a pipe leads to the other.  A ring that nobody has any more is begun anew: a
        service that writes to what nobody reads would be killed.
        """
        if len(kept) != 3:
            return []
        fds: list[int | None] = [self._find(name, [*self._own, *self._readers]) for _, name in kept]
        reading_end, writing_end, ring = fds
        with suppress(OSError):
            if reading_end is None and writing_end is not None:
                fds[0] = _other_end(writing_end, os.O_RDONLY)
            elif writing_end is None and reading_end is not None:
                fds[1] = _other_end(reading_end, os.O_WRONLY)
            if ring is None:
                fds[2] = make_ring("again")
        found = [fd for fd in fds if fd is not None]
        if len(found) == len(kept):
            return found
        for fd in found:
            os.close(fd)
        return []

    def _find(self, name: str, holders: Sequence[Holder], likely: int = -1) -> int | None:
        if not name:
            return None
        for holder in holders:
            fd = holder.duplicate(name, likely)
            if fd is not None:
                return fd
        return self._pool.pop(name, None)


def _other_end(fd: int, access: int) -> int:
    """A new descriptor, in blocking mode, for the other end of a pipe.  Raises OSError."""
    other = os.open(f"/proc/self/fd/{fd}", access | os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(other, True)
    return other
