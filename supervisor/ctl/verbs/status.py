"""`status`: all about services."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace

from supervisor.ctl import exit_code
from supervisor.ctl.arguments import take_names
from supervisor.ctl.client import Client
from supervisor.ctl.output import print_json
from supervisor.ctl.quantity import cpu_time, duration, size
from supervisor.ctl.terminal import Terminal, standard_output
from supervisor.ctl.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UP = ("running", "reloading")


def arguments(parser: ArgumentParser) -> None:
    take_names(parser)


def run(client: Client, args: Namespace) -> int:
    services = client.call("Status", names=args.names)["services"]
    if args.json:
        print_json(services)
    else:
        terminal = standard_output()
        print("\n\n".join("\n".join(describe(row, terminal)) for row in services))
    return exit_code.DONE if all(row["state"] in UP for row in services) else exit_code.NOT_RUNNING


def describe(row: dict[str, Any], terminal: Terminal) -> list[str]:
    """The lines about one service; what there is nothing to say of is left out."""
    title = f"{row['name']} - {row['description']}" if row["description"] else row["name"]
    facts = [(label, printable(str(value))) for label, value in facts_of(row) if value not in (None, "")]
    state = terminal.state(row["state"], row["state"])
    seconds = row["state_s"] if row["uptime_s"] is None else row["uptime_s"]
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - seconds))
    lines = [printable(title), f"{'State':>12}: {state} for {duration(seconds)}, since {since}"]
    return lines + [f"{label:>12}: {text}" for label, text in facts]


def facts_of(row: dict[str, Any]) -> list[tuple[str, object]]:
    limit = "" if row["start_limit"] is None else f" of {row['start_limit']}"
    failures = f", {row['failures']}{limit} failures in a row" if row["failures"] else ""
    return [
        ("Reason", row["reason"] if row["reason"] not in (row["state"], row["waits"]) else ""),
        ("Waits", row["waits"]),
        ("Next start", None if row["next_start_s"] is None else f"in {row['next_start_s']:.1f} s"),
        ("Says", row["status_text"]),
        ("PID", row["pid"]),
        ("Memory", None if row["memory_bytes"] is None else size(row["memory_bytes"])),
        ("CPU", None if row["cpu_s"] is None else cpu_time(row["cpu_s"])),
        ("Restarts", f"{row['restarts']}{failures}"),
        ("Last exit", row["last_exit"]),
        ("Policy", policy(row)),
        ("Depends", ", ".join(row["depends"])),
        ("After", ", ".join(row["after"])),
        ("Descriptors", row["descriptors"]),
        ("Definition", f"{row['file']}:{row['line']}" if not row["internal"] else "built in"),
    ]


def policy(row: dict[str, Any]) -> str:
    kind = "task" if row["task"] else "service"
    return f"{kind}, ready on {row['ready']}, restart {row['restart']}"
