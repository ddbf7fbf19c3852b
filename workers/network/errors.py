"""Errors of changes to the network."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from supervisor.errors import SpawnError

GONE = frozenset({errno.ENODEV, errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENOENT})


class NetworkError(SpawnError):
    """`cannot DO: CAUSE`; `errno` is the kernel's, 0 where it is not the kernel that refuses."""

    def __init__(self, what: str, cause: str, errno: int = 0) -> None:
        super().__init__(f"cannot {what}: {cause}")
        self.errno = errno


@contextmanager
def already_gone() -> Iterator[None]:
    """Ignore an error for an object that is gone already: removing it is all that was wanted."""
    try:
        yield
    except NetworkError as error:
        if error.errno not in GONE:
            raise
