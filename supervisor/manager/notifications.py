"""What services say on their notification sockets, and who is believed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Protocol

from supervisor.lifecycle import machine
from supervisor.lifecycle.life import Transition
from supervisor.log.logger import log, notice
from supervisor.manager.unit import Unit
from supervisor.notify.protocol import Message
from supervisor.notify.receiver import Notification
from supervisor.notify.store import NAMES_MAX
from supervisor.process.run import Role

IGNORED_EVERY = 60.0  # seconds between two lines of log about a service's notifications
MAX_STATUS = 1024  # characters of a status text that are kept


class Listener(Protocol):
    def event(self, unit: Unit, event: Callable[..., Transition], *args: object) -> None:
        """Have the state machine take an event of the unit."""

    def touch(self, unit: Unit) -> None:
        """Something else about the unit has changed: to be written down."""


def take_notifications(unit: Unit, listener: Listener, limit: int) -> None:
    """Read and act upon notifications that are there, at most `limit`.  Every descriptor is stored or closed."""
    if unit.receiver is None:
        return
    for notification in unit.receiver.receive_nowait(limit):
        if _is_believed(unit, notification):
            _take(unit, notification, listener)
        else:
            _ignore(unit, notification)


def _ignore(unit: Unit, notification: Notification) -> None:
    """Say so once in a while: who is not believed could fill the log."""
    notification.close()
    unit.ignored += 1
    now = time.monotonic()
    if now >= unit.ignored_until:
        text = "%s: %d notifications ignored, the last of pid %d: not of this service"
        log.info(text, unit.name, unit.ignored, notification.pid)
        unit.ignored = 0
        unit.ignored_until = now + IGNORED_EVERY


def _is_believed(unit: Unit, notification: Notification) -> bool:
    """The main process is, and one of its session of the same user or root: a helper such as `systemd-notify`."""
    run = unit.run
    if run is None or run.role is not Role.MAIN:
        return False
    if notification.pid == run.pid:
        return True
    if notification.uid not in (0, os.geteuid(), unit.service.uid):
        return False
    try:
        return os.getsid(notification.pid) == run.pid
    except ProcessLookupError:
        return False


def _take(unit: Unit, notification: Notification, listener: Listener) -> None:
    message = notification.message
    if message.status is not None and message.status[:MAX_STATUS] != unit.status_text:
        unit.status_text = message.status[:MAX_STATUS]
        listener.touch(unit)
    _take_descriptors(unit, notification, message)
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
    if not message.store:
        # a barrier's descriptor among them: its close is what the sender waits for
        notification.close()
        return
    service = unit.service
    goes_on_in_python = service.worker and (service.uid == 0 or os.geteuid() != 0)
    # what is executed has to take all names in one string
    names_max = sys.maxsize if goes_on_in_python else NAMES_MAX
    refused = unit.store.add(message.name, notification.fds, message.poll, service.fdstore_max, names_max)
    if refused:
        limits = f"fdstore_max is {service.fdstore_max}"
        if not goes_on_in_python:
            limits += f", names have {NAMES_MAX} bytes"
        notice("%s: %d descriptors not stored: %s", unit.name, refused, limits)
