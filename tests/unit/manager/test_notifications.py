"""What is stored for whom."""

from __future__ import annotations

import os
import socket
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.definitions.service import Service
from supervisor.lifecycle.life import Transition
from supervisor.loop.loop import Loop
from supervisor.manager.notifications import take_notifications
from supervisor.manager.unit import Unit
from supervisor.notify.protocol import MAX_DESCRIPTORS
from supervisor.notify.receiver import Receiver
from supervisor.notify.store import NAMES_MAX
from supervisor.process.run import Run

NAME = "n" * 255
TOO_MANY = NAMES_MAX // (len(NAME) + 1) + 1


class Silent:
    def event(self, unit: Unit, event: Callable[..., Transition], *args: object) -> None:
        pass

    def touch(self, unit: Unit) -> None:
        pass


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    receiver = Receiver.bind(str(tmp_path / "socket"), os.geteuid())
    yield receiver
    receiver.close()


def stored_of(service: Service, loop: Loop, receiver: Receiver) -> int:
    """How many descriptors are stored of one more than there are names for in an environment."""
    unit = Unit(service, loop)
    unit.receiver, unit.run = receiver, Run(os.getpid())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(receiver.path)
        left = TOO_MANY
        while left:
            fds = [os.memfd_create("x") for _ in range(min(left, MAX_DESCRIPTORS))]
            left -= len(fds)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))]
            sock.sendmsg([f"FDSTORE=1\nFDPOLL=0\nFDNAME={NAME}".encode()], rights)
            for fd in fds:
                os.close(fd)
            take_notifications(unit, Silent(), 10)
    number = len(unit.store)
    unit.store.clear()
    return number


def test_what_is_executed_can_have_as_many_as_it_can_be_told_the_names_of(loop: Loop, receiver: Receiver) -> None:
    uid = os.geteuid()
    assert stored_of(Service("s", exec="/bin/s", uid=uid, fdstore_max=9999), loop, receiver) == TOO_MANY - 1


def test_a_worker_that_is_forked_is_told_all_names(loop: Loop, receiver: Receiver) -> None:
    assert stored_of(Service("w", worker="w", uid=os.geteuid(), fdstore_max=9999), loop, receiver) == TOO_MANY
