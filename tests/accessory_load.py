"""Clients of the accessory that reconnect and try again, and check that what they were given stays what it is."""

from __future__ import annotations

import os
import random
import time
from threading import Event, Lock, Thread

from workers.accessory.client import Accessory, Namespaces, RequestError

MAPS = b"0 0 1\x000 0 1"
KINDS = ("ipc", "pid", "user")
PATIENCE = 30.0  # seconds that one request may take, with all its tries
SELDOM = 0.05  # the share of requests that are about a new name


class Load:
    """`clients` threads that ask for `names`, which are leased here, and seldom for a new one.

    `changed` are namespaces that were not what they had been, `refused` are connections, `failed`
    requests that were not answered in time or with an error; `retries` are tries that ended with the worker.
    """

    def __init__(self, address: str, names: int, clients: int) -> None:
        self.address = address
        self.changed: list[str] = []
        self.failed: list[str] = []
        self.refused = 0
        self.requests = 0
        self.retries = 0
        self._names = [f"kept-{number}" for number in range(names)]
        self._known: dict[tuple[str, str], int] = {}
        self._leases: list[Namespaces] = []
        self._lock = Lock()
        self._end = Event()
        self._threads = [Thread(target=self._run, args=(number,)) for number in range(clients)]

    def lease_all(self, every_pid: int = 10) -> None:
        """Lease all names, with an IPC namespace each, and with a PID and a user namespace every so many."""
        with Accessory(self.address) as client:
            for number, name in enumerate(self._names):
                more = number % every_pid == 0
                got = client.request(name, ipc=True, pid=more, user=MAPS if more else None, lease=True)
                self._check(name, got)
                self._leases.append(got)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop_clients(self) -> None:
        self._end.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def stop(self) -> None:
        """End it, and all leases."""
        self.stop_clients()
        for lease in self._leases:
            lease.close()

    def check_all(self) -> None:
        """Ask for everything that was ever given to anybody and is still leased."""
        for name, kind in list(self._known):
            if name in self._names:
                self.ask(name, kind)

    def ask(self, name: str, *kinds: str, lease: bool = False) -> Namespaces | None:
        """Ask until there is an answer, on a new connection each time."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                with Accessory(self.address) as client:
                    user = MAPS if "user" in kinds else None
                    got = client.request(name, ipc="ipc" in kinds, pid="pid" in kinds, user=user, lease=lease)
            except ConnectionRefusedError:
                self.refused += 1
            except (ConnectionResetError, BrokenPipeError):
                self.retries += 1
            except (RequestError, OSError) as error:
                self.failed.append(f"{name}: {error!r}")
                return None
            else:
                self.requests += 1
                self._check(name, got)
                return got
        self.failed.append(f"{name}: no answer in {PATIENCE:g} s")
        return None

    def _run(self, seed: int) -> None:
        dice = random.Random(seed)
        number = 0
        while not self._end.is_set():
            if dice.random() < SELDOM:
                number += 1
                self._once(f"new-{seed}-{number}")
            else:
                kinds = dice.sample(KINDS, dice.choice((1, 1, 2)))
                got = self.ask(dice.choice(self._names), *kinds, lease=dice.random() < 0.2)
                if got is not None:
                    got.close()

    def _once(self, name: str) -> None:
        """A new name, which has to stay what it is while it is leased."""
        held = self.ask(name, "ipc", "pid", lease=True)
        if held is None:
            return
        again = self.ask(name, "ipc", "pid", "user")
        if again is not None:
            again.close()
        held.close()

    def _check(self, name: str, got: Namespaces) -> None:
        with self._lock:
            for kind in KINDS:
                fd = getattr(got, kind)
                if fd >= 0:
                    inode = os.fstat(fd).st_ino
                    known = self._known.setdefault((name, kind), inode)
                    if known != inode:
                        self.changed.append(f"{kind} of {name}: {known} became {inode}")
