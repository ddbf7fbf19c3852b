"""Graph: the services and what they need."""

from __future__ import annotations

from supervisor.control.core import Core
from supervisor.control.names import resolve
from supervisor.lifecycle.graph import Graph, make_graph
from supervisor.varlink.exchange import Exchange
from supervisor.varlink.parameters import Parameters


def run(exchange: Exchange, core: Core) -> None:
    parameters = Parameters(exchange.call.parameters)
    wanted = parameters.strings("names", [])
    parameters.end()
    graph = make_graph(core.services(), resolve(wanted, core.units) if wanted else None)
    exchange.reply({"nodes": [_node(core, name) for name in graph.names], "edges": _edges(graph)})


def _node(core: Core, name: str) -> dict[str, object]:
    unit = core.units[name]
    life = unit.life
    return {
        "name": name,
        "state": life.state.value,
        "internal": unit.internal,
        "began": _wall(core, life.began),
        "came_up": _wall(core, life.came_up),
    }


def _wall(core: Core, at: float | None) -> float | None:
    return None if at is None else round(core.wall(at), 6)


def _edges(graph: Graph) -> list[dict[str, object]]:
    return [{"from": edge.name, "to": edge.other, "kind": edge.kind} for edge in graph.edges]
