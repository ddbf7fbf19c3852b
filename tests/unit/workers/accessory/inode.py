"""Which namespace a descriptor is of."""

from __future__ import annotations

import os

from workers.accessory.client import Accessory, Namespaces

MAPS = b"0 0 1\x000 0 1"


def inodes(found: Namespaces) -> tuple[int, ...]:
    """Inodes of IPC, PID and user namespace, 0 where there is none; closes them."""
    with found:
        return tuple(os.fstat(fd).st_ino if fd >= 0 else 0 for fd in (found.ipc, found.pid, found.user))


def ask(client: Accessory, name: str) -> tuple[int, ...]:
    """The inodes of all three namespaces of a name."""
    return inodes(client.request(name, ipc=True, pid=True, user=MAPS))
