"""`status`: details of services."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.errors import ExitCode
from supervisor.ctl.output import NO_SERVICES, Terminal, cpu_time, duration, print_json, size, standard_output, wrap
from supervisor.ctl.parsers import NAMES
from supervisor.printable import count, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HANGING = 14  # columns before each fact
UP = ("running", "reloading")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{NAMES}")


def run(client: Client, args: Namespace) -> int:
    if not args.names:
        return show_list(client, args)
    services = client.call("Status", names=args.names)["services"]
    if args.json:
        print_json(services)
    elif not services:
        print(NO_SERVICES)
    else:
        terminal = standard_output()
        print("\n\n".join("\n".join(describe(row, terminal)) for row in services))
    return ExitCode.DONE if all(row["state"] in UP for row in services) else ExitCode.NOT_RUNNING


def show_list(client: Client, args: Namespace) -> int:
    """Do what `list` does, with its exit code."""
    from supervisor.ctl.verbs import list as list_verb  # needed only without names

    args.all = False
    return list_verb.run(client, args)


def describe(row: dict[str, Any], terminal: Terminal) -> list[str]:
    """Return the lines about one service, without empty facts."""
    title = f"{row['name']} - {row['description']}" if row["description"] else row["name"]
    facts = [(label, printable(str(value))) for label, value in facts_of(row) if value not in (None, "")]
    state = terminal.state(row["state"], printable(row["state"]))
    seconds = row["state_s"] if row["uptime_s"] is None else row["uptime_s"]
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - seconds))
    lines = [*wrap(printable(title), terminal.width), f"{'State':>12}: {state} for {duration(seconds)}, since {since}"]
    for label, text in facts:
        first, *more = wrap(text, terminal.width, HANGING)
        lines += [f"{label:>12}: {first}", *(" " * HANGING + part for part in more)]
    return lines


def facts_of(row: dict[str, Any]) -> list[tuple[str, object]]:
    limit = "" if row["start_limit"] is None else f" of {row['start_limit']}"
    noun = "failure" if row["failures"] == 1 and not limit else "failures in a row"
    failures = f", {row['failures']}{limit} {noun}" if row["failures"] else ""
    return [
        ("Reason", row["reason"] if row["reason"] not in (row["state"], row["waits"]) else ""),
        ("Waits", row["waits"]),
        ("Next start", None if row["next_start_s"] is None else f"in {row['next_start_s']:.1f} s"),
        ("Says", row["status_text"]),
        ("Idle", idleness(row)),
        ("PID", row["pid"]),
        ("Sessions", sessions(row)),
        ("Limit", limited(row)),
        ("Refused", refused(row)),
        ("Unserved", unserved(row)),
        ("Memory", None if row["memory_bytes"] is None else size(row["memory_bytes"])),
        ("CPU", None if row["cpu_s"] is None else cpu_time(row["cpu_s"])),
        ("Restarts", f"{row['restarts']}{failures}"),
        ("Last exit", row["last_exit"]),
        ("Last call", row.get("last_call")),  # absent in an older spawnd
        ("Disconnected", row["disconnected"]),
        ("Flushed", count(row["flushed"], "datagram") if row.get("flushed") else ""),  # absent in an older spawnd
        ("Policy", policy(row)),
        ("Depends", ", ".join(row["depends"])),
        ("After", ", ".join(row["after"])),
        ("Descriptors", row["descriptors"]),
        ("Definition", f"{row['file']}:{row['line']}" if not row["internal"] else "built in"),
    ]


def idleness(row: dict[str, Any]) -> str:
    """Return since when nobody has used a service with idle_stop, or what it is used for; absent in an older spawnd."""
    idle, look = row.get("idle_s"), row.get("next_look_s")
    use = row.get("busy") and f"no, busy: {row['busy']}"
    words = use or (idle is not None and f"for {duration(idle)}") or (look is not None and "not known yet") or ""
    return words if look is None else f"{words}; next look in {duration(look)}"


def sessions(row: dict[str, Any]) -> str:
    """Return how many sessions there are; absent in an older spawnd."""
    if row.get("sessions") is None:
        return ""
    return f"{row['sessions']}, {count(row['accepted'], 'connection')} so far"


def limited(row: dict[str, Any]) -> str:
    """Return the rule that lets no client in at present; absent in an older spawnd."""
    found = row.get("limit")
    return f"{found['rule']}: clients {'wait' if found['effect'] == 'wait' else 'are refused'}" if found else ""


def refused(row: dict[str, Any]) -> str:
    """Return how many clients each rule has refused, and the last one; absent in an older spawnd."""
    if not row.get("refused"):
        return ""
    numbers = ", ".join(f"{number} by {rule}" for rule, number in row["refused"].items())
    last = row["last_refusal"]
    if last is None:
        return numbers
    return f"{numbers}; the last one {last['peer']} by {last['rule']} at {local(last['at'])}"


def unserved(row: dict[str, Any]) -> str:
    """Return how many clients got no session because of a failure, and the last failure; absent in an older spawnd."""
    last = row.get("last_unserved")
    if last is None:
        return ""
    return f"{count(last['failures'], 'client')}, the last one at {local(last['at'])}: {last['text']}"


def local(at: str) -> str:
    """Return a time of the supervisor's in local time, to the second."""
    from datetime import datetime  # seldom needed

    return f"{datetime.fromisoformat(at).astimezone():%Y-%m-%d %H:%M:%S}"


def policy(row: dict[str, Any]) -> str:
    """Return the start and restart policy; a service without a process has neither readiness nor restarts."""
    kind = "task" if row["task"] else "service"
    if row.get("accept"):  # absent in an older spawnd, as is demand
        return f"{kind} on demand, a process for each connection, restart {row['restart']}"
    if row.get("demand"):
        kind += " on demand"
    if row.get("has_process", True):  # absent in an older spawnd
        return f"{kind}, ready on {row['ready']}, restart {row['restart']}"
    setup = f", {'done' if row['task'] else 'ready'} after its function start" if "start" in row["functions"] else ""
    return f"{kind} without a process{setup}"
