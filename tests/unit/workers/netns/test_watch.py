"""What a worker hears of, and what it does not."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.unit.process.requirements import needs_ip, needs_root
from tests.unit.waiting import wait_until
from tests.unit.workers.netns.space import HOST, INNER, fresh, ip, options
from tests.unit.workers.netns.test_build import make
from workers.netns import name as names
from workers.netns.plan import read_plan
from workers.netns.scene import LOOPBACK, look
from workers.netns.watch import open_watch

pytestmark = [needs_root, needs_ip]


@pytest.fixture
def space() -> Iterator[tuple[str, socket.socket]]:
    """A namespace with a link, and the socket that watches it: the default route, and what belongs to its ends."""
    with fresh() as name, ExitStack() as stack:
        make(options(name))
        namespace = names.open_namespace(name)
        assert namespace is not None
        stack.callback(os.close, namespace)
        scene = look(read_plan(options(name)), namespace)
        assert scene.host is not None
        assert scene.inner is not None
        watch = open_watch(namespace, (scene.host.index, scene.inner.index, LOOPBACK), (0,))
        stack.callback(watch.close)
        yield name, watch


def hears(watch: socket.socket) -> bool:
    """Whether anything came, which is taken away."""
    found = False
    while True:
        try:
            found = bool(watch.recv(1 << 16)) or found
        except BlockingIOError:
            return found


@pytest.mark.parametrize(
    "command",
    [
        "link set @ down",
        "link del @",
        f"addr del {HOST}/24 dev @",
        "-n @ link set net0 down",
        "-n @ link set lo down",
        f"-n @ addr del {INNER}/24 dev net0",
        "-n @ route del default",
        f"-n @ route replace default via {INNER[:-1]}9",
        "link set @ mtu 1400",
    ],
)
def test_it_hears_what_becomes_of_its_own(space: tuple[str, socket.socket], command: str) -> None:
    name, watch = space
    ip(*command.replace("@", name).split())
    wait_until(lambda: hears(watch))


@pytest.mark.parametrize(
    "command",
    [
        "link add @x type veth peer name @y",
        "-n @ link add v1 type veth peer name v2",
        "-n @ route add 10.250.0.0/16 via 10.213.7.1",
        f"addr add {HOST[:-1]}77/24 dev @",
        f"-n @ addr add {INNER[:-1]}77/24 dev net0",
    ],
)
def test_it_is_not_woken_for_what_is_of_others_or_new(space: tuple[str, socket.socket], command: str) -> None:
    name, watch = space
    ip(*command.replace("@", name).split())
    # the kernel delivers in order: what comes after it has been heard, and nothing came before it
    heard_before = hears(watch)
    ip("-n", name, "link", "set", "lo", "down")
    wait_until(lambda: hears(watch))
    assert not heard_before
