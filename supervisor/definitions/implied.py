"""What a service depends on without saying so: whoever keeps the network namespaces that it or its sockets are in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from supervisor.definitions.near import hint
from supervisor.definitions.netns import service_name
from supervisor.definitions.scope import Scope
from supervisor.definitions.service import Service


def add_implied(services: dict[str, Service], scopes: dict[str, Scope]) -> None:
    """Add the dependencies.  A namespace that no file defines has to be there by itself, and nothing is added."""
    prefix = service_name("")
    kept = [name.removeprefix(prefix) for name in services if name.startswith(prefix)]
    for name, service in services.items():
        for namespace in _namespaces(service):
            keeper = service_name(namespace)
            if keeper in services and keeper != name and keeper not in services[name].depends:
                services[name] = replace(services[name], depends=(*services[name].depends, keeper))
            elif keeper not in services and (meant := hint(namespace, kept)):
                scopes[name].notice(f"no file defines netns.{namespace}{meant}", "netns")


def _namespaces(service: Service) -> Iterator[str]:
    if service.netns:
        yield service.netns
    for spec in (service.stdin, service.stdout, service.stderr, *service.fd):
        if spec.netns:
            yield spec.netns
