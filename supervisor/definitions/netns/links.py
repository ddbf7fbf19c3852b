"""No two network namespaces can have links of one name on the host."""

from __future__ import annotations

from supervisor.definitions.netns import service_name
from supervisor.definitions.problems import Bad, place
from supervisor.definitions.scope import Scope
from supervisor.definitions.service import Service


def check_links(services: dict[str, Service], scopes: dict[str, Scope]) -> None:
    """Report every namespace whose link has the name of that of an earlier one."""
    links: dict[str, str] = {}
    for name, service in services.items():
        if not name.startswith(service_name("")) or "link" not in service.options:
            continue
        link = service.options["link"]
        other = links.setdefault(link, name)
        if other != name:
            there = place(scopes[other].file, scopes[other].line)
            scopes[name].bad(Bad(f"{link!r} is the link of {other} at {there} as well"), "link")
