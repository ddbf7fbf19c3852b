"""The state of a network namespace and its link as the kernel shows it, and the differences from the plan."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_interface

from supervisor.linux.namespaces import inside, own_namespace
from workers.netns.files import is_set
from workers.netns.plan import Plan
from workers.network.view import RTN_LOCAL, Link, Route, View

LOOPBACK = 1  # its index in every network namespace


@dataclass(frozen=True, slots=True)
class Connected:
    """A route that the kernel makes for an address of an interface, and that other programs can remove.

    It leads to the network of `address`, which has a prefix, or with `is_local` to the address itself.
    """

    to: str
    is_local: bool
    address: str

    def __str__(self) -> str:
        return f"{'local' if self.is_local else 'connected'} route {self.to}"


def missing_routes(link: Link | None, addresses: Iterable[str], there: Iterable[Route]) -> list[Connected]:
    """Return the missing routes; none for a link without carrier, for which the kernel makes some later."""
    if link is None or not (link.is_up and link.has_carrier):
        return []
    known = {(route.to, route.kind == RTN_LOCAL) for route in there if not route.via}
    return [route for route in connected_routes(addresses) if (route.to, route.is_local) not in known]


def connected_routes(addresses: Iterable[str]) -> list[Connected]:
    """Return the routes to the network of each address, and to the address itself."""
    found = [route for address in addresses for route in _routes_of(address)]
    return list({(route.to, route.is_local): route for route in found}.values())


def _routes_of(address: str) -> list[Connected]:
    interface = ip_interface(address)
    longest = interface.max_prefixlen
    found = [Connected(f"{interface.ip}/{longest}", True, address)]
    if interface.network.prefixlen < longest or interface.version == 6:
        found.append(Connected(str(interface.network), False, address))
    return found


@dataclass(frozen=True, slots=True)
class Observed:
    """The two ends of the link, None if missing, with their addresses and routes.

    `is_pair`: they are the ends of one pair.
    """

    host: Link | None
    inner: Link | None
    is_pair: bool
    loopback_is_up: bool
    addresses: frozenset[str]
    host_addresses: frozenset[str]
    routes: frozenset[Route]
    host_routes: frozenset[Route] = frozenset()
    other_settings: tuple[str, ...] = ()  # settings of the plan that have another value

    def belongs(self, plan: Plan) -> bool:
        """Whether the link on the host belongs to this namespace.

        Either its alias says so, or another program has made it for this namespace: a pair whose other end is
        inside, under the planned name.
        """
        assert self.host is not None
        return self.host.kind == "veth" and (self.host.alias == plan.owner or self.is_pair)

    def missing(self, plan: Plan) -> list[str]:
        """Return the missing parts of the plan, as text."""
        if self.host is None or self.inner is None or not self.is_pair:
            return [f"link {plan.link}"]
        found = []
        if plan.loopback and not self.loopback_is_up:
            found.append("loopback up")
        if not self.inner.is_up:
            found.append(f"{plan.inside} up")
        if plan.keeps_host and not self.host.is_up:
            found.append(f"link {plan.link} up")
        if plan.mtu not in (None, self.inner.mtu):
            found.append(f"mtu {plan.mtu}")
        if plan.mtu not in (None, self.host.mtu):
            found.append(f"mtu {plan.mtu} of link {plan.link}")
        if plan.peer and plan.peer not in self.inner.others:
            found.append(f"name {plan.peer}")
        if plan.mac not in (None, self.inner.mac):
            found.append(f"mac {plan.mac}")
        found += [f"address {address}" for address in plan.addresses if address not in self.addresses]
        found += [f"host address {address}" for address in plan.host_addresses if address not in self.host_addresses]
        found += map(str, self.missing_connected(plan))
        found += [f"host {route}" for route in self.missing_host_connected(plan)]
        found += [f"route {route}" for route in plan.routes if route.at(self.inner.index) not in self.routes]
        return found

    def missing_connected(self, plan: Plan) -> list[Connected]:
        """Return the missing routes of existing addresses."""
        return missing_routes(self.inner, [each for each in plan.addresses if each in self.addresses], self.routes)

    def missing_host_connected(self, plan: Plan) -> list[Connected]:
        """Return the missing routes of existing addresses on the host."""
        there = [each for each in plan.host_addresses if each in self.host_addresses]
        return missing_routes(self.host, there, self.host_routes)

    def changed_settings(self, plan: Plan) -> list[str]:
        """Return the kernel settings that differ from the plan, as text."""
        return [f"{path} = {plan.sysctl[path]}" for path in self.other_settings]


def observe(plan: Plan, namespace: int, before: Plan | None = None) -> Observed:
    """Observe both ends, from the namespace of the calling process and in `namespace`, a descriptor.

    Only parts of this plan or the previous one are observed. Raises OSError.
    """
    before = before or plan
    home = own_namespace()
    try:
        with inside(namespace), View() as view:
            inner = view.link(plan.inside)
            loopback = view.link(index=LOOPBACK)
            addresses = view.addresses(inner.index) if inner is not None else []
            routes = view.routes_over(inner.index) if inner is not None else set()
            outside_id = view.namespace_id(home)
            others = tuple(path for path, value in plan.sysctl.items() if not is_set(path, value))
    finally:
        os.close(home)
    with View() as view:
        host = view.link(plan.link)
        keeps_host = plan.keeps_host or before.keeps_host
        host_addresses = view.addresses(host.index) if host is not None and keeps_host else []
        host_routes = view.routes_over(host.index) if host is not None and plan.keeps_host else set()
        inside_id = view.namespace_id(namespace)
    return Observed(
        host,
        inner,
        host is not None and inner is not None and _are_ends(host, inside_id, inner, outside_id),
        loopback is not None and loopback.is_up,
        frozenset(addresses),
        frozenset(host_addresses),
        frozenset(routes),
        frozenset(host_routes),
        others,
    )


def _are_ends(host: Link, inside_id: int | None, inner: Link, outside_id: int | None) -> bool:
    """Whether the interfaces are each other's peers, by index and namespace."""
    there = (host.peer, host.peer_nsid) == (inner.index, inside_id)
    return there and (inner.peer, inner.peer_nsid) == (host.index, outside_id)
