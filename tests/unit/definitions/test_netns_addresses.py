"""Addresses of network namespaces that overlap each other's, or the host's own."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest

from supervisor.definitions.netns import overlaps
from supervisor.definitions.netns.overlaps import addresses_of_host
from supervisor.linux.namespaces import inside
from tests.unit.definitions.loading import Files
from tests.unit.process.forked import in_child
from tests.unit.process.netns import network_namespace
from tests.unit.process.requirements import needs_ip, needs_root
from tests.unit.workers.netns.space import ip
from workers.netns.files import open_namespace

OWN = [("192.0.2.7/24", "eth0"), ("198.51.100.1/32", "eth1"), ("2001:db8::7/64", "eth0"), ("10.1.0.1/16", "a")]


@pytest.fixture(autouse=True)
def _host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with these addresses, of which the last one is that of the link of netns.a."""
    monkeypatch.setattr(overlaps, "addresses_of_host", lambda: [(ip_interface(a), name) for a, name in OWN])


@pytest.mark.parametrize(
    ("first", "second", "is_told"),
    [
        ("10.1.0.1/24", "10.1.0.1/24", True),
        ("10.1.0.1/24", "10.1.0.2/24", True),
        ("10.1.0.1/16", "10.1.7.1/24", True),
        ("10.1.7.1/24", "10.1.0.1/16", True),
        ("10.1.0.1/24", "10.1.1.1/24", False),
        ("fd01::1/64", "fd01::2/64", True),
        ("fd01::1/64", "10.1.0.1/24", False),
        ("10.1.0.1/32", "10.1.0.1/32", False),
        ("10.1.0.1/24", "10.1.0.1/32", False),
    ],
)
def test_two_namespaces(files: Files, first: str, second: str, is_told: bool) -> None:
    text = f'netns.a = {{ host_addresses = "{first}" }}\n\nnetns.b = {{\n  host_addresses = "{second}",\n}}\n'
    found = files.load(text).notices
    assert len(found) == is_told
    if is_told:
        (notice,) = found
        assert f"a.lua:4: netns@b: host_addresses[1]: {second} overlaps {first} of netns@a at " in notice
        assert notice.endswith("a.lua:1: the host reaches one of the two alone")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ('host_addresses = "192.0.2.1/25"', "192.0.2.1/25 overlaps 192.0.2.7/24, which the host has on eth0"),
        ('host_addresses = "2001:db8::1/64"', "2001:db8::1/64 overlaps 2001:db8::7/64, which the host has on eth0"),
        ('host_addresses = "192.0.2.7/32"', None),
        ('host_addresses = "198.51.100.2/24"', None),
        ('host_addresses = "203.0.113.1/24"', None),
        ('addresses = "192.0.2.7/24"', "192.0.2.7 is an address of the host already, on eth0: clients reach the host"),
        ('addresses = "198.51.100.1/32"', "198.51.100.1 is an address of the host already, on eth1"),
        ('addresses = "192.0.2.8/24"', None),
    ],
)
def test_what_the_host_has(files: Files, keys: str, told: str | None) -> None:
    found = files.load(f"netns.a = {{ {keys} }}").notices
    assert len(found) == (told is not None)
    assert told is None or told in found[0]


def test_the_link_of_a_namespace_that_runs_is_no_other(files: Files) -> None:
    assert files.load('netns.a = { host_addresses = "10.1.0.1/16" }').notices == ()
    assert len(files.load('netns.b = { host_addresses = "10.1.0.1/16" }').notices) == 1


@pytest.mark.parametrize(
    ("setting", "is_refused"),
    [
        ('["net.ipv6.conf.all.disable_ipv6"] = 1', True),
        ('["net.ipv6.conf.net0.disable_ipv6"] = true', True),
        ('["net.ipv6.conf.all.disable_ipv6"] = 1, ["net.ipv6.conf.net0.disable_ipv6"] = 0', False),
        ('["net.ipv6.conf.all.disable_ipv6"] = 0', False),
        ('["net.ipv6.conf.lo.disable_ipv6"] = 1', False),
    ],
)
def test_an_ipv6_address_where_ipv6_is_off(files: Files, setting: str, is_refused: bool) -> None:
    text = f'netns.a = {{ addresses = {{ "10.2.0.2/24", "fd02::2/64" }}, sysctl = {{ {setting} }} }}'
    if not is_refused:
        assert files.load(text).notices == ()
        return
    (problem,) = files.problems(text)
    assert "addresses[2]: fd02::2/64 cannot be set with sysctl net.ipv6.conf." in problem


@needs_root
@needs_ip
def test_the_addresses_of_a_host() -> None:
    with network_namespace() as name:
        ip("-n", name, "link", "add", "d0", "type", "veth", "peer", "d1")
        ip("-n", name, "link", "set", "d0", "up")
        for address in ("10.3.0.1/24", "fd03::1/64"):
            ip("-n", name, "addr", "add", address, "dev", "d0")

        def look() -> list[tuple[str, str]]:
            namespace = open_namespace(name)
            assert namespace is not None
            with inside(namespace):
                return [(str(address), interface) for address, interface in addresses_of_host()]

        assert in_child(look) == [("10.3.0.1/24", "d0"), ("fd03::1/64", "d0")]
