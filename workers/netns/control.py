"""What `spawnctl call netns@NAME` is answered."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from workers.netns.name import open_namespace, path_of
from workers.netns.plan import Plan, read_plan
from workers.netns.record import Record, Repair
from workers.netns.scene import Scene, look
from workers.network.view import Link
from workers.runtime.control import Control
from workers.runtime.control_socket import ControlSocket

INTERFACE = """
# A network namespace and the link into it.
interface io.spawnd.netns

type Link (name: string, index: int, up: bool, carrier: bool, mtu: int, mac: string, addresses: []string)
type Repair (time: string, missing: []string, did: []string, problem: ?string)

# How it is now.  `set_up`: the setup has been run to its end.  `host` and `inside` are the ends of the link, null
# where there is none; the host's has its addresses only where they are of the definition.  `missing` is what of the
# definition is not there.
method GetState() -> (
  namespace: string,
  path: string,
  set_up: bool,
  host: ?Link,
  inside: ?Link,
  routes: []string,
  missing: []string,
  repaired: int
)

# What was taken away and put right, the latest last; at most so many.
method GetRepairs(count: ?int) -> (repaired: int, repairs: []Repair)
"""


def serve(fd: int, options: dict[str, Any], record_fd: int) -> None:
    """Answer whoever waits on the listening socket `fd`, and those who come until nobody is left."""
    plan, record = read_plan(options), Record(record_fd)
    loop = Loop(on_error=lambda error: log.error("netns@%s: unexpected error; going on", plan.name, exc_info=error))
    socket = ControlSocket(loop, fd, control(plan, record))
    loop.before_wait(lambda: loop.stop() if socket.is_idle else None)
    loop.run()


def control(plan: Plan, record: Record) -> Control:
    """The methods."""
    methods = {
        "GetState": lambda _parameters: _state(plan, record),
        "GetRepairs": lambda parameters: _repairs(record, parameters["count"]),
    }
    return Control("netns", INTERFACE, methods)


def _state(plan: Plan, record: Record) -> Mapping[str, object]:
    found: dict[str, object] = {
        "namespace": plan.name,
        "path": path_of(plan.name),
        "set_up": bool(record.facts.is_set_up),
        "routes": [],
        "missing": ["network namespace"],
        "repaired": record.facts.repaired,
    }
    namespace = open_namespace(plan.name)
    if namespace is not None:
        scene = look(plan, namespace)
        os.close(namespace)
        found |= _scene(plan, scene)
    return found


def _scene(plan: Plan, scene: Scene) -> dict[str, object]:
    found: dict[str, object] = {"missing": scene.missing(plan)}
    if scene.host is not None:
        found["host"] = _link(scene.host, scene.host_addresses)
    if scene.inner is not None:
        index = scene.inner.index
        found["inside"] = _link(scene.inner, scene.addresses)
        found["routes"] = [str(route) for route in plan.routes if route.at(index) in scene.routes]
    return found


def _link(link: Link, addresses: frozenset[str]) -> dict[str, object]:
    return {
        "name": link.name,
        "index": link.index,
        "up": link.is_up,
        "carrier": link.has_carrier,
        "mtu": link.mtu,
        "mac": link.mac,
        "addresses": sorted(addresses),
    }


def _repairs(record: Record, count: int | None) -> Mapping[str, object]:
    facts = record.facts
    repairs = facts.repairs if count is None else facts.repairs[len(facts.repairs) - max(0, count) :]
    return {"repaired": facts.repaired, "repairs": [_repair(repair) for repair in repairs]}


def _repair(repair: Repair) -> dict[str, object]:
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(repair.time))
    shown: dict[str, object] = {"time": when, "missing": repair.missing, "did": repair.did}
    return shown | ({"problem": repair.problem} if repair.problem else {})
