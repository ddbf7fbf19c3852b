"""The view of a network namespace, in one of the test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from supervisor.linux.namespaces import inside
from tests.unit.process.netns import network_namespace
from tests.unit.process.requirements import needs_ip, needs_root
from tests.unit.workers.netns.space import ip
from workers.lua.net import destination, plain_address, with_prefix
from workers.network.view import NetworkError, Route, View


@pytest.fixture(scope="module")
def view() -> Iterator[View]:
    """Of a namespace with a pair, addresses and routes; it can be used from outside."""
    with network_namespace() as name:
        for words in (
            "link add a0 type veth peer name a1",
            "link property add dev a0 altname quite-a-long-other-name",
            "link set a0 up",
            "addr add 192.0.2.2/24 dev a0",
            "addr add fd01::2/64 dev a0 nodad",
            "route add default via 192.0.2.1",
            "route add 198.51.100.0/24 dev a0 table 1000 metric 7",
            "-6 route add fd02::/64 via fd01::1",
        ):
            ip("-n", name, *words.split())
        fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
        with inside(fd):
            found = View()
        os.close(fd)
        with found:
            yield found


@needs_root
@needs_ip
def test_links(view: View) -> None:
    one, other = view.link("a0"), view.link("a1")
    assert one is not None
    assert other is not None
    assert (one.kind, one.is_up, other.is_up, one.has_carrier) == ("veth", True, False, False)
    assert (one.peer, other.peer, one.peer_nsid) == (other.index, one.index, None)
    assert view.link("quite-a-long-other-name") == one == view.link(index=one.index)
    assert one.others == {"quite-a-long-other-name"}
    assert {link.name for link in view.links()} == {"lo", "a0", "a1"}


@needs_root
@needs_ip
@pytest.mark.parametrize("name", ["nowhere", "a-name-that-is-longer-than-any-interface-has"])
def test_what_is_not_there(view: View, name: str) -> None:
    assert view.link(name) is None
    assert view.link(index=99999) is None


@needs_root
@needs_ip
def test_addresses_and_routes(view: View) -> None:
    link = view.link("a0")
    assert link is not None
    assert {"192.0.2.2/24", "fd01::2/64"} <= set(view.addresses(link.index))
    assert {
        Route("0.0.0.0/0", "192.0.2.1", link.index, 0, 254),
        Route("198.51.100.0/24", "", link.index, 7, 1000),
        Route("fd02::/64", "fd01::1", link.index, 1024, 254),
    } <= set(view.routes())


@pytest.mark.parametrize(
    ("text", "plain"),
    [("192.0.2.1", "192.0.2.1/32"), ("FD00:0::1", "fd00::1/128"), ("10.0.0.0/08", "10.0.0.0/8"), ("::/0", "::/0")],
)
def test_prefixes(text: str, plain: str) -> None:
    assert with_prefix(text) == plain


WRONG = ["", "192.0.2", "192.0.2.1/33", "fd00::/129", "192.0.2.1/", "192.0.2.1/x", "a\0b", "192.0.2.1/-1"]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(NetworkError):
        with_prefix(text)


def test_destinations() -> None:
    assert [destination("default", via) for via in ("", "192.0.2.1", "fe80::1")] == ["0.0.0.0/0", "0.0.0.0/0", "::/0"]
    assert plain_address("::FFFF:192.0.2.1") == "::ffff:192.0.2.1"
