"""Dependencies over all files: those implied by namespaces, unknown names, cycles, contradictions."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from supervisor.definitions.checking import Checking
from supervisor.definitions.netns import service_name
from supervisor.definitions.problems import did_you_mean
from supervisor.definitions.service import Service

KEYS = ("depends", "after", "conflicts")


def check_order(
    services: dict[str, Service], checkings: dict[str, Checking], elsewhere: Collection[str] | None
) -> None:
    """Report unknown names, cycles and contradictions.

    `elsewhere` are services of files that could not be evaluated; None if they are unknown.
    """
    for name, service in services.items():
        if service.depends or service.after or service.conflicts:
            _check_names(service, checkings[name], services, elsewhere)
    for cycle in cycles(services):
        key = "depends" if cycle[1] in services[cycle[0]].depends else "after"
        checkings[cycle[0]].problem(f"cannot be ordered: {' -> '.join(cycle)}", key)


def _check_names(
    service: Service, checking: Checking, services: dict[str, Service], elsewhere: Collection[str] | None
) -> None:
    for key in KEYS:
        for index, other in enumerate(getattr(service, key), 1):
            if other == service.name:
                checking.problem("a service cannot name itself", key, index)
            elif other not in services and elsewhere is not None and other not in elsewhere:
                from supervisor.definitions.synonyms import service as of_systemd  # only an error needs it

                meant = of_systemd(other, services) or did_you_mean(other, services)
                checking.problem(f"unknown service {other!r}{meant}", key, index)
    for other in service.conflicts:
        if other in service.depends:
            checking.problem(f"depends on {other!r} as well", "conflicts", service.conflicts.index(other) + 1)


def cycles(services: dict[str, Service]) -> Iterator[list[str]]:
    """Yield cycles over `depends` and `after`, each from a service back to it; every cyclic graph has at least one."""
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


def add_implied_dependencies(services: dict[str, Service], checkings: dict[str, Checking]) -> None:
    """Make each service depend on the services that keep its network namespace and those of its sockets.

    A namespace that no file defines has to exist already, and nothing is added for it.
    """
    prefix = service_name("")
    kept = [name.removeprefix(prefix) for name in services if name.startswith(prefix)]
    for name, service in services.items():
        for namespace in namespaces(service):
            keeper = service_name(namespace)
            if keeper in services and keeper != name and keeper not in services[name].depends:
                services[name] = replace(services[name], depends=(*services[name].depends, keeper))
            elif keeper not in services and (meant := did_you_mean(namespace, kept)):
                checkings[name].notice(f"no file defines netns.{namespace}{meant}", "netns")


def namespaces(service: Service) -> Iterator[str]:
    """Yield the network namespaces of a service and of its sockets."""
    if service.netns:
        yield service.netns
    for spec in (service.stdin, service.stdout, service.stderr, *service.fd):
        if spec.netns:
            yield spec.netns
