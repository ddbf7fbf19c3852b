"""Changes that a worker notices, and those that it does not."""

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
from workers.netns import files as names
from workers.netns.observed import LOOPBACK, observe
from workers.netns.plan import read_plan
from workers.netns.work import MOST_EXACT, open_watch, watch_program

pytestmark = [needs_root, needs_ip]
NETWORK = f"{INNER[:-1]}0"


@pytest.fixture
def space() -> Iterator[tuple[str, socket.socket]]:
    """A namespace with a link, and the socket that watches it: the default route, and what belongs to its ends."""
    with fresh() as name, ExitStack() as stack:
        make(options(name, addresses=[f"{INNER}/24", "fd13::2/64"]))
        namespace = names.open_namespace(name)
        assert namespace is not None
        stack.callback(os.close, namespace)
        scene = observe(read_plan(options(name)), namespace)
        assert scene.host is not None
        assert scene.inner is not None
        links = (scene.host.index, scene.inner.index, LOOPBACK)
        watch = open_watch(namespace, links, ("0.0.0.0/0", f"{NETWORK}/24", f"{INNER}/32", "fd13::/64", f"{HOST}/32"))
        stack.callback(watch.close)
        for command in (
            "-n @ route add 10.214.0.0/24 dev net0",
            "-n @ -6 route add fd15::/64 dev net0",
            "route add 10.215.0.0/24 dev @",
        ):
            ip(*command.replace("@", name).split())
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
        f"-n @ route del {NETWORK}/24 dev net0",
        f"-n @ route del local {INNER} dev net0 table local",
        "-n @ -6 route del fd13::/64 dev net0",
        f"route del {NETWORK}/24 dev @",
        f"route del local {HOST} dev @ table local",
        f"-n @ route replace {NETWORK}/24 via {HOST} dev net0 onlink",
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
        "-n @ route del 10.214.0.0/24 dev net0",
        "-n @ -6 route del fd15::/64 dev net0",
        "route del 10.215.0.0/24 dev @",
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


def test_a_filter_of_a_thousand_networks() -> None:
    """Their prefixes are compared then: the kernel takes no longer watch_program."""
    networks = [(24, number) for number in range(1000)]
    attached = watch_program([1], networks)
    assert len(attached) < 100 * 8
    assert len(watch_program([1], networks[:MOST_EXACT])) < 4096 * 8
