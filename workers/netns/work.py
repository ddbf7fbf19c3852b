"""An errand of the worker: look, make what is missing, and say what is to be done next."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import replace
from typing import Any

from supervisor.errors import SpawnError
from supervisor.log.logger import log
from workers.netns import name
from workers.netns.build import LINK, Built, build
from workers.netns.errand import WithDescriptor
from workers.netns.errors import SetUpError
from workers.netns.plan import Plan, read_plan
from workers.netns.record import Facts, Record, Repair
from workers.netns.scene import LOOPBACK, Scene, look
from workers.netns.watch import open_watch

Watched = tuple[int, ...]  # device and inode of the namespace, indices of the interfaces


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
    """Make it so.  `is_ready`: it was so before, so what is missing has been taken away.

    `runs_script`: the setup script is asked for, `ran_script`: it has just been run, and well.
    `watched` is what the socket `watch` watches, -1: there is none yet.

    Returns whether it `did` anything and `made_link`; `script`, the path of the one
    that is to be run now, or empty, and its `script_limit` in seconds; the `status` text; and, where
    something else is to be `watched`, a socket that does so, with what was `missing` when it was
    looked at for the last time.
    Raises NetnsError, NetworkError or OSError.
    """
    plan, record = read_plan(options), Record(record_fd)
    facts = record.facts
    before = _plan_of(facts)

    def makes(kind: str) -> None:
        """It is written down before it is done: whoever comes after a `kill -9` knows whose it is, and what is due."""
        begun = record.facts if is_ready else record.facts.with_made(kind)
        record.write(replace(begun, is_set_up=False) if kind == LINK else begun)

    try:
        built = build(plan, before, watch, makes)
    except (SpawnError, OSError) as error:  # what this has made is gone again
        failed = facts.with_repair(Repair(time.time(), [], [], str(error))) if is_ready else facts
        if failed != record.facts:
            record.write(failed)
        raise
    facts = record.facts
    _tell(plan, built, is_ready)
    if is_ready and built.did and built.missing:
        facts = facts.with_repair(Repair(time.time(), built.missing, built.did))
    is_due = _is_due(plan, before, facts, built, ran_script)
    script = plan.script() if runs_script or is_due else ""
    # of one that is run once more, as somebody asked for it, and fails, what there was stays
    facts = replace(facts, options=options, is_set_up=not (script and is_due))
    if facts != record.facts:
        record.write(facts)
    watched, sock, missing = _watch(plan, watched)
    if facts.made and not script and not missing:  # this is the end of the start
        record.write(replace(facts, made=()))
    found = {
        "did": bool(built.did),
        "made_link": built.made_link,
        "script": script,
        "script_limit": plan.setup_timeout,
        "status": _status(plan, facts),
        "watched": watched,
        "missing": missing,
    }
    return WithDescriptor(found, sock.detach()) if sock is not None else found


def _plan_of(facts: Facts) -> Plan | None:
    """The plan of the worker before; none where that was of another version."""
    try:
        return read_plan(facts.options) if facts.options is not None else None
    except SpawnError:
        return None


def _is_due(plan: Plan, before: Plan | None, facts: Facts, built: Built, ran_script: bool) -> bool:
    """Whether the setup script has to be run: its work is on a link that is gone, was not finished, or is other work.

    Of a namespace of which nothing is known the link tells: whoever made it has set it up.
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
    """How the ends of the link are called, which is not always the namespace's name, and what became of them."""
    text = f"link {plan.link}, {plan.inside} inside"
    if not facts.repaired:
        return text
    last = next((repair.time for repair in reversed(facts.repairs) if not repair.problem), 0.0)
    return f"{text}; put right {facts.repaired} times, last {time.strftime('%F %T', time.localtime(last))}"


def _watch(plan: Plan, watched: Watched) -> tuple[Watched, socket.socket | None, list[str]]:
    """Watch what there is now, if it is something else than is watched already.  Raises OSError, SetUpError.

    What was taken away between the building and the watch, of which nobody would hear, comes last.
    """
    namespace = name.open_namespace(plan.name)
    if namespace is None:
        raise SetUpError(f"cannot watch {name.path_of(plan.name)}: it is gone again")
    try:
        links = _indices(look(plan, namespace))
        found = (*name.identity(namespace), *links)
        if found == watched:
            return watched, None, []
        prefixes = {int(route.to.rpartition("/")[2]) for route in plan.routes}
        sock = open_watch(namespace, links, sorted(prefixes))
        return found, sock, look(plan, namespace).missing(plan)
    finally:
        os.close(namespace)


def _indices(scene: Scene) -> list[int]:
    return [link.index for link in (scene.host, scene.inner) if link is not None] + [LOOPBACK]
