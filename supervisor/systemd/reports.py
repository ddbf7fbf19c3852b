"""Messages by `sd_notify(3)` to the systemd that started spawnd: reports, and descriptors to store.

Nothing is sent without a receiver. The loop feeds the watchdog, so that systemd detects a loop that hangs. The
status text is sent at most once per STATUS_INTERVAL, and only if it has changed, so an idle spawnd never wakes up.
A spawnd that executes itself anew passes on only `address` and `watchdog_usec`.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from supervisor.linux.open_files import identity
from supervisor.log.logger import log
from supervisor.loop.loop import Loop, Timer
from supervisor.notify.service_side import Sender

STATUS_INTERVAL = 1.0  # seconds
RETRY_AFTER = 0.1  # seconds; the queue fills up while systemd is busy, as during a boot
RETRIES = 300  # half a minute: longer than systemd is ever busy, shorter than it waits for READY
EXTENSION = 30  # seconds by which each message extends the time limit of a stop
EXTEND_EVERY = 10.0  # seconds

RETRY = 0.05  # seconds until a full queue of systemd is tried again
TRIES = 200  # in a row; after that, there is no receiver
BATCH = 64  # messages in a turn of the loop


class Systemd:
    """`describe()` returns the status text, one line. Owns its socket and its timers."""

    def __init__(self, loop: Loop, address: str = "", watchdog_usec: int = 0) -> None:
        self.address = address
        self.watchdog_usec = watchdog_usec
        self.describe: Callable[[], str] = str
        self._loop = loop
        self._sender = Sender(address)
        self._unsent: deque[tuple[str, ...]] = deque()
        self._failures = 0
        self._told = ""
        self._told_at = -STATUS_INTERVAL
        self._status_timer: Timer | None = None
        self._retry_timer: Timer | None = None
        self._extend_timer: Timer | None = None
        self._watchdog_timer: Timer | None = None
        if address and watchdog_usec:
            self._feed()

    @classmethod
    def from_environment(cls, loop: Loop) -> Systemd:
        """Read `$NOTIFY_SOCKET` and `$WATCHDOG_USEC` and remove them, so that no child reports in our name."""
        address = os.environ.pop("NOTIFY_SOCKET", "")
        usec = os.environ.pop("WATCHDOG_USEC", "")
        for_pid = os.environ.pop("WATCHDOG_PID", "")
        ours = for_pid in ("", str(os.getpid()))
        return cls(loop, address, int(usec) if ours and usec.isascii() and usec.isdigit() else 0)

    def environment(self) -> dict[str, str]:
        """Return the variables for the next program of this process."""
        found = {"NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": str(self.watchdog_usec or "")}
        return {name: value for name, value in found.items() if value}

    def ready(self) -> None:
        """Report that the control socket listens and definitions are in force, perhaps the old ones after a reload."""
        self._tell("READY=1", self._status())

    def reloading(self) -> None:
        """Report that the definitions are about to be read, or an exec is about to happen; `ready` has to follow."""
        usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._told = "Reloading the definitions"
        self._tell("RELOADING=1", f"MONOTONIC_USEC={usec}", f"STATUS={self._told}")
        if self.address and self.watchdog_usec:
            self._sender.send_nowait("WATCHDOG=1")  # the next feed may come late

    def stopping(self) -> None:
        """Report that the orderly shutdown has begun. Services determine its length, which systemd cannot know."""
        self._tell("STOPPING=1", self._status())
        self._extend()

    def changed(self) -> None:
        """Note that the status text may have changed."""
        if self.address and self._status_timer is None:
            when = max(self._loop.clock(), self._told_at + STATUS_INTERVAL)
            self._status_timer = self._loop.call_at(when, self._tell_status)

    def close(self) -> None:
        """Send no more reports."""
        for timer in (self._status_timer, self._retry_timer, self._extend_timer, self._watchdog_timer):
            if timer is not None:
                timer.cancel()
        self._unsent.clear()
        self._sender.close()
        self.address = ""

    def _status(self) -> str:
        self._told = self.describe()
        self._told_at = self._loop.clock()
        return f"STATUS={self._told}"

    def _tell_status(self) -> None:
        self._status_timer = None
        if self.describe() != self._told:
            self._tell(self._status())

    def _feed(self) -> None:
        """Feed the watchdog twice per period, and sooner after a full queue."""
        half = self.watchdog_usec / 2_000_000
        sent = self._sender.send_nowait("WATCHDOG=1")
        self._watchdog_timer = self._loop.call_later(half if sent else min(half, RETRY_AFTER), self._feed)

    def _extend(self) -> None:
        self._extend_timer = self._loop.call_later(EXTEND_EVERY, self._extend)
        self._tell(f"EXTEND_TIMEOUT_USEC={EXTENSION * 1_000_000}")

    def _tell(self, *lines: str) -> None:
        """Send these lines after all unsent ones."""
        if self.address:
            self._unsent.append(lines)
            if self._retry_timer is None:
                self._flush()

    def _flush(self) -> None:
        self._retry_timer = None
        while self._unsent:
            if self._sender.send_nowait(*self._unsent[0]):
                self._failures = 0
            elif self._failures < RETRIES:
                self._failures += 1
                self._retry_timer = self._loop.call_later(RETRY_AFTER, self._flush)
                return
            # without a receiver for so long, drop the message
            self._unsent.popleft()


class Clock(Protocol):
    def call_later(self, delay: float, callback: Callable[[], None], /) -> object: ...


class SystemdStore:
    """Copies of sockets in systemd's store, in case spawnd and the service die together.

    systemd passes them to the next spawnd according to sd_listen_fds(3). Their names are short numbers, because
    one environment string contains all of them; their identity tells what they are. Each message has one name and
    thus one descriptor. systemd's queue is short, so messages wait until it has room.

    The owners keep the descriptors. `names` are those that systemd has already, by identity.

    Without a receiver of `sender`, nothing is stored.
    """

    def __init__(self, loop: Clock, sender: Sender, names: Mapping[str, str]) -> None:
        self.names = dict(names)
        self._loop = loop
        self._sender = sender
        self._wanted: dict[str, dict[str, int]] = {}  # descriptors by identity, by owner
        self._next = 1 + max((int(name) for name in names.values() if name.isdecimal()), default=0)
        self._untold: dict[str, None] = {}  # identities with a change that systemd has to learn, in order
        self._tries = TRIES
        self._waits = False

    @property
    def is_used(self) -> bool:
        """Whether there is a systemd that keeps descriptors."""
        return self._sender.leads_somewhere

    def want(self, owner: str, sockets: Mapping[str, int]) -> None:
        """Set all sockets of `owner`, by identity."""
        before = self._wanted.get(owner, {})
        if self._sender.leads_somewhere and sockets != before:
            self._wanted[owner] = dict(sockets)
            self._untold |= dict.fromkeys([*before, *sockets])
            self._flush()

    def drop_unwanted(self) -> None:
        """Drop unwanted sockets, now that all owners have named theirs."""
        self._untold |= dict.fromkeys(self.names)
        self._flush()

    def _flush(self) -> None:
        if self._waits:
            return
        for _ in range(BATCH):
            if not self._untold:
                return
            name = next(iter(self._untold))
            if not self._tell(name):
                self._tries -= 1
                break
            del self._untold[name]
            self._tries = TRIES
        if self._tries == 0:
            log.warning("systemd does not answer: it keeps no sockets")
            self._untold.clear()
            self._tries = TRIES
        elif self._untold:
            self._waits = True
            self._loop.call_later(RETRY, self._again)

    def _again(self) -> None:
        self._waits = False
        self._flush()

    def _tell(self, name: str) -> bool:
        """Have systemd store a wanted socket, or drop an unwanted one; return False if its queue is full."""
        fd = next((sockets[name] for sockets in self._wanted.values() if name in sockets), None)
        number = self.names.get(name)
        if fd is not None and number is None and _is(fd, name):
            if not self._sender.send_nowait("FDSTORE=1", f"FDNAME={self._next}", "FDPOLL=0", fds=[fd]):
                return False
            self.names[name] = str(self._next)
            self._next += 1
        elif fd is None and number is not None:
            if not self._sender.send_nowait("FDSTOREREMOVE=1", f"FDNAME={number}"):
                return False
            del self.names[name]
        return True


def _is(fd: int, name: str) -> bool:
    """Whether the descriptor still is what it was: it may have been closed since."""
    try:
        return identity(fd) == name
    except OSError:
        return False
