"""`net` for start-up scripts, at the level of Python: in a network namespace of the test's own."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from supervisor.linux.namespaces import inside
from tests.unit.process.forked import in_child
from tests.unit.process.netns import network_namespace
from tests.unit.process.requirements import needs_ip, needs_root
from workers.lua.net import Net
from workers.network import stack  # noqa: F401 - pyroute2, once instead of in each child that needs it

pytestmark = [needs_root, needs_ip]


def inside_one(script: Callable[[Callable[..., Any]], Any]) -> Any:
    """Return the result of `script`, which gets a function that calls one of `net` in a fresh namespace with a pair."""

    def run(name: str) -> Any:
        fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
        with inside(fd):
            net = Net()
            assert net.functions["add"](b"a0", b"veth", b"a1", None, None) is True
            result = script(lambda function, *args: net.functions[function](*args))
            net.close()
            return result

    with network_namespace() as name:
        return in_child(lambda: run(name))


def test_links() -> None:
    assert inside_one(lambda net: sorted(net("links").rstrip(b"\0").split(b"\0"))) == [b"a0", b"a1", b"lo"]


def test_a_link_goes_up_and_down() -> None:
    def script(net: Callable[..., Any]) -> Any:
        states = [net("link", b"a0")[3]]
        for function in ("up", "down"):
            assert net(function, b"a0") is True
            states.append(net("link", b"a0")[3])
        return states

    assert inside_one(script) == [False, True, False]


def test_what_a_link_has() -> None:
    def script(net: Callable[..., Any]) -> Any:
        assert net("set", b"a0", 1400, b"02:00:00:00:00:01", b"of a script", b"b0") is True
        net("up", b"b0")
        net("up", b"a1")
        return net("link", b"b0")

    name, index, kind, up, carrier, mtu, mac, alias = inside_one(script)
    assert (name, kind, up, carrier, mtu) == ("b0", "veth", True, True, 1400)
    assert (mac, alias) == ("02:00:00:00:00:01", "of a script")
    assert index > 1


def test_addresses() -> None:
    def script(net: Callable[..., Any]) -> Any:
        for address in (b"192.0.2.2/24", b"192.0.2.9", b"fd01::2/64"):
            assert net("add_address", b"a0", address) is True
        assert net("delete_address", b"a0", b"192.0.2.9/32") is True
        return net("addresses", b"a0"), net("add_address", b"a0", b"192.0.2.2/24")

    listed, again = inside_one(script)
    assert listed == b"192.0.2.2/24\0fd01::2/64\0"
    assert again == (None, "cannot add address 192.0.2.2/24 to 'a0': File exists", errno.EEXIST)


def test_routes() -> None:
    def script(net: Callable[..., Any]) -> Any:
        for name in (b"a0", b"a1", b"lo"):
            net("up", name)
        net("add_address", b"a0", b"192.0.2.2/24")
        assert net("add_route", b"default", b"192.0.2.1", None, None, None, None, False) is True
        assert net("add_route", b"198.51.100.0/24", None, b"a0", 7, None, b"192.0.2.2", False) is True
        assert net("add_route", b"203.0.113.0/24", b"203.0.113.1", b"a0", None, 99, None, True) is True
        main, other = net("routes", 254), net("routes", 99)
        assert net("delete_route", b"default", b"192.0.2.1", None, None, None) is True
        return main, other, net("routes", 254), net("delete_route", b"default", None, b"a0", None, None)

    main, other, after, again = inside_one(script)
    assert b"0.0.0.0/0\t192.0.2.1\ta0\t0" in main.split(b"\0")
    assert b"198.51.100.0/24\t\ta0\t7" in main.split(b"\0")
    assert other == b"203.0.113.0/24\t203.0.113.1\ta0\t0\0"
    assert b"192.0.2.1" not in after
    assert again == (None, "cannot delete route 0.0.0.0/0: No such process", errno.ESRCH)


@pytest.mark.parametrize("network", ["198.51.100.0/24", "2001:db8:1::/64"])
@pytest.mark.parametrize("way", ["via {}", "dev a0 metric 9", "dev a0 proto boot"])
def test_a_route_is_deleted_whoever_has_made_it(network: str, way: str) -> None:
    version, gateway = ("-6", "2001:db8::1") if ":" in network else ("-4", "192.0.2.1")

    def script(net: Callable[..., Any]) -> Any:
        for address in (b"192.0.2.2/24", b"2001:db8::2/64"):
            net("add_address", b"a0", address)
        for name in (b"a0", b"a1"):
            net("up", name)
        subprocess.run(["ip", version, "route", "add", network, *way.format(gateway).split()], check=True)
        return net("delete_route", network.encode(), None, None, None, None), net("routes", 254)

    done, routes = inside_one(script)
    assert done is True
    assert network.encode() not in routes


def test_links_come_and_go() -> None:
    def script(net: Callable[..., Any]) -> Any:
        return net("delete", b"a0"), net("links"), net("link", b"a1"), net("add", b"c", b"nonsense", None, None, None)

    deleted, links, gone, unknown = inside_one(script)
    assert (deleted, links) == (True, b"lo\0")
    assert gone == (None, "cannot find link 'a1': No such device", errno.ENODEV)
    assert unknown[:2] == (None, "cannot make link 'c': Operation not supported")


@pytest.mark.parametrize(
    ("function", "args", "message"),
    [
        ("up", [b"nowhere"], "cannot find link 'nowhere': No such device"),
        ("add_address", [b"a0", b"192.0.2"], "cannot use '192.0.2': it is not an address"),
        ("add_address", [b"a0", b"192.0.2.1/33"], "cannot use '192.0.2.1/33': the prefix goes from 0 to 32"),
        ("add_route", [b"default", b"fd77::1", None, None, None, None, False], "cannot add route ::/0 via fd77::1"),
        ("add_route", [b"default", None, None, None, None, None, False], "neither a gateway nor an interface"),
        ("set", [b"a0", 1, None, None, None], "cannot set mtu 1 of link 'a0'"),
        *[
            ("set", [b"a0", None, mac, None, None], f"cannot use {mac.decode()!r}: it is not a hardware address")
            for mac in (b"xx", b"02:00", b"02:00:00:00:00:zz", b"02:00:00:00:00:01:02", b"02:00:00:00:00:+1", b"")
        ],
        ("link", [b"\xff"], "cannot use b'\\xff': it is not UTF-8"),
        (
            "add_route", [b"10.0.0.0/8", b"fd00::1", None, None, None, None, False],
            "cannot use gateway fd00::1 for 10.0.0.0/8: it is not an IPv4 address",
        ),
        (
            "add_route", [b"fd00::/8", b"10.0.0.1", None, None, None, None, False],
            "cannot use gateway 10.0.0.1 for fd00::/8: it is not an IPv6 address",
        ),
        (
            "add_route", [b"10.0.0.0/8", None, b"a0", None, None, b"fd00::1", False],
            "cannot use source fd00::1 for 10.0.0.0/8: it is not an IPv4 address",
        ),
        (
            "delete_route", [b"10.0.0.0/8", b"fd00::1", None, None, None],
            "cannot use gateway fd00::1 for 10.0.0.0/8: it is not an IPv4 address",
        ),
    ],
)
def test_what_is_refused(function: str, args: list[Any], message: str) -> None:
    nothing, text, number = inside_one(lambda net: net(function, *args))
    assert nothing is None
    assert number > 0
    assert message in text
