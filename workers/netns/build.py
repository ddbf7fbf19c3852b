"""Making a network namespace by its plan; existing parts that match the plan stay as they are.

For a task: it imports pyroute2 if something has to be made. Everything is checked before anything is made. A
failure removes the namespace, the link and the file that this run has made.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from supervisor.linux.namespaces import CLONE_NEWNET, inside, own_namespace, setns, unshare
from workers.netns.files import (
    apply_setting,
    check_setting,
    give_name,
    namespace_of_socket,
    open_namespace,
    read_resolver,
    remove_resolver,
    take_name,
    write_resolver,
)
from workers.netns.observed import LOOPBACK, Connected, Observed, observe
from workers.netns.plan import ForeignError, Plan, SetUpError
from workers.network.view import Link, Route, View, already_gone

if TYPE_CHECKING:
    from workers.network.stack import Stack

# kinds of objects
NAMESPACE, LINK, RESOLVER = "namespace", "link", "resolver"


@dataclass(slots=True)
class Built:
    """The missing parts and the work done, as text, and whether namespace and link are new."""

    missing: list[str]
    did: list[str] = field(default_factory=list)
    made_namespace: bool = False
    made_link: bool = False


def build(
    plan: Plan, before: Plan | None, inner_socket: int = -1, makes: Callable[[str], None] = lambda kind: None
) -> Built:
    """Carry out the plan; `before` is the previous plan. Raises NetnsError, NetworkError or OSError.

    `inner_socket` is a socket in the namespace, from a worker that has set the namespace up before. With it,
    a namespace that has lost its name gets it back, and files that others have changed do not stop the other
    repairs. `makes` is called with the kind of an object before it is made, in case this process is killed.
    """
    with ExitStack() as held:
        home = own_namespace()
        held.callback(os.close, home)
        namespace = open_namespace(plan.name)
        is_nameless = namespace is None and inner_socket >= 0
        if is_nameless:
            namespace = namespace_of_socket(inner_socket)
            give_name(plan.name, f"/proc/self/fd/{namespace}")
        seen = observe(plan, namespace, before) if namespace is not None else None
        repairs = inner_socket >= 0
        _check(plan, before, seen, repairs)
        builder = _Builder(plan, before or plan, home, seen, makes, repairs)
        if is_nameless:
            builder.built.missing.append("the name of the network namespace")
            builder.built.did.append("the name of the network namespace")
        with ExitStack() as undo:
            builder.carry_out(namespace, seen, undo)
            undo.pop_all()
    return builder.built


def _check(plan: Plan, before: Plan | None, seen: Observed | None, repairs: bool) -> None:
    """Raise NetnsError or OSError if the plan cannot be carried out."""
    if os.geteuid() != 0:
        raise SetUpError("cannot set up a network namespace: that takes root")
    if seen is None or not seen.is_pair or before is None or before.setup != plan.setup:  # otherwise its work is done
        check_script(plan)
    if not repairs:
        for path in plan.sysctl:
            check_setting(path, plan.inside)
        if plan.dns is not None:
            read_resolver(plan.name)
    if seen is not None:
        host, inner = seen.host, seen.inner
    else:
        with View() as view:
            host, inner = view.link(plan.link), None
        seen = Observed(host, None, False, False, frozenset(), frozenset(), frozenset())
    if host is not None and not seen.belongs(plan):
        kind = f" ({host.kind})" if host.kind else ""
        raise ForeignError(f"cannot make link {plan.link!r}: there is another interface of that name{kind}")
    if inner is not None and not seen.is_pair and not _is_stray(plan, seen):
        raise ForeignError(f"cannot make {plan.inside!r} inside: there is another interface of that name")


def _is_stray(plan: Plan, seen: Observed) -> bool:
    """Whether the inner interface with the name of our end is our end, whose other end was renamed."""
    assert seen.inner is not None
    with View() as view:
        other = view.link(index=seen.inner.peer) if seen.inner.peer else None
    return other is not None and other.alias == plan.owner


def check_script(plan: Plan) -> None:
    """Raise SetUpError if there is a setup script that cannot be run."""
    path = plan.script()
    if path and not (os.path.isfile(path) and os.access(path, os.X_OK)):
        cause = "it is not executable" if os.path.isfile(path) else "there is no such file"
        raise SetUpError(f"cannot run {path}: {cause}")


class _Builder:
    """`before` is the previous plan, `home` the namespace of the host, in which the calling process is."""

    def __init__(
        self,
        plan: Plan,
        before: Plan,
        home: int,
        seen: Observed | None,
        makes: Callable[[str], None],
        repairs: bool,
    ) -> None:
        missing = ["network namespace"] if seen is None else seen.missing(plan) + seen.changed_settings(plan)
        self.built = Built(missing)
        self._plan = plan
        self._before = before
        self._home = home
        self._makes = makes
        self._repairs = repairs
        self._stacks: dict[int, Stack] = {}

    def _stack(self, namespace: int) -> Stack:
        """Return the Stack of a namespace, made at the first change, because making it is slow."""
        from workers.network.stack import Stack

        if namespace not in self._stacks:
            with inside(namespace):
                self._stacks[namespace] = Stack()
        return self._stacks[namespace]

    @property
    def _host(self) -> Stack:
        return self._stack(self._home)

    @property
    def _inner(self) -> Stack:
        return self._stack(self._namespace)

    def carry_out(self, namespace: int | None, seen: Observed | None, undo: ExitStack) -> None:
        if namespace is None or seen is None:
            namespace = self._make_namespace(undo)
            seen = observe(self._plan, namespace, self._before)
        self._namespace = namespace
        seen = self._link(namespace, seen, undo)
        with inside(namespace):
            for path, value in self._plan.sysctl.items():
                if apply_setting(path, value):
                    self._did(f"{path} = {value}")
        if self._take_away(seen):
            seen = observe(self._plan, namespace, self._before)
        self._host_end(seen)
        self._inner_end(seen)
        self._resolver(undo)

    def _did(self, what: str) -> None:
        self.built.did.append(what)

    def _make_namespace(self, undo: ExitStack) -> int:
        self._makes(NAMESPACE)
        unshare(CLONE_NEWNET)
        try:
            namespace = own_namespace()
            give_name(self._plan.name)
        finally:
            setns(self._home, CLONE_NEWNET)
        undo.callback(take_name, self._plan.name)
        self.built.made_namespace = True
        self._did("network namespace")
        return namespace

    def _link(self, namespace: int, seen: Observed, undo: ExitStack) -> Observed:
        """Make the pair unless both ends are where they belong, and mark it as our own."""
        plan = self._plan
        if not seen.is_pair:
            self._clear(seen)
            self._makes(LINK)
            self._host.add_pair(plan.link, plan.inside, namespace, plan.mtu, plan.mac)
            seen = observe(plan, namespace, self._before)
            if seen.host is None or not seen.is_pair:
                raise SetUpError(f"cannot make link {plan.link!r}: it is gone again")
            undo.callback(self._host.delete_link, seen.host.index, plan.link)
            self.built.made_link = True
            self._did(f"link {plan.link}")
        assert seen.host is not None
        if seen.host.alias != plan.owner:
            self._host.set_link(seen.host.index, plan.link, "alias", ifalias=plan.owner)
        return seen

    def _clear(self, seen: Observed) -> None:
        """Remove interfaces of our own that do not match, under the present or the former name."""
        plan = self._plan
        with View() as view:
            peer = view.link(index=seen.inner.peer) if seen.inner is not None and seen.inner.peer else None
            former = view.link(self._before.link) if self._before.link != plan.link else None
        own = {link.index: link for link in (seen.host, peer, former) if link is not None and link.alias == plan.owner}
        for link in own.values():
            with already_gone():
                self._host.delete_link(link.index, link.name)
            self._did(f"link {link.name}, which did not fit, removed")

    def _take_away(self, seen: Observed) -> bool:
        """Remove parts that only the former plan has; return whether there were any."""
        plan, before, inner, host = self._plan, self._before, seen.inner, seen.host
        assert inner is not None
        assert host is not None
        former = [route for route in before.routes if route not in plan.routes]
        routes = [route for route in former if route.at(inner.index) in seen.routes]
        for route in routes:
            with already_gone():
                self._inner.delete_route(
                    route.to, index=inner.index, via=route.via, metric=route.metric, table=route.table
                )
            self._did(f"route {route} removed")
        ends = (
            (self._namespace, inner, (set(before.addresses) - set(plan.addresses)) & seen.addresses),
            (self._home, host, (set(before.host_addresses) - set(plan.host_addresses)) & seen.host_addresses),
        )
        for namespace, link, addresses in ends:
            for address in sorted(addresses):
                with already_gone():
                    self._stack(namespace).delete_address(link.index, link.name, address)
                self._did(f"address {address} of {link.name} removed")
        return bool(routes or any(addresses for _namespace, _link, addresses in ends))

    def _host_end(self, seen: Observed) -> None:
        plan, link = self._plan, seen.host
        assert link is not None
        if plan.mtu not in (None, link.mtu):
            self._host.set_link(link.index, link.name, f"mtu {plan.mtu}", mtu=plan.mtu)
            self._did(f"mtu {plan.mtu} of link {plan.link}")
        for address in plan.host_addresses:
            if address not in seen.host_addresses:
                self._host.add_address(link.index, link.name, address)
                self._did(f"host address {address}")
        if plan.keeps_host and not link.is_up:
            self._host.set_up(link.index, link.name)
            self._did(f"link {link.name} up")
        for route in seen.missing_host_connected(plan):
            self._connected(self._host, link, route)
            self._did(f"host {route}")

    def _inner_end(self, seen: Observed) -> None:
        plan, link = self._plan, seen.inner
        assert link is not None
        if plan.loopback and not seen.loopback_is_up:
            self._inner.set_up(LOOPBACK, "lo")
            self._did("loopback up")
        if plan.mtu not in (None, link.mtu):
            self._inner.set_link(link.index, link.name, f"mtu {plan.mtu}", mtu=plan.mtu)
            self._did(f"mtu {plan.mtu}")
        if plan.mac not in (None, link.mac):
            self._inner.set_link(link.index, link.name, f"mac {plan.mac}", address=plan.mac)
            self._did(f"mac {plan.mac}")
        if plan.peer and plan.peer not in link.others:
            self._inner.add_name(link.index, link.name, plan.peer)
            self._did(f"name {plan.peer}")
        for address in plan.addresses:
            if address not in seen.addresses:
                self._inner.add_address(link.index, link.name, address)
                self._did(f"address {address}")
        if not link.is_up:
            self._inner.set_up(link.index, link.name)
            self._did(f"{link.name} up")
        for route in seen.missing_connected(plan):
            self._connected(self._inner, link, route)
            self._did(str(route))
        self._routes(link.index, seen.routes)

    def _connected(self, stack: Stack, link: Link, route: Connected) -> None:
        """Restore a route of an address, together with the address if only the kernel can make the route.

        Connections that use the address survive: removing an IPv4 address would remove other addresses of its network.
        """
        if route.is_local and ":" in route.to:
            with already_gone():
                stack.delete_address(link.index, link.name, route.address)
            stack.add_address(link.index, link.name, route.address)
        else:
            source = route.address.partition("/")[0]
            stack.add_kernel_route(route.to, index=link.index, source=source, is_local=route.is_local)

    def _routes(self, index: int, there: Collection[Route]) -> None:
        """Add the missing routes; those on the link come first, because gateways are reached over them."""
        for route in sorted(self._plan.routes, key=lambda route: bool(route.via)):
            if route.at(index) not in there:
                more = {"metric": route.metric, "table": route.table, "source": route.source}
                self._inner.add_route(route.to, index=index, via=route.via, onlink=route.onlink, **more)
                self._did(f"route {route}")

    def _resolver(self, undo: ExitStack) -> None:
        plan = self._plan
        try:
            there = read_resolver(plan.name) if plan.dns is not None or self._before.dns is not None else None
        except ForeignError:
            if not self._repairs:
                raise
            return  # another program has written one meanwhile
        if plan.dns is None and there is not None:
            remove_resolver(plan.name)
            self._did("resolv.conf removed")
        elif plan.dns is not None and there != plan.dns:
            if there is None:
                self._makes(RESOLVER)
                undo.callback(remove_resolver, plan.name)
            write_resolver(plan.name, plan.dns)
            self._did("resolv.conf")
