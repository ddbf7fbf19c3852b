"""The links, addresses and routes of a network namespace, as rtnetlink(7) shows them, and errors of changes.

Addresses are text in the form of inet_ntop(3). Networks and addresses of interfaces have a prefix:
`192.0.2.2/24`, `::/0`.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

from supervisor.errors import SpawnError
from supervisor.linux import netlink
from supervisor.linux.netlink import Message, NetlinkSocket, attribute, attribute_list, attributes

# <linux/if.h>, <linux/if_link.h>
IFF_UP, IFF_RUNNING = 0x1, 0x40
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_LINKINFO, IFLA_IFALIAS = 1, 3, 4, 5, 18, 20
IFLA_EXT_MASK, IFLA_LINK_NETNSID, IFLA_PROP_LIST, IFLA_ALT_IFNAME = 29, 37, 52, 53
IFLA_INFO_KIND = 1
RTEXT_FILTER_SKIP_STATS = 1 << 3
IFNAMSIZ = 16
# <linux/if_addr.h>, <linux/rtnetlink.h>
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_TABLE = 1, 4, 5, 6, 7, 15
RTN_UNICAST, RTN_LOCAL = 1, 2
RTM_F_CLONED = 0x200
MAIN_TABLE = 254
IPV6_METRIC = 1024  # of a route without a metric: IP6_RT_PRIO_USER

_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_ANY = {socket.AF_INET: bytes(4), socket.AF_INET6: bytes(16)}

GONE = frozenset({errno.ENODEV, errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENOENT})


@dataclass(frozen=True, slots=True)
class Link:
    """An interface. `peer` is the index of the other end of a pair, in the namespace with the id `peer_nsid`.

    `peer_nsid` is None for the interface's own namespace. `others` are its alternative names.
    """

    index: int
    name: str
    kind: str
    flags: int
    mtu: int
    mac: str
    alias: str
    peer: int
    peer_nsid: int | None
    others: frozenset[str]

    @property
    def is_up(self) -> bool:
        return bool(self.flags & IFF_UP)

    @property
    def has_carrier(self) -> bool:
        return bool(self.flags & IFF_RUNNING)


@dataclass(frozen=True, slots=True)
class Route:
    """A route over the interface `index`, and the gateway `via` unless that is ''.

    `kind` is RTN_UNICAST, or RTN_LOCAL for an address of this host.
    """

    to: str
    via: str
    index: int
    metric: int
    table: int
    kind: int = RTN_UNICAST


class View:
    """Views the network namespace in which the calling thread was when this was made. Owns a socket."""

    def __init__(self) -> None:
        self._socket = NetlinkSocket()

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def close(self) -> None:
        self._socket.close()

    def link(self, name: str = "", index: int = 0) -> Link | None:
        """Return an interface by name, also an alternative one, or by index; None if there is none. Raises OSError."""
        body = _LINK.pack(0, 0, index, 0, 0) + attribute(IFLA_EXT_MASK, struct.pack("=I", RTEXT_FILTER_SKIP_STATS))
        if not index:
            kind = IFLA_IFNAME if len(name) < IFNAMSIZ else IFLA_ALT_IFNAME
            body += attribute(kind, name.encode() + b"\0")
        try:
            answers = self._socket.request(netlink.RTM_GETLINK, body, 0)
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ERANGE, errno.EINVAL):
                return None
            raise
        return link_of(answers[0])

    def links(self) -> list[Link]:
        """Return all interfaces. Raises OSError."""
        mask = attribute(IFLA_EXT_MASK, struct.pack("=I", RTEXT_FILTER_SKIP_STATS))
        return list(map(link_of, self._socket.dump(netlink.RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0) + mask)))

    def addresses(self, index: int) -> list[str]:
        """Return the addresses of an interface. Raises OSError."""
        found = map(address_of, self._socket.dump(netlink.RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0)))
        return [address for owner, address in found if owner == index]

    def routes(self) -> list[Route]:
        """Return the routes of all tables, without multipath routes. Raises OSError."""
        dump = self._socket.dump(netlink.RTM_GETROUTE, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0))
        found = [route for message in dump if (route := route_of(message)) is not None]
        return [route for route in found if route.kind == RTN_UNICAST]

    def routes_over(self, index: int) -> set[Route]:
        """Return the routes of all tables over one interface, also those of its own addresses. Raises OSError.

        The kernel omits the other routes, of which there may be a million.
        """
        with closing(NetlinkSocket()) as strict:
            with suppress(OSError):  # an older kernel returns all routes
                strict.be_strict()
            oif = attribute(RTA_OIF, struct.pack("=I", index))
            bodies = [_ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0) + oif for family in _ANY]
            messages = [message for body in bodies for message in strict.dump(netlink.RTM_GETROUTE, body)]
        found = {route for message in messages if (route := route_of(message)) is not None}
        return {route for route in found if route.index == index}

    def namespace_id(self, fd: int) -> int | None:
        """Return the id here of the namespace of the descriptor `fd`; None if it has none. Raises OSError."""
        body = bytes(4) + attribute(netlink.NETNSA_FD, struct.pack("=I", fd))
        (answer, *_) = self._socket.request(netlink.RTM_GETNSID, body, 0)
        (found,) = struct.unpack("=i", attributes(answer.body, 4)[netlink.NETNSA_NSID])
        return int(found) if found >= 0 else None

    def name_namespace(self, fd: int) -> None:
        """Give the namespace of the descriptor `fd` an id here, if it has none. Raises OSError."""
        body = bytes(4) + attribute(netlink.NETNSA_NSID, struct.pack("=i", -1))
        body += attribute(netlink.NETNSA_FD, struct.pack("=I", fd))
        try:
            self._socket.request(netlink.RTM_NEWNSID, body)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise

    def delete_link(self, index: int) -> None:
        """Remove an interface, and the other end of its pair; do nothing if it is gone. Raises OSError."""
        try:
            self._socket.request(netlink.RTM_DELLINK, _LINK.pack(0, 0, index, 0, 0))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise


def route_text(to: str, via: str) -> str:
    """Return a route as text: `192.0.2.0/24 via 198.51.100.1`."""
    return f"{to} via {via}" if via else to


def link_of(message: Message) -> Link:
    """Return the interface in a message."""
    _family, _type, index, flags, _change = _LINK.unpack_from(message.body)
    found = attributes(message.body, _LINK.size)
    info = attributes(found.get(IFLA_LINKINFO, b""), 0)
    nsid = found.get(IFLA_LINK_NETNSID)
    return Link(
        index,
        _text(found.get(IFLA_IFNAME, b"")),
        _text(info.get(IFLA_INFO_KIND, b"")),
        flags,
        _number(found.get(IFLA_MTU)),
        found.get(IFLA_ADDRESS, b"").hex(":"),
        _text(found.get(IFLA_IFALIAS, b"")),
        _number(found.get(IFLA_LINK)),
        None if nsid is None else int(struct.unpack("=i", nsid)[0]),
        frozenset(_text(other) for _kind, other in attribute_list(found.get(IFLA_PROP_LIST, b""))),
    )


def address_of(message: Message) -> tuple[int, str]:
    """Return the interface and the address in a message."""
    family, prefix, _flags, _scope, index = _ADDRESS.unpack_from(message.body)
    found = attributes(message.body, _ADDRESS.size)
    packed = found.get(IFA_LOCAL, found.get(IFA_ADDRESS, b""))
    if family not in _ANY or not packed:
        return index, ""
    return index, f"{socket.inet_ntop(family, packed)}/{prefix}"


def route_of(message: Message) -> Route | None:
    """Return the route in a message; None for a route that leads nowhere, or to several gateways."""
    family, prefix, _src, _tos, table, _protocol, _scope, kind, flags = _ROUTE.unpack_from(message.body)
    found = attributes(message.body, _ROUTE.size)
    if family not in _ANY or kind not in (RTN_UNICAST, RTN_LOCAL) or flags & RTM_F_CLONED or RTA_OIF not in found:
        return None
    via = found.get(RTA_GATEWAY)
    return Route(
        f"{socket.inet_ntop(family, found.get(RTA_DST, _ANY[family]))}/{prefix}",
        socket.inet_ntop(family, via) if via else "",
        _number(found[RTA_OIF]),
        _number(found.get(RTA_PRIORITY)),
        _number(found.get(RTA_TABLE)) or table,
        kind,
    )


def _number(value: bytes | None) -> int:
    return int(struct.unpack("=I", value)[0]) if value else 0


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


class NetworkError(SpawnError):
    """`cannot DO: CAUSE`; `errno` is the kernel's, 0 for other causes."""

    def __init__(self, what: str, cause: str, errno: int = 0) -> None:
        super().__init__(f"cannot {what}: {cause}")
        self.errno = errno


@contextmanager
def already_gone() -> Iterator[None]:
    """Ignore the error for an object that is gone already, because it was to be removed anyway."""
    try:
        yield
    except NetworkError as error:
        if error.errno not in GONE:
            raise
