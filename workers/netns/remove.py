"""Removing a namespace: first the link, then the name, then what was written for it."""

from __future__ import annotations

import os
from collections.abc import Callable

from supervisor.errors import SpawnError
from supervisor.log.logger import log
from workers.netns import name, resolver
from workers.netns.plan import Plan
from workers.netns.scene import look
from workers.network.view import View


def remove(plan: Plan, *, link: bool, namespace: bool) -> list[str]:
    """Remove what there is of it and is its own; what could not be, in words."""
    steps: list[tuple[bool, Callable[[Plan], None]]] = [(link, _remove_link), (namespace, _remove_namespace)]
    problems = []
    for wanted, step in steps:
        if wanted:
            try:
                step(plan)
            except (OSError, SpawnError) as error:
                problems.append(str(error))
    if not problems:
        log.info("netns@%s: removed", plan.name)
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


def _remove_namespace(plan: Plan) -> None:
    name.take_name(plan.name)
    if plan.dns is not None:
        resolver.remove(plan.name)
