"""Changes to a network namespace: interfaces, addresses and routes, through pyroute2.

The import takes time and memory: it is for a process that ends soon, or needs pyroute2 anyway.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# The package's own module imports all of its parts, even databases and file servers. It is skipped, and the
# needed parts are imported directly.
if "pyroute2" not in sys.modules and (_found := importlib.util.find_spec("pyroute2")) is not None:
    sys.modules["pyroute2"] = importlib.util.module_from_spec(_found)

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from workers.network.view import RTN_LOCAL, NetworkError, route_text

IFA_F_NODAD = 0x02
RTPROT_UNSPEC, RTPROT_KERNEL, RTPROT_STATIC = 0, 2, 4
RTNH_F_ONLINK = 4
RTSCOPE_LINK, RTSCOPE_HOST, RTSCOPE_NOWHERE = 253, 254, 255
LOCAL_TABLE = 255
CONNECTED_IPV6_METRIC = 256  # IP6_RT_PRIO_ADDRCONF


class Stack:
    """The network namespace in which the calling thread was when this was made. Owns its sockets.

    Every method raises NetworkError, which names the change, the object and the cause.
    """

    def __init__(self) -> None:
        self._route: Any = IPRoute()

    def close(self) -> None:
        self._route.close()

    def add_pair(self, name: str, inside: str, namespace: int, mtu: int | None = None, mac: str | None = None) -> None:
        """Make a veth pair: `name` here, `inside` in the namespace of the descriptor `namespace`."""
        peer: dict[str, Any] = {"ifname": inside, "net_ns_fd": namespace}
        both = {} if mtu is None else {"mtu": mtu}
        own = {} if mac is None else {"address": mac}
        with _doing(f"make link {name!r}"):
            self._route.link("add", ifname=name, kind="veth", peer=peer | both | own, **both)

    def add_link(self, name: str, kind: str, **options: Any) -> None:
        """Make a virtual interface of a kind that needs no other: `dummy`, `bridge`, `vlan`, `veth`."""
        with _doing(f"make link {name!r}"):
            self._route.link("add", ifname=name, kind=kind, **options)

    def delete_link(self, index: int, name: str) -> None:
        with _doing(f"delete link {name!r}"):
            self._route.link("del", index=index)

    def set_link(self, index: int, name: str, what: str, **values: Any) -> None:
        """Change an interface; `what` describes the change: `mtu 9000`."""
        with _doing(f"set {what} of link {name!r}"):
            self._route.link("set", index=index, **values)

    def set_up(self, index: int, name: str, is_up: bool = True) -> None:
        state = "up" if is_up else "down"
        with _doing(f"set link {name!r} {state}"):
            self._route.link("set", index=index, state=state)

    def add_name(self, index: int, name: str, other: str) -> None:
        """Give an interface another name."""
        with _doing(f"give link {name!r} the name {other!r}"):
            self._route.link("property_add", index=index, altname=other)

    def add_address(self, index: int, name: str, address: str) -> None:
        """Add `ADDRESS/PREFIX`, usable at once: there is no duplicate address detection."""
        with _doing(f"add address {address} to {name!r}"):
            self._route.addr("add", index=index, **_address(address))

    def delete_address(self, index: int, name: str, address: str) -> None:
        with _doing(f"delete address {address} of {name!r}"):
            host, _, prefix = address.partition("/")
            self._route.addr("del", index=index, address=host, prefixlen=int(prefix))

    def add_route(self, to: str, *, index: int | None, via: str = "", onlink: bool = False, **more: Any) -> None:
        """Add a route, in place of one to the same network; `more` has `metric`, `table` and `source`.

        Without the index of an interface, the kernel takes the one over which the gateway is reached.
        """
        with _doing(f"add route {route_text(to, via)}"):
            self._route.route("replace", **_route(to, index, via, onlink, more))

    def add_kernel_route(self, to: str, *, index: int, source: str, is_local: bool) -> None:
        """Add a route like the kernel's own for an address: that to its network, or with `is_local` to the address."""
        family = socket.AF_INET6 if ":" in to else socket.AF_INET
        route: dict[str, Any] = {"dst": to, "family": family, "oif": index, "proto": RTPROT_KERNEL}
        if is_local:
            route |= {"table": LOCAL_TABLE, "type": RTN_LOCAL, "scope": RTSCOPE_HOST}
        elif family == socket.AF_INET:
            route["scope"] = RTSCOPE_LINK
        else:
            route["priority"] = CONNECTED_IPV6_METRIC
        if family == socket.AF_INET:
            route["prefsrc"] = source
        with _doing(f"add route {to}"):
            self._route.route("replace", **route)

    def delete_route(self, to: str, *, index: int | None, via: str = "", own: bool = True, **more: Any) -> None:
        """Delete a route of `add_route`; without `own`, the first match of any origin."""
        route = _route(to, index, via, False, more)
        if not own:
            route |= {"proto": RTPROT_UNSPEC, "scope": RTSCOPE_NOWHERE}
        with _doing(f"delete route {route_text(to, via)}"):
            self._route.route("del", **route)


def _address(address: str) -> dict[str, Any]:
    host, _, prefix = address.partition("/")
    found: dict[str, Any] = {"address": host, "prefixlen": int(prefix)}
    if ":" in host:
        found["flags"] = IFA_F_NODAD
    return found


def _route(to: str, index: int | None, via: str, onlink: bool, more: dict[str, Any]) -> dict[str, Any]:
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    found: dict[str, Any] = {"dst": to, "family": family, "proto": RTPROT_STATIC}
    if index is not None:
        found["oif"] = index
    if via:
        found["gateway"] = via
    elif family == socket.AF_INET:
        found["scope"] = RTSCOPE_LINK
    if onlink:
        found["flags"] = RTNH_F_ONLINK
    names = {"metric": "priority", "source": "prefsrc", "table": "table"}
    return found | {names[key]: value for key, value in more.items() if value is not None}


@contextmanager
def _doing(what: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        raise NetworkError(what, os.strerror(error.code), error.code) from error
    except (OSError, ValueError, TypeError, struct.error) as error:
        if isinstance(error, OSError) and error.errno:
            raise NetworkError(what, os.strerror(error.errno), error.errno) from error
        raise NetworkError(what, "a message to the kernel cannot hold one of the values", errno.EINVAL) from error
