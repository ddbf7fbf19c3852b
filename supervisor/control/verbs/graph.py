"""Graph: the services and what they need."""

from __future__ import annotations

from supervisor.control.core import Core, Unit
from supervisor.control.names import resolve
from supervisor.lifecycle.graph import Graph, make_graph
from supervisor.varlink.exchange import Exchange
from supervisor.varlink.parameters import Parameters


def run(exchange: Exchange, core: Core) -> None:
    parameters = Parameters(exchange.call.parameters)
    wanted = parameters.strings("names", [])
    parameters.end()
    graph = make_graph(core.services(), resolve(wanted, core.units) if wanted else None)
    zero = core.wall(0.0)  # once for all: two looks at two clocks differ, and one may seem to start before it could
    exchange.reply({"nodes": [_node(core.units[name], zero) for name in graph.names], "edges": _edges(graph)})


def _node(unit: Unit, zero: float) -> dict[str, object]:
    life = unit.life
    return {
        "name": unit.name,
        "state": life.state.value,
        "internal": unit.internal,
        "began": _wall(zero, life.began),
        "came_up": _wall(zero, life.came_up),
    }


def _wall(zero: float, at: float | None) -> float | None:
    return None if at is None else round(zero + at, 6)


def _edges(graph: Graph) -> list[dict[str, object]]:
    return [{"from": edge.name, "to": edge.other, "kind": edge.kind} for edge in graph.edges]
