"""Graph: the services and their dependencies."""

from __future__ import annotations

from supervisor.control.core import Core, Unit
from supervisor.control.orders import resolve
from supervisor.lifecycle.dependencies import Graph, make_graph
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall


def run(pending: PendingCall, core: Core) -> None:
    parameters = Parameters(pending.call.parameters)
    wanted = parameters.strings("names", [])
    parameters.end()
    graph = make_graph(core.manager.services(), resolve(wanted, core.manager.units) if wanted else None)
    zero = core.manager.unix_time(0.0)  # one offset for all: with two, a service could seem to start too early
    pending.reply({"nodes": [_node(core.manager.units[name], zero) for name in graph.names], "edges": _edges(graph)})


def _node(unit: Unit, zero: float) -> dict[str, object]:
    life = unit.life
    return {
        "name": unit.name,
        "state": life.state.value,
        "internal": unit.internal,
        "asked": _wall(zero, life.asked),
        "began": _wall(zero, life.began),
        "came_up": _wall(zero, life.came_up),
    }


def _wall(zero: float, at: float | None) -> float | None:
    return None if at is None else round(zero + at, 6)


def _edges(graph: Graph) -> list[dict[str, object]]:
    return [{"from": edge.name, "to": edge.other, "kind": edge.kind} for edge in graph.edges]
