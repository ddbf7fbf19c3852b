"""What there is of a network namespace and its link, and what of the plan is missing."""

from __future__ import annotations

import os
from dataclasses import dataclass

from workers.netns.plan import Plan
from workers.network.namespaces import inside, own_namespace
from workers.network.view import Link, Route, View

LOOPBACK = 1  # its index in every network namespace


@dataclass(frozen=True, slots=True)
class Scene:
    """The two ends of the link, None where there is none, and what they have.

    `is_pair`: they are the ends of one pair.
    """

    host: Link | None
    inner: Link | None
    is_pair: bool
    loopback_is_up: bool
    addresses: frozenset[str]
    host_addresses: frozenset[str]
    routes: frozenset[Route]

    def belongs(self, plan: Plan) -> bool:
        """Whether the link on the host is this namespace's own.

        It says so itself, or it is what others make for this namespace too: a pair whose other
        end is inside, under the name that it is to have there.
        """
        assert self.host is not None
        return self.host.kind == "veth" and (self.host.alias == plan.owner or self.is_pair)

    def missing(self, plan: Plan) -> list[str]:
        """What of the plan is not there, in words."""
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
        found += [f"route {route}" for route in plan.routes if route.at(self.inner.index) not in self.routes]
        return found


def look(plan: Plan, namespace: int, before: Plan | None = None) -> Scene:
    """Look at both ends, from where the calling process is and in `namespace`, a descriptor.  Raises OSError.

    What neither the plan nor the one of before has to do with is not looked at.
    """
    before = before or plan
    home = own_namespace()
    try:
        with inside(namespace), View() as view:
            inner = view.link(plan.inside)
            loopback = view.link(index=LOOPBACK)
            addresses = view.addresses(inner.index) if inner is not None else []
            routes = view.routes() if plan.routes or before.routes else []
            outside_id = view.namespace_id(home)
    finally:
        os.close(home)
    with View() as view:
        host = view.link(plan.link)
        keeps_host = plan.keeps_host or before.keeps_host
        host_addresses = view.addresses(host.index) if host is not None and keeps_host else []
        inside_id = view.namespace_id(namespace)
    return Scene(
        host,
        inner,
        host is not None and inner is not None and _are_ends(host, inside_id, inner, outside_id),
        loopback is not None and loopback.is_up,
        frozenset(addresses),
        frozenset(host_addresses),
        frozenset(routes),
    )


def _are_ends(host: Link, inside_id: int | None, inner: Link, outside_id: int | None) -> bool:
    """Whether each is the other end of the other: index and namespace."""
    there = (host.peer, host.peer_nsid) == (inner.index, inside_id)
    return there and (inner.peer, inner.peer_nsid) == (host.index, outside_id)
