"""Dependencies over all files: names that exist, no cycle, nothing that contradicts itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from supervisor.definitions.near import hint
from supervisor.definitions.problems import Bad
from supervisor.definitions.scope import Scope
from supervisor.definitions.service import Service

KEYS = ("depends", "after", "conflicts")


def check_order(services: dict[str, Service], scopes: dict[str, Scope], elsewhere: Collection[str] | None) -> None:
    """Report what is wrong.

    `elsewhere` are services of files that could not be evaluated; None: nobody knows which.
    """
    for name, service in services.items():
        if service.depends or service.after or service.conflicts:
            _check_names(service, scopes[name], services, elsewhere)
    for cycle in cycles(services):
        key = "depends" if cycle[1] in services[cycle[0]].depends else "after"
        scopes[cycle[0]].bad(Bad(f"cannot be ordered: {' -> '.join(cycle)}"), key)


def _check_names(
    service: Service, scope: Scope, services: dict[str, Service], elsewhere: Collection[str] | None
) -> None:
    for key in KEYS:
        for index, other in enumerate(getattr(service, key), 1):
            if other == service.name:
                scope.bad(Bad("a service cannot name itself"), key, index)
            elif other not in services and elsewhere is not None and other not in elsewhere:
                scope.bad(Bad(f"unknown service {other!r}" + hint(other, services)), key, index)
    for other in service.conflicts:
        if other in service.depends:
            scope.bad(Bad(f"depends on {other!r} as well"), "conflicts", service.conflicts.index(other) + 1)


def cycles(services: dict[str, Service]) -> Iterator[list[str]]:
    """Cycles over `depends` and `after`, each from a service back to it; every cyclic graph has at least one."""
    done: set[str] = set()
    for start in services:
        if start in done:
            continue
        path: list[str] = [start]
        on_path = {start}
        waiting = [_before(services[start], services)]
        while waiting:
            other = next(waiting[-1], None)
            if other is None:
                waiting.pop()
                on_path.discard(path[-1])
                done.add(path.pop())
            elif other in on_path:
                yield [*path[path.index(other) :], other]
            elif other not in done:
                path.append(other)
                on_path.add(other)
                waiting.append(_before(services[other], services))


def _before(service: Service, services: dict[str, Service]) -> Iterator[str]:
    names = dict.fromkeys(service.depends + service.after)
    return (name for name in names if name in services and name != service.name)
