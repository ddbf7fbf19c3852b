"""Makes of a network namespace what its plan says: what is there and fits stays as it is.

For an errand: where there is something to be made it imports pyroute2.  Everything is checked before
anything is made, and what fails takes the namespace, the link and the file with it that this run has made.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from supervisor.linux.namespaces import CLONE_NEWNET, setns, unshare
from workers.netns import name, resolver, settings
from workers.netns.errors import ForeignError, SetUpError
from workers.netns.plan import Plan
from workers.netns.scene import LOOPBACK, Scene, look
from workers.network.errors import already_gone
from workers.network.namespaces import inside, own_namespace
from workers.network.view import Route, View

if TYPE_CHECKING:
    from workers.network.stack import Stack

# what is made, by kind
NAMESPACE, LINK, RESOLVER = "namespace", "link", "resolver"


@dataclass(slots=True)
class Built:
    """What was missing and what has been done, in words, and whether namespace and link are new."""

    missing: list[str]
    did: list[str] = field(default_factory=list)
    made_namespace: bool = False
    made_link: bool = False


def build(
    plan: Plan, before: Plan | None, inner_socket: int = -1, makes: Callable[[str], None] = lambda kind: None
) -> Built:
    """Make it so; `before` is what it was to be until now.  Raises NetnsError, NetworkError or OSError.

    `inner_socket` is a socket in the namespace, of a worker that has set it up before: with it one that has lost
    its name gets it back, and what others have done to files is no reason not to put the rest right.
    `makes` is told the kind of what is about to be made, should this process not come to its end.
    """
    with ExitStack() as held:
        home = own_namespace()
        held.callback(os.close, home)
        namespace = name.open_namespace(plan.name)
        is_nameless = namespace is None and inner_socket >= 0
        if is_nameless:
            namespace = name.namespace_of_socket(inner_socket)
            name.give_name(plan.name, f"/proc/self/fd/{namespace}")
        scene = look(plan, namespace, before) if namespace is not None else None
        repairs = inner_socket >= 0
        _check(plan, before, scene, repairs)
        builder = _Builder(plan, before or plan, home, scene, makes, repairs)
        if is_nameless:
            builder.built.missing.append("the name of the network namespace")
            builder.built.did.append("the name of the network namespace")
        with ExitStack() as undo:
            builder.run(namespace, scene, undo)
            undo.pop_all()
    return builder.built


def _check(plan: Plan, before: Plan | None, scene: Scene | None, repairs: bool) -> None:
    """Whether it can be: raises NetnsError or OSError where not."""
    if os.geteuid() != 0:
        raise SetUpError("cannot set up a network namespace: that takes root")
    if scene is None or not scene.is_pair or before is None or before.setup != plan.setup:  # else its work is done
        check_script(plan)
    if not repairs:
        for path in plan.sysctl:
            settings.check(path, plan.inside)
        if plan.dns is not None:
            resolver.read_own(plan.name)
    if scene is not None:
        host, inner = scene.host, scene.inner
    else:
        with View() as view:
            host, inner = view.link(plan.link), None
        scene = Scene(host, None, False, False, frozenset(), frozenset(), frozenset())
    if host is not None and not scene.belongs(plan):
        kind = f" ({host.kind})" if host.kind else ""
        raise ForeignError(f"cannot make link {plan.link!r}: there is another interface of that name{kind}")
    if inner is not None and not scene.is_pair and not _is_stray(plan, scene):
        raise ForeignError(f"cannot make {plan.inside!r} inside: there is another interface of that name")


def _is_stray(plan: Plan, scene: Scene) -> bool:
    """Whether what is inside under the name of our end is our end, its other end having another name by now."""
    assert scene.inner is not None
    with View() as view:
        other = view.link(index=scene.inner.peer) if scene.inner.peer else None
    return other is not None and other.alias == plan.owner


def check_script(plan: Plan) -> None:
    """Raises SetUpError where there is a setup script that cannot be run."""
    path = plan.script()
    if path and not (os.path.isfile(path) and os.access(path, os.X_OK)):
        cause = "it is not executable" if os.path.isfile(path) else "there is no such file"
        raise SetUpError(f"cannot run {path}: {cause}")


class _Builder:
    """`before` is the plan of until now, `home` the namespace of the host, in which the calling process is."""

    def __init__(
        self,
        plan: Plan,
        before: Plan,
        home: int,
        scene: Scene | None,
        makes: Callable[[str], None],
        repairs: bool,
    ) -> None:
        self.built = Built(scene.missing(plan) if scene is not None else ["network namespace"])
        self._plan = plan
        self._before = before
        self._home = home
        self._makes = makes
        self._repairs = repairs
        self._stacks: dict[int, Stack] = {}

    def _stack(self, namespace: int) -> Stack:
        """What changes a namespace, made when there is something to change: it takes its time."""
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

    def run(self, namespace: int | None, scene: Scene | None, undo: ExitStack) -> None:
        if namespace is None or scene is None:
            namespace = self._make_namespace(undo)
            scene = look(self._plan, namespace, self._before)
        self._namespace = namespace
        scene = self._link(namespace, scene, undo)
        with inside(namespace):
            for path, value in self._plan.sysctl.items():
                if settings.apply(path, value):
                    self._did(f"{path} = {value}")
        if self._take_away(scene):
            scene = look(self._plan, namespace, self._before)
        self._host_end(scene)
        self._inner_end(scene)
        self._resolver(undo)

    def _did(self, what: str) -> None:
        self.built.did.append(what)

    def _make_namespace(self, undo: ExitStack) -> int:
        self._makes(NAMESPACE)
        unshare(CLONE_NEWNET)
        try:
            namespace = own_namespace()
            name.give_name(self._plan.name)
        finally:
            setns(self._home, CLONE_NEWNET)
        undo.callback(name.take_name, self._plan.name)
        self.built.made_namespace = True
        self._did("network namespace")
        return namespace

    def _link(self, namespace: int, scene: Scene, undo: ExitStack) -> Scene:
        """Have a pair of which both ends are where they belong, marked as our own."""
        plan = self._plan
        if not scene.is_pair:
            self._clear(scene)
            self._makes(LINK)
            self._host.add_pair(plan.link, plan.inside, namespace, plan.mtu, plan.mac)
            scene = look(plan, namespace, self._before)
            if scene.host is None or not scene.is_pair:
                raise SetUpError(f"cannot make link {plan.link!r}: it is gone again")
            undo.callback(self._host.delete_link, scene.host.index, plan.link)
            self.built.made_link = True
            self._did(f"link {plan.link}")
        assert scene.host is not None
        if scene.host.alias != plan.owner:
            self._host.set_link(scene.host.index, plan.link, "alias", ifalias=plan.owner)
        return scene

    def _clear(self, scene: Scene) -> None:
        """Remove what is our own and does not fit, under the name of now or of before."""
        plan = self._plan
        with View() as view:
            peer = view.link(index=scene.inner.peer) if scene.inner is not None and scene.inner.peer else None
            former = view.link(self._before.link) if self._before.link != plan.link else None
        own = {link.index: link for link in (scene.host, peer, former) if link is not None and link.alias == plan.owner}
        for link in own.values():
            with already_gone():
                self._host.delete_link(link.index, link.name)
            self._did(f"link {link.name}, which did not fit, removed")

    def _take_away(self, scene: Scene) -> bool:
        """Remove what the plan of before had and this one has not; whether there was anything."""
        plan, before, inner, host = self._plan, self._before, scene.inner, scene.host
        assert inner is not None
        assert host is not None
        former = [route for route in before.routes if route not in plan.routes]
        routes = [route for route in former if route.at(inner.index) in scene.routes]
        for route in routes:
            more = {"metric": route.metric, "table": route.table}
            with already_gone():
                self._inner.delete_route(route.to, index=inner.index, via=route.via, **more)
            self._did(f"route {route} removed")
        ends = (
            (self._namespace, inner, (set(before.addresses) - set(plan.addresses)) & scene.addresses),
            (self._home, host, (set(before.host_addresses) - set(plan.host_addresses)) & scene.host_addresses),
        )
        for namespace, link, addresses in ends:
            for address in sorted(addresses):
                with already_gone():
                    self._stack(namespace).delete_address(link.index, link.name, address)
                self._did(f"address {address} of {link.name} removed")
        return bool(routes or any(addresses for _namespace, _link, addresses in ends))

    def _host_end(self, scene: Scene) -> None:
        plan, link = self._plan, scene.host
        assert link is not None
        if plan.mtu not in (None, link.mtu):
            self._host.set_link(link.index, link.name, f"mtu {plan.mtu}", mtu=plan.mtu)
            self._did(f"mtu {plan.mtu} of link {plan.link}")
        for address in plan.host_addresses:
            if address not in scene.host_addresses:
                self._host.add_address(link.index, link.name, address)
                self._did(f"host address {address}")
        if plan.keeps_host and not link.is_up:
            self._host.set_up(link.index, link.name)
            self._did(f"link {link.name} up")

    def _inner_end(self, scene: Scene) -> None:
        plan, link = self._plan, scene.inner
        assert link is not None
        if plan.loopback and not scene.loopback_is_up:
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
            if address not in scene.addresses:
                self._inner.add_address(link.index, link.name, address)
                self._did(f"address {address}")
        if not link.is_up:
            self._inner.set_up(link.index, link.name)
            self._did(f"{link.name} up")
        self._routes(link.index, scene.routes)

    def _routes(self, index: int, there: Collection[Route]) -> None:
        """A gateway is reached over routes that come before it: those that are on the link are first."""
        for route in sorted(self._plan.routes, key=lambda route: bool(route.via)):
            if route.at(index) not in there:
                more = {"metric": route.metric, "table": route.table, "source": route.source}
                self._inner.add_route(route.to, index=index, via=route.via, onlink=route.onlink, **more)
                self._did(f"route {route}")

    def _resolver(self, undo: ExitStack) -> None:
        plan = self._plan
        try:
            there = resolver.read_own(plan.name) if plan.dns is not None or self._before.dns is not None else None
        except ForeignError:
            if not self._repairs:
                raise
            return  # somebody has written another one since
        if plan.dns is None and there is not None:
            resolver.remove(plan.name)
            self._did("resolv.conf removed")
        elif plan.dns is not None and there != plan.dns:
            if there is None:
                self._makes(RESOLVER)
                undo.callback(resolver.remove, plan.name)
            resolver.write(plan.name, plan.dns)
            self._did("resolv.conf")
