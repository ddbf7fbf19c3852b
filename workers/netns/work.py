"""The work of a task: observe, make missing parts, watch, and return the next step.

The watch is a netlink socket that receives changes to the namespace and to the host's end of its link:
rtnetlink(7). The socket is inside. NETLINK_LISTEN_ALL_NSID lets it receive messages of other namespaces with
an id there, and the host is given one. A classic BPF program filters out messages about other objects, and
about additions: a host may have a thousand interfaces that come and go, and a namespace a million routes,
which must not wake up this worker. A message is only a reason to observe again.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from supervisor.errors import SpawnError
from supervisor.linux import netlink
from supervisor.linux.namespaces import inside, own_namespace
from supervisor.linux.netlink import INSTRUCTION, attach_filter
from supervisor.log.logger import log
from workers.netns.build import LINK, Built, build
from workers.netns.files import identity, open_namespace, path_of
from workers.netns.forked_task import WithDescriptor
from workers.netns.observed import LOOPBACK, Observed, connected_routes, observe
from workers.netns.plan import Plan, SetUpError, read_plan
from workers.netns.record import Facts, Record, Repair
from workers.network.view import View

Watched = tuple[int, ...]  # device and inode of the namespace, indices of the interfaces
Instruction = tuple[int, int, int, int]
Network = tuple[int, int]  # the length of the prefix, and the first 4 bytes of the address as a number
GROUPS = (
    netlink.RTNLGRP_LINK,
    netlink.RTNLGRP_IPV4_IFADDR,
    netlink.RTNLGRP_IPV6_IFADDR,
    netlink.RTNLGRP_IPV4_ROUTE,
    netlink.RTNLGRP_IPV6_ROUTE,
)
# instructions of classic BPF
LD_IMM, LDX_IMM, ST, LD_W, LD_H, LD_B, LD_IND = 0x00, 0x01, 0x02, 0x20, 0x28, 0x30, 0x40
LD_MEM, TAX, JEQ, JSET, RET = 0x60, 0x07, 0x15, 0x45, 0x06
# offsets: nlmsg_type, nlmsg_flags, ifi_index (ifa_index is there as well), rtm_dst_len, the attributes of a route
TYPE, FLAGS, INDEX, PREFIX, ATTRIBUTES = 4, 6, 20, 17, 28
FIND_ATTRIBUTE = (-0x1000 + 12) & 0xFFFFFFFF  # SKF_AD_OFF + SKF_AD_NLATTR
RTA_DST, HEADER = 1, 4
RTM_NEWLINK, RTM_DELLINK, RTM_DELADDR, RTM_NEWROUTE, RTM_DELROUTE = 16, 17, 21, 24, 25
NLM_F_REPLACE = 0x100
ALL = (RET, 0, 0, 0xFFFFFFFF)
MOST_EXACT = 700  # networks that are compared; beyond that, only their prefixes are: a program has 4096 instructions


def work(
    options: dict[str, Any],
    record_fd: int,
    watched: Watched,
    watch: int,
    *,
    is_ready: bool,
    runs_script: bool,
    ran_script: bool,
) -> Any:
    """Carry out the plan. `is_ready`: that was done before, so missing parts were removed by others.

    `runs_script`: an operator has requested the setup script. `ran_script`: it has just been run with
    success. `watched` is what the socket `watch` watches; -1: there is no socket yet.

    Return whether it `did` anything and `made_link`; `script`, the path of the script to run now, or '', and its
    `script_limit` in seconds; the `status` text; what to watch, `watched`; and the parts that were `missing` at the
    last look. If other objects have to be watched, the result also has a socket that does so.
    Raises NetnsError, NetworkError or OSError.
    """
    plan, record = read_plan(options), Record(record_fd)
    before = _plan_of(record.facts)
    built = _build(plan, before, record, watch, is_ready)
    _tell(plan, built, is_ready)
    is_due = _is_due(plan, before, record.facts, built, ran_script)
    script = plan.script() if runs_script or is_due else ""
    # if a script that an operator has requested fails, the namespace stays as it was
    facts = replace(record.facts, options=options, is_set_up=not (script and is_due))
    if is_ready and built.did and built.missing:
        facts = facts.with_repair(Repair(time.time(), built.missing, built.did))
    if facts != record.facts:
        record.write(facts)
    watched, sock, missing = _watch(plan, watched)
    if facts.made and not script and not missing:  # the start is finished
        record.write(replace(facts, made=()))
    found = {"did": bool(built.did), "made_link": built.made_link, "watched": watched, "missing": missing}
    found |= {"script": script, "script_limit": plan.setup_timeout, "status": _status(plan, facts)}
    return WithDescriptor(found, sock.detach()) if sock is not None else found


def _build(plan: Plan, before: Plan | None, record: Record, watch: int, is_ready: bool) -> Built:
    """Build, recording each step before it and a failure after it. Raises the exceptions of `build`."""
    facts = record.facts

    def makes(kind: str) -> None:
        """Record a step: after a `kill -9` the next task knows our own objects and the remaining steps."""
        begun = record.facts if is_ready else record.facts.with_made(kind)
        record.write(replace(begun, is_set_up=False) if kind == LINK else begun)

    try:
        return build(plan, before, watch, makes)
    except (SpawnError, OSError) as error:  # everything that this run has made is gone again
        failed = facts.with_repair(Repair(time.time(), [], [], str(error))) if is_ready else facts
        if failed != record.facts:
            record.write(failed)
        raise


def _plan_of(facts: Facts) -> Plan | None:
    """Return the plan of the previous worker; None if that was of another version."""
    try:
        return read_plan(facts.options) if facts.options is not None else None
    except SpawnError:
        return None


def _is_due(plan: Plan, before: Plan | None, facts: Facts, built: Built, ran_script: bool) -> bool:
    """Whether the setup script has to run: its link is gone, it did not finish, or it has changed.

    For a namespace without known facts the link decides: its maker has set it up.
    """
    if built.made_link:
        return True
    other = before is not None and before.setup != plan.setup
    return not ran_script and (facts.is_set_up is False or other)


def _tell(plan: Plan, built: Built, is_ready: bool) -> None:
    if not built.did:
        return
    label, did = f"netns@{plan.name}", ", ".join(built.did)
    if is_ready and built.missing:
        log.warning("%s: missing: %s; put right: %s", label, ", ".join(built.missing), did)
    else:
        log.info("%s: made: %s", label, did)


def _status(plan: Plan, facts: Facts) -> str:
    """Return the status text: the names of the link's ends, and the number of repairs."""
    text = f"link {plan.link}, {plan.inside} inside"
    if not facts.repaired:
        return text
    last = next((repair.time for repair in reversed(facts.repairs) if not repair.problem), 0.0)
    return f"{text}; put right {facts.repaired} times, last {time.strftime('%F %T', time.localtime(last))}"


def _watch(plan: Plan, watched: Watched) -> tuple[Watched, socket.socket | None, list[str]]:
    """Watch namespace and link, unless they are watched already. Raises OSError, SetUpError.

    The last result has the parts that were removed before the watch began.
    """
    namespace = open_namespace(plan.name)
    if namespace is None:
        raise SetUpError(f"cannot watch {path_of(plan.name)}: it is gone again")
    try:
        links = _indices(observe(plan, namespace))
        found = (*identity(namespace), *links)
        if found == watched:
            return watched, None, []
        networks = {route.to for route in connected_routes((*plan.addresses, *plan.host_addresses))}
        networks |= {route.to for route in plan.routes}
        sock = open_watch(namespace, links, networks)
        return found, sock, observe(plan, namespace).missing(plan)
    finally:
        os.close(namespace)


def _indices(seen: Observed) -> list[int]:
    return [link.index for link in (seen.host, seen.inner) if link is not None] + [LOOPBACK]


# the watch


def open_watch(namespace: int, links: Iterable[int], networks: Iterable[str]) -> socket.socket:
    """Open a non-blocking socket that is readable after a change that passes the filter.

    `namespace` is a descriptor, `links` are indices of interfaces, `networks` those of routes. Raises OSError.
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
    attach_filter(sock.fileno(), watch_program(links, map(network_of, networks)))
    sock.setsockopt(netlink.SOL_NETLINK, netlink.NETLINK_LISTEN_ALL_NSID, 1)
    for group in GROUPS:
        sock.setsockopt(netlink.SOL_NETLINK, netlink.NETLINK_ADD_MEMBERSHIP, group)
    return sock


def network_of(to: str) -> Network:
    """Return the part of `NETWORK/PREFIX` that the filter compares."""
    address, _, prefix = to.partition("/")
    packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    return int(prefix), int.from_bytes(packed[:4], "big")


def watch_program(links: Iterable[int], networks: Iterable[Network]) -> bytes:
    """Return a program that passes changes to these interfaces and addresses, and removed routes to these networks."""
    by_index = _any_of(LD_W, INDEX, [_word(link) for link in links])
    replaced = [(LD_H, 0, 0, FLAGS), (JSET, 1, 0, _short(NLM_F_REPLACE)), (RET, 0, 0, 0)]
    code = [
        (LD_H, 0, 0, TYPE),
        (JEQ, 5, 0, _short(RTM_NEWLINK)),
        (JEQ, 4, 0, _short(RTM_DELLINK)),
        (JEQ, 3, 0, _short(RTM_DELADDR)),
        (JEQ, 2 + len(by_index), 0, _short(RTM_NEWROUTE)),
        (JEQ, 1 + len(by_index) + len(replaced), 0, _short(RTM_DELROUTE)),
        (RET, 0, 0, 0),
        *by_index,
        *replaced,
        *_to_any_of(sorted(set(networks))),
    ]
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in code)


def _to_any_of(networks: list[Network]) -> list[Instruction]:
    """Return code that passes a route to one of the networks."""
    if len(networks) > MOST_EXACT:
        return _any_of(LD_B, PREFIX, sorted({prefix for prefix, _ in networks}))
    code = [
        (LDX_IMM, 0, 0, RTA_DST),
        (LD_IMM, 0, 0, ATTRIBUTES),
        (LD_W, 0, 0, FIND_ATTRIBUTE),  # its offset, 0 for a default route, which has none
        (JEQ, 2, 0, 0),
        (TAX, 0, 0, 0),
        (LD_IND, 0, 0, HEADER),
        (ST, 0, 0, 0),
    ]
    for prefix, word in networks:
        code += [(LD_B, 0, 0, PREFIX), (JEQ, 0, 3, prefix), (LD_MEM, 0, 0, 0), (JEQ, 0, 1, word), ALL]
    return [*code, (RET, 0, 0, 0)]


def _any_of(load: int, offset: int, values: list[int]) -> list[Instruction]:
    """Return code that passes messages with one of the values at this offset."""
    jumps = [(JEQ, len(values) - position, 0, value) for position, value in enumerate(values)]
    return [(load, 0, 0, offset), *jumps, (RET, 0, 0, 0), ALL]


def _short(value: int) -> int:
    """Return a number in the host's byte order as the program loads it, in the network's byte order."""
    return int.from_bytes(struct.pack("=H", value), "big")


def _word(value: int) -> int:
    return int.from_bytes(struct.pack("=I", value), "big")
