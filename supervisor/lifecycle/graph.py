"""What needs what, as nodes and edges.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from supervisor.definitions.service import Service

Kind = Literal["depends", "after"]


@dataclass(frozen=True, slots=True)
class Edge:
    """`name` needs `other` (`depends`), or comes after it where both start (`after`)."""

    name: str
    other: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Graph:
    """`names` in order of definition; each edge is between two of them."""

    names: tuple[str, ...]
    edges: tuple[Edge, ...]


def make_graph(services: Mapping[str, Service], wanted: Iterable[str] | None = None) -> Graph:
    """All services or, with `wanted`, these with what they need and what needs them.

    Two that are joined by both kinds have one edge, `depends`.
    """
    kept = set(services) if wanted is None else _joined(services, list(wanted)) & services.keys()
    edges = (edge for name in services if name in kept for edge in _edges(services[name]) if edge.other in kept)
    return Graph(tuple(name for name in services if name in kept), tuple(edges))


def _edges(service: Service) -> Iterator[Edge]:
    for other in service.depends:
        yield Edge(service.name, other, "depends")
    for other in service.after:
        if other not in service.depends:
            yield Edge(service.name, other, "after")


def _joined(services: Mapping[str, Service], wanted: list[str]) -> set[str]:
    needs = {name: service.depends for name, service in services.items()}
    needed_by: dict[str, list[str]] = {}
    for name, others in needs.items():
        for other in others:
            needed_by.setdefault(other, []).append(name)
    return _reached(wanted, needs) | _reached(wanted, needed_by)


def _reached(wanted: list[str], steps: Mapping[str, Iterable[str]]) -> set[str]:
    """All that one comes to from some names by any number of steps, these included."""
    found: set[str] = set()
    todo = list(wanted)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo.extend(steps.get(name, ()))
    return found
