"""Answers to `spawnctl call netns@NAME`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from workers.netns.files import open_namespace, path_of
from workers.netns.observed import Observed, observe
from workers.netns.plan import Plan, read_plan
from workers.netns.record import Record, Repair
from workers.network.view import Link
from workers.runtime.control import Control, ControlSocket

INTERFACE = """
# A network namespace and the link into it.
interface io.spawnd.netns

type Link (name: string, index: int, up: bool, carrier: bool, mtu: int, mac: string, addresses: []string)
type Repair (time: string, missing: []string, did: []string, problem: ?string)

# The present state.  `set_up`: the setup has been finished.  `host` and `inside` are the ends of the link, null
# if missing; `host` lists addresses only if the definition does.  `missing` are the parts of the definition that
# do not exist.
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

# Repairs of parts that were removed by others, the latest last, at most `count`.
method GetRepairs(count: ?int) -> (repaired: int, repairs: []Repair)
"""


def serve(fd: int, options: dict[str, Any], record_fd: int) -> None:
    """Answer all clients of the listening socket `fd` until none is left."""
    plan, record = read_plan(options), Record(record_fd)
    loop = Loop(on_error=lambda error: log.error("netns@%s: unexpected error; going on", plan.name, exc_info=error))
    socket = ControlSocket(loop, fd, control(plan, record))
    loop.before_wait(lambda: loop.stop() if socket.is_idle else None)
    loop.run()


def control(plan: Plan, record: Record) -> Control:
    """Return the methods."""
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
        seen = observe(plan, namespace)
        os.close(namespace)
        found |= _observed(plan, seen)
    return found


def _observed(plan: Plan, seen: Observed) -> dict[str, object]:
    found: dict[str, object] = {"missing": seen.missing(plan) + seen.changed_settings(plan)}
    if seen.host is not None:
        found["host"] = _link(seen.host, seen.host_addresses)
    if seen.inner is not None:
        index = seen.inner.index
        found["inside"] = _link(seen.inner, seen.addresses)
        found["routes"] = [str(route) for route in plan.routes if route.at(index) in seen.routes]
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
