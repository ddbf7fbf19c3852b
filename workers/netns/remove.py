"""Removing a namespace: first the link, then the name, then what was written for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import replace

from supervisor.errors import SpawnError
from supervisor.log.logger import log
from workers.netns import name, resolver
from workers.netns.build import LINK, NAMESPACE, RESOLVER
from workers.netns.plan import Plan
from workers.netns.record import Record
from workers.netns.scene import look
from workers.network.view import View


def remove(plan: Plan, kinds: Collection[str] | None = None) -> list[str]:
    """Remove what there is of it and is its own, all or what is of these kinds; what could not be, in words."""
    problems = []
    removed = []
    for kind, step in _STEPS.items():
        if kinds is None or kind in kinds:
            try:
                step(plan)
                removed.append(kind)
            except (OSError, SpawnError) as error:
                problems.append(str(error))
    if removed and not problems:
        log.info("netns@%s: removed: %s", plan.name, "all" if kinds is None else ", ".join(removed))
    return problems


def remove_made(plan: Plan, record: Record) -> list[str]:
    """Remove what starts that have failed, or were cut off, have made."""
    made = record.facts.made
    problems = remove(plan, made)
    if made and not problems:
        record.write(replace(record.facts, made=()))
    return problems


def _remove_link(plan: Plan) -> None:
    with View() as view:
        host = view.link(plan.link)
        if host is None:
            return
        if host.alias != plan.owner and not _is_pair(plan):
            return
        view.delete_link(host.index)


def _is_pair(plan: Plan) -> bool:
    namespace = name.open_namespace(plan.name)
    if namespace is None:
        return False
    try:
        return look(plan, namespace).is_pair
    finally:
        os.close(namespace)


_STEPS: dict[str, Callable[[Plan], None]] = {
    LINK: _remove_link,
    NAMESPACE: lambda plan: name.take_name(plan.name),
    RESOLVER: lambda plan: resolver.remove(plan.name),
}
