"""Going into a network namespace and coming back, for a process with a single thread."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from supervisor.linux.namespaces import CLONE_NEWNET, setns


@contextmanager
def inside(fd: int) -> Iterator[None]:
    """Be in the network namespace of the descriptor `fd`: what is opened there stays there.  Raises OSError."""
    here = own_namespace()
    try:
        setns(fd, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(here, CLONE_NEWNET)
    finally:
        os.close(here)


def own_namespace() -> int:
    """A descriptor of the network namespace that the calling thread is in; it is the caller's."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
