"""`graph`: dependencies as a tree, in start order, with start times, for Graphviz, or as a picture."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.errors import ExitCode, SpawnctlError, UsageError
from supervisor.ctl.graph import Span, Times, Tree, dot
from supervisor.ctl.output import print_json, render, standard_output
from supervisor.ctl.parsers import NAMES
from supervisor.printable import count, printable, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

CRITICAL = "*"


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{NAMES}; shown with dependencies and dependants")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--order", action="store_true", help="print the start order: services on a line start together")
    form.add_argument("--times", action="store_true", help="print when each service was started and first ready")
    form.add_argument("--dot", action="store_true", help="print in the format of Graphviz")
    parser.add_argument("--plot", metavar="FILE.svg", help="write a picture of the times to a file")
    parser.add_argument("--after", action="store_true", help="include the order that is given by after alone")


def run(client: Client, args: Namespace) -> int:
    if args.json and args.dot:
        raise UsageError("--dot and --json exclude each other")
    reply = client.call("Graph", names=args.names)
    nodes = [node for node in reply["nodes"] if args.names or not node["internal"]]
    names = [node["name"] for node in nodes]
    edges = [(edge["from"], edge["to"], edge["kind"]) for edge in reply["edges"]]
    pairs = [(name, other) for name, other, _kind in edges]
    if args.plot is not None:
        write_plot(args.plot, Times(nodes, pairs, args.names))
    if args.order:
        show_order(Tree(names, pairs), nodes, args.json)
    elif args.times:
        show_times(Times(nodes, pairs, args.names), args.json)
    elif args.json:
        print_json({"nodes": nodes, "edges": reply["edges"]})
    elif args.dot:
        print("\n".join(dot(names, edges)))
    elif args.plot is None:
        show_tree(Tree(names, ((n, other) for n, other, kind in edges if args.after or kind == "depends")), nodes)
    return ExitCode.DONE


def show_order(tree: Tree, nodes: list[dict[str, Any]], as_json: bool) -> None:
    levels = tree.levels()
    if as_json:
        print_json(levels)
        return
    paint = painter(nodes)
    for level in levels:
        print(" ".join(map(paint, level)))


def show_tree(tree: Tree, nodes: list[dict[str, Any]]) -> None:
    for line in tree.lines(painter(nodes)):
        print(line)


def painter(nodes: Iterable[dict[str, Any]]) -> Callable[[str], str]:
    """Return a function that paints a name in the colour of its state."""
    terminal = standard_output()
    states = {node["name"]: node["state"] for node in nodes}
    return lambda name: terminal.state(states[name], printable(name))


def show_times(times: Times, as_json: bool) -> None:
    if as_json:
        print_json([time_record(span, times.zero) for span in times.spans])
        return
    titles = ("", "STARTED", "READY", "TOOK", "NAME")
    rows = [
        (CRITICAL if span.critical else "", *map(seconds, (span.started, span.ready, span.took)), span.name)
        for span in times.spans
    ]
    print("\n".join(render(titles, "<>>><", rows, standard_output().width)))


def time_record(span: Span, zero: float) -> dict[str, object]:
    """Return a JSON record; `asked_s`, `started_s` and `ready_s` count from `since`, the first start's Unix time."""
    return {
        "name": span.name,
        "state": span.state,
        "since": zero,
        "asked_s": round(span.asked, 6),
        "started_s": round(span.started, 6),
        "ready_s": None if span.ready is None else round(span.ready, 6),
        "took_s": None if span.took is None else round(span.took, 6),
        "critical": span.critical,
    }


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}s"


def write_plot(path: str, times: Times) -> None:
    from supervisor.ctl.graph import plot  # rarely needed

    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(times.zero))
    title = f"Start of {count(len(times.spans), 'service')}, from {since} on; in red what the last one waited for"
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in plot(times.spans, title, times.edges))
    except OSError as error:
        raise SpawnctlError(f"cannot write {quoted(path)}: {error.strerror}") from error
