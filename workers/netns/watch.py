"""A netlink socket that hears what becomes of a namespace and of the host's end of its link: rtnetlink(7).

It is inside.  NETLINK_LISTEN_ALL_NSID lets it hear of the namespaces, too, that have an id
there, and the host is given one.  A filter in the kernel leaves out what is of others.  What
comes is no more than a reason to look.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

from supervisor.linux import netlink
from supervisor.linux.socket_filter import attach_filter
from workers.netns.event_filter import program
from workers.network.namespaces import inside, own_namespace
from workers.network.view import View

GROUPS = (
    netlink.RTNLGRP_LINK,
    netlink.RTNLGRP_IPV4_IFADDR,
    netlink.RTNLGRP_IPV6_IFADDR,
    netlink.RTNLGRP_IPV4_ROUTE,
    netlink.RTNLGRP_IPV6_ROUTE,
)


def open_watch(namespace: int, links: Iterable[int], prefixes: Iterable[int]) -> socket.socket:
    """A socket that is readable after something has become of what the filter lets pass; it does not block.

    `namespace` is a descriptor, `links` are indices of interfaces.  Raises OSError.
    """
    home = own_namespace()
    try:
        with inside(namespace), View() as view:
            view.name_namespace(home)
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    finally:
        os.close(home)
    sock.bind((0, 0))
    sock.setblocking(False)
    attach_filter(sock.fileno(), program(links, prefixes))
    sock.setsockopt(netlink.SOL_NETLINK, netlink.NETLINK_LISTEN_ALL_NSID, 1)
    for group in GROUPS:
        sock.setsockopt(netlink.SOL_NETLINK, netlink.NETLINK_ADD_MEMBERSHIP, group)
    return sock
