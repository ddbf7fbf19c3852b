"""A real spawnd with the accessory as it is shipped, on an address of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from tests.daemon import Daemon, wait_until
from workers.accessory.client import Accessory

SHIPPED = Path(__file__).parents[1] / "conf" / "services.d" / "accessory.lua"
_NUMBERS = count(1)


class AccessoryDaemon(Daemon):
    """spawnd with one service, `accessory`; clients connect to `address`.  `rights` are those of root."""

    def __init__(self, folder: Path, expiry: str = "60s", more: str = "", rights: str = "any") -> None:
        self.address = f"@accessory-{os.getpid()}-{next(_NUMBERS)}"
        text = SHIPPED.read_text()
        for old, new in (
            ("@cm4all-spawn", self.address),
            ('expiry = "60s"', f'expiry = "{expiry}"'),
            ('root = "any"', f'root = "{rights}"'),
        ):
            assert old in text
            text = text.replace(old, new)
        super().__init__(folder, text + more)

    def connect(self) -> Accessory:
        return Accessory(self.address)

    @property
    def worker(self) -> int:
        pid = self.pid_of("accessory")
        assert pid is not None
        return pid


@contextmanager
def accessory_daemon(
    folder: Path, expiry: str = "60s", more: str = "", rights: str = "any"
) -> Iterator[AccessoryDaemon]:
    """Yield a running accessory."""
    daemon = AccessoryDaemon(folder, expiry, more, rights)
    with daemon:
        wait_until(lambda: daemon.pid_of("accessory") is not None, "the accessory")
        daemon.wait_state("accessory", "running")
        yield daemon
