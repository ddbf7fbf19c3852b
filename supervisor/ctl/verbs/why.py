"""`why`: the reason why services are not running."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.errors import CallFailed, ExitCode
from supervisor.ctl.output import (
    NARROWEST,
    NO_SERVICES,
    NONE,
    Terminal,
    duration,
    print_json,
    standard_output,
    width,
    wrap,
)
from supervisor.ctl.parsers import take_names
from supervisor.ctl.verbs.logs import journal_lines
from supervisor.printable import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LINES = 5
ENXIO = "No such device or address"
STREAMS = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/self/fd/")
INDENT = "  "
DEEP = INDENT * 2


RUNNING = "running"


def arguments(parser: ArgumentParser) -> None:
    take_names(parser)


def run(client: Client, args: Namespace) -> int:
    """Print one answer after the other; each is a separate call, because the chains of many services are long."""
    names = [row["name"] for row in client.call("List", names=args.names)["services"]]
    shown: set[str] = set()  # services whose last lines are printed already
    terminal = standard_output()
    for number, name in enumerate(names):
        reply = client.call("Why", name=name)
        root = reply["root"]
        if root in shown or (len(names) > 1 and reply["kind"] == RUNNING):
            reply |= {"journal": False, "lines": []}
        shown.add(root)
        add_journal(reply)
        if args.json:
            print_json(reply)
        else:
            print("\n".join(["", *explain(reply, terminal)] if number else explain(reply, terminal)))
    if not names and not args.json:
        print(NO_SERVICES)
    return ExitCode.DONE


def add_journal(reply: dict[str, Any]) -> None:
    """Add to an answer the root's last lines in the journal, if its output goes there."""
    if not reply["journal"]:
        return
    try:
        reply["lines"] = list(journal_lines(reply["root"], LINES))
    except CallFailed as error:  # the answer itself is complete
        print(f"spawnctl: {error}", file=sys.stderr)
    if advice := of_sockets(reply["root"], reply["lines"]):
        reply["hint"] = "; ".join(filter(None, (advice, reply["hint"])))


def of_sockets(name: str, lines: list[str]) -> str:
    """Return the remedy for a program that could not open its journal stream by a path; '' for other output."""
    if not any(ENXIO in line and any(path in line for path in STREAMS) for line in lines):
        return ""
    return (
        "a stream of the journal is a socket, which cannot be opened as /dev/stdout or /dev/stderr: have the program "
        f'write to its stderr or to syslog, or give it a file: `stderr = file("/var/log/{name}.log", "a")`'
    )


def explain(reply: dict[str, Any], terminal: Terminal) -> list[str]:
    """Return the answer, the chain that leads to it, the remedy, and the last lines of the root."""
    columns = terminal.width
    lines = wrap(printable(reply["answer"]), columns)
    if len(reply["chain"]) > 1:
        lines += ["", *chain(reply["chain"], terminal)]
    if reply["hint"]:
        lines += ["", *wrap(f"To do: {printable(reply['hint'])}", columns)]
    if reply["lines"]:
        lines += ["", f"The last lines of {printable(reply['root'])}:"]
        for line in reply["lines"]:
            lines += [INDENT + part for part in wrap(printable(line.expandtabs()), columns, len(INDENT))]
    return lines


def chain(links: list[dict[str, Any]], terminal: Terminal) -> list[str]:
    """Return each service with its state, its time in the state, and what it waits for."""
    cells = [(printable(link["name"]), printable(link["state"] or NONE), duration(link["state_s"])) for link in links]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    lines = []
    for link, (name, state, time) in zip(links, cells, strict=True):
        shown = terminal.state(state, state.ljust(widths[1]))
        text = printable(link["text"] or "it is not defined")
        begin = f"{INDENT}{name.ljust(widths[0])}  {shown}  {time.rjust(widths[2])}  "
        taken = len(INDENT) + sum(widths) + 6
        if terminal.width is not None and terminal.width - taken < NARROWEST:
            lines += [begin.rstrip(), *(DEEP + part for part in wrap(text, terminal.width, len(DEEP)))]
        else:
            first, *more = wrap(text, terminal.width, taken)
            lines += [begin + first, *(" " * taken + part for part in more)]
    return lines
