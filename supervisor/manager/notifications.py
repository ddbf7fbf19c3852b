"""Messages of services on their notification sockets, and how far their senders are trusted."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from enum import Enum
from functools import partial
from math import inf
from typing import Protocol

from supervisor.lifecycle import machine
from supervisor.lifecycle.life import Transition
from supervisor.log.logger import notice
from supervisor.loop.loop import Loop
from supervisor.manager.unit import Unit
from supervisor.notify.receiver import MAX_AT_ONCE, Message, Notification, Want
from supervisor.notify.store import NAMES_MAX
from supervisor.printable import count
from supervisor.process.cgroup import cgroup_of, folder_of
from supervisor.process.pids import read_process
from supervisor.process.run import Role

IGNORED_EVERY = 60.0  # seconds between two log lines about ignored notifications of a service
SLICE = 0.002  # seconds per turn of the loop for the notifications of a service, of which at least one is taken
LAST_PATIENCE = 0.2  # seconds for the children that receive the descriptors in a process's last messages
LAST_POLL = 0.005  # seconds between two checks whether these children have finished
MAX_STATUS = 1024  # characters of a status text that are kept


class Listener(Protocol):
    def event(self, unit: Unit, event: Callable[..., Transition], *args: object) -> None:
        """Send an event of the unit to the state machine."""

    def touch(self, unit: Unit) -> None:
        """Note another change of the unit, which has to be written down."""

    def said_busy(self, unit: Unit, is_busy: bool) -> None:
        """Note that the service does, or does not, forbid to put it to sleep."""


class Trust(Enum):
    """How far a notification is believed. After its end, a sender is known by its user alone."""

    NONE = "it is not of this service"
    LITTLE = "its sender had ended, and says what only a living one may"
    FULL = ""


def take_notifications(unit: Unit, listener: Listener, limit: int, seconds: float = inf) -> int:
    """Read notifications that are there, at most `limit`, and act upon them. Every descriptor is stored or closed.

    Stop after the first notification once `seconds` have passed: a notification with descriptors takes a
    child, and that much time. Return the number of notifications.
    """
    if unit.receiver is None:
        return 0
    end = time.monotonic() + seconds
    taken = 0
    for notification in unit.receiver.receive_nowait(limit, partial(_wants, unit)):
        _act_upon(unit, notification, listener)
        taken += 1
        if time.monotonic() > end:
            break
    return taken


def _act_upon(unit: Unit, notification: Notification, listener: Listener) -> None:
    trust = Trust.NONE if notification.cut else _trust(unit, notification, _is_living_sender)
    notification.close_pidfd()
    message = None if trust is Trust.NONE else notification.message
    if message is None or (trust is Trust.LITTLE and message != message.harmless()):
        _ignored(unit, notification, notification.cut or trust.value)
        message = message and message.harmless()
    if message is None or not message.store:
        unit.store.refuse(notification.fds)  # they may have been received before it was known that they are unwanted
    if message is not None:
        _take(unit, notification, message, listener)


class LastWords:
    """The queue of a dead process, read over turns of the loop before its death is judged.

    Messages behind descriptors that are just being closed count as well. A slow close is waited for a moment;
    messages behind it are lost.
    """

    def __init__(self, loop: Loop, unit: Unit, listener: Listener) -> None:
        self._loop = loop
        self._unit = unit
        self._receiver = unit.receiver
        self._listener = listener
        self._left = MAX_AT_ONCE
        self._deadline = loop.clock() + LAST_PATIENCE
        self._heard: Callable[[], None] = lambda: None

    def hear(self) -> bool:
        """Read messages for the time of a turn; return whether reading is finished."""
        end = self._loop.clock() + SLICE
        while self._left > 0 and self._receiver is not None and self._unit.receiver is self._receiver:
            taken = take_notifications(self._unit, self._listener, self._left, SLICE)
            self._left -= taken
            now = self._loop.clock()
            if self._receiver.is_blocked:
                is_over = self._receiver.has_children and self._receiver.wait(max(0.0, end - now))
                if not is_over:
                    return now >= self._deadline
            elif not taken:
                return True
            if self._loop.clock() >= end:
                return False
        return True

    def hear_rest(self, heard: Callable[[], None]) -> None:
        """Read the remaining messages in later turns, then call back."""
        self._heard = heard
        self._plan()

    def _plan(self) -> None:
        if self._receiver is not None and self._receiver.is_blocked:
            self._loop.call_later(LAST_POLL, self._go_on)
        else:
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        is_all = True
        try:
            is_all = self.hear()
        finally:
            if is_all:
                self._heard()
            else:
                self._plan()


def _wants(unit: Unit, notification: Notification) -> Want:
    """Return which descriptors of a message to receive: those that are to be stored and fit in."""
    # The credentials of the sender come with the message itself, so this judgement is preliminary. The
    # message
    # is judged again once it is taken.
    if _trust(unit, notification, lambda _notification: True) is not Trust.FULL:
        return Want.NOTHING
    message, service = notification.message, unit.service
    if not message.store:
        return Want.NOTHING
    if unit.store.is_closing_too_many:
        return Want.LATER
    if not unit.store.has_room(message.name, service.fdstore_max, _names_max(unit), message.remove):
        return Want.NOTHING
    return Want.ALL if service.worker else Want.VETTED


def _ignored(unit: Unit, notification: Notification, why: str) -> None:
    """Log ignored notifications at intervals: an untrusted sender could fill the log."""
    unit.ignored += 1
    now = time.monotonic()
    if now >= unit.ignored_until:
        what = "1 notification" if unit.ignored == 1 else f"{unit.ignored} notifications"
        notice("%s: %s ignored, the last of pid %d: %s", unit.name, what, notification.pid, why)
        unit.ignored = 0
        unit.ignored_until = now + IGNORED_EVERY


def _trust(unit: Unit, notification: Notification, is_living: Callable[[Notification], bool]) -> Trust:
    """Judge the sender: the main process, or a helper of the same user or root in its session or its cgroup.

    A helper such as `systemd-notify` may have ended by now, and then only its user is known. `is_living` is
    asked last: only a sender that still lives had its pid to itself during the other checks.
    """
    run = unit.run
    if run is None or run.role is not Role.MAIN:
        return Trust.NONE
    if notification.pid == run.pid:
        return Trust.FULL
    if notification.uid not in (0, os.geteuid(), unit.service.uid):
        return Trust.NONE
    try:
        is_of_service = os.getsid(notification.pid) == run.pid
    except OSError:  # no such process
        return Trust.LITTLE
    if not is_of_service and unit.cgroup is not None:
        is_of_service = _is_in(notification.pid, unit.cgroup.path)
    if not is_living(notification):
        return Trust.LITTLE
    return Trust.FULL if is_of_service else Trust.NONE


def _is_living_sender(notification: Notification) -> bool:
    """Whether the process that has the sender's pid now is the sender."""
    if notification.sent < 0:
        return notification.holds_sender()
    process = read_process(notification.pid)
    return process is not None and 0 <= process.started <= notification.sent


def _is_in(pid: int, cgroup: str) -> bool:
    """Whether a process is in the cgroup with this folder, or below it."""
    folder = folder_of(cgroup_of(pid) or "")
    return folder is not None and f"{folder}/".startswith(f"{cgroup}/")


def _take(unit: Unit, notification: Notification, message: Message, listener: Listener) -> None:
    if message.status is not None and message.status[:MAX_STATUS] != unit.status_text:
        unit.status_text = message.status[:MAX_STATUS]
        listener.touch(unit)
    _take_descriptors(unit, notification, message)
    if message.busy is not None:
        listener.said_busy(unit, message.busy)
    if message.extend_usec is not None:
        listener.event(unit, machine.extended, message.extend_usec / 1_000_000)
    if message.reloading:
        listener.event(unit, machine.reloading)
    if message.ready:
        listener.event(unit, machine.ready)
    if message.watchdog:
        listener.event(unit, machine.alive)
    if message.watchdog_trigger:
        listener.event(unit, machine.watchdog_missed)


def _take_descriptors(unit: Unit, notification: Notification, message: Message) -> None:
    if message.remove:
        unit.store.remove(message.name)
    if not message.store or not notification.carries:
        return
    service = unit.service
    names_max = _names_max(unit)
    trusted = bool(service.worker)
    refused = unit.store.add(message.name, notification.fds, message.poll, service.fdstore_max, names_max, trusted)
    if refused or not notification.fds:
        limits = f"fdstore_max is {service.fdstore_max}"
        if names_max == NAMES_MAX:
            limits += f", names have {NAMES_MAX} bytes"
        which = count(refused, "descriptor") if refused else "the descriptors of a message"
        hint = "epolls and files that others serve (FUSE, NFS) are refused"
        notice("%s: %s not stored: %s; %s", unit.name, which, limits, hint)


def _names_max(unit: Unit) -> int:
    """Return the limit for the total length of names: a program receives them all in one string."""
    service = unit.service
    goes_on_in_python = service.worker and (service.uid == 0 or os.geteuid() != 0)
    return sys.maxsize if goes_on_in_python else NAMES_MAX
