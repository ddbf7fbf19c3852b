"""`accounting`: resource usage of released cgroups, from the reaper or its database."""

from __future__ import annotations

import re
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from datetime import datetime

from supervisor.ctl.client import Client
from supervisor.ctl.errors import CallFailed, ExitCode, NoSuchService, UsageError, definition
from supervisor.ctl.output import NONE, Terminal, cpu_time, print_json, render, size, standard_output

_AGO = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhdw])", re.A)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SERVICE = "reaper"
TOP, MOST = 20, 1000
PATIENCE = 55.0  # seconds: sums over many hosts take a while, and a worker closes a connection after 60
SORTS = {"cpu": "cpu_usage_usec", "memory": "memory_peak", "procs": "pids_peak", "forks": "pids_forks",
         "oom": "memory_events_oom", "cgroups": "cgroups"}  # fmt: skip
TITLES = ("NAME", "CGROUPS", "CPU", "USER", "SYSTEM", "MEMORY", "PROCS", "FORKS", "OOM")
ALIGNS = "<>>>>>>>>"
NO_DATABASE = "io.spawnd.reaper.NoDatabase"

FIELDS = (
    "name", "cgroups", "cpu_total", "cpu_user", "cpu_system", "memory_peak", "memory_events_high", "memory_events_max",
    "memory_events_oom", "pids_peak", "pids_forks", "pids_events_max", "first", "last",
)  # fmt: skip


def moment(text: str) -> float:
    """Convert `24h` (ago), `2026-11-21` or `2026-11-21T22:40` (local time) to seconds since 1970.

    A date means the beginning of the day. Raises ArgumentTypeError.
    """
    ago = _AGO.fullmatch(text)
    if ago:
        return time.time() - float(ago[1]) * _SECONDS[ago[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise ArgumentTypeError(f"neither how long ago (24h, 7d) nor a time (2026-11-21T22:40): {text!r}") from error


def arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("path", metavar="PATH", type=utf8, nargs="?", default="", help="only cgroups at and below this path")
    add("--by", metavar="WHAT", type=grouping, help="group by scope, host, path or xattr:NAME (scope; with PATH, path)")
    add("--depth", metavar="N", type=whole, help="with --by path: how many names below PATH count (1)")
    add("--where", metavar="NAME=VALUE", type=pair, action="append", default=[], help="only with this attribute")
    add("--since", metavar="TIME", type=moment, help="only cgroups that ended since: 24h, 2026-11-21, 2026-11-21T22:40")
    add("--until", metavar="TIME", type=moment, help="only cgroups that ended before")
    add("--sort", metavar="WHAT", choices=SORTS, default="cpu", help=f"sort by {', '.join(SORTS)} (cpu)")
    add("--top", metavar="N", type=whole, default=TOP, help=f"number of lines ({TOP}, at most {MOST})")
    add("--csv", action="store_true", help="print CSV")
    add("--service", metavar="SERVICE", default=SERVICE, help=f"service of the reaper ({SERVICE})")
    add("--database", metavar="DATABASE", help="ask sqlite:PATH or postgresql:CONNINFO instead of the reaper")


def utf8(text: str) -> str:
    if text.isprintable() or not any("\ud800" <= char <= "\udfff" for char in text):
        return text
    shown = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    raise ArgumentTypeError(f"not UTF-8; the accounting has it as '{shown}'")


def whole(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise ArgumentTypeError(f"not a number from 1 to {MOST}: {text!r}")
    return int(text)


def grouping(text: str) -> str:
    utf8(text)
    if text not in ("scope", "host", "path") and not (text.startswith("xattr:") and len(text) > len("xattr:")):
        raise ArgumentTypeError(f"neither scope, host, path nor xattr:NAME: {text!r}")
    return text


def pair(text: str) -> tuple[str, str]:
    name, equals, value = utf8(text).partition("=")
    if not name or not equals:
        raise ArgumentTypeError(f"not NAME=VALUE: {text!r}")
    return name, value


def run(client: Client, args: Namespace) -> int:
    if args.csv and args.json:
        raise UsageError("--csv and --json exclude each other")
    parameters = query(args)
    reply = ask_database(args.database, parameters) if args.database else ask_reaper(client, args.service, parameters)
    if args.json:
        print_json(reply)
        return ExitCode.DONE
    if args.csv:
        print_csv(reply["groups"])
    else:
        print("\n".join(table(reply, standard_output())))
    if not reply["all"]["cgroups"]:
        print(f"spawnctl: {nothing(args)}", file=sys.stderr)
    return ExitCode.DONE


def nothing(args: Namespace) -> str:
    """Return the message for a query that matched no cgroup."""
    narrowed = args.where or args.since is not None or args.until is not None
    where = f" at or below {args.path!r}" if args.path else ""
    hint = "it is a path of /proc/PID/cgroup, like /system.slice/x.scope"
    if narrowed:
        hint = "--where, --since or --until may leave out what there is"
    return f"no cgroup{where} in the accounting: {hint}" if args.path or narrowed else "the accounting is empty"


def query(args: Namespace) -> dict[str, Any]:
    """Return the parameters of the reaper's method."""
    by, _, xattr = (args.by or ("path" if args.path else "scope")).partition(":")
    if args.depth is not None and by != "path":
        raise UsageError("--depth is for --by path, or for a PATH without --by")
    return {
        "by": by,
        "path": args.path,
        "depth": args.depth or 1,
        "xattr": xattr or None,
        "where": dict(args.where),
        "since": args.since,
        "until": args.until,
        "sort": SORTS[args.sort],
        "top": args.top,
    }


def ask_reaper(client: Client, service: str, parameters: dict[str, Any]) -> dict[str, Any]:
    call = {"name": service, "method": "io.spawnd.reaper.Totals", "parameters": parameters, "timeout": PATIENCE}
    try:
        reply: dict[str, Any] = client.call("Call", **call)["reply"]
    except NoSuchService as error:
        if service != SERVICE:
            raise
        elsewhere = "--service NAME asks a reaper of another name, --database DATABASE a database itself"
        raise NoSuchService(f"there is no reaper: {definition(SERVICE)}; {elsewhere}") from error
    except CallFailed as error:
        if error.reply and error.reply["error"] == NO_DATABASE:
            raise CallFailed(f"{service} keeps no accounting: its options have no database") from error
        raise
    return reply


def ask_database(address: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Query the database in this process, in place of the reaper. Raises CallFailed."""
    from workers.reaper.accounting.database import ask  # imports database drivers
    from workers.reaper.options import ReaperError

    try:
        return ask(address, parameters)
    except ReaperError as error:
        raise CallFailed(str(error)) from error


def table(reply: dict[str, Any], terminal: Terminal) -> list[str]:
    rows = [cells(group, NONE if group["name"] is None else group["name"]) for group in reply["groups"]]
    return render(TITLES, ALIGNS, [*rows, cells(reply["all"], "TOTAL")], terminal.width)


def cells(total: dict[str, Any], name: str) -> list[str]:
    return [
        name,
        str(total["cgroups"]),
        cpu_time(total["cpu_total"]),
        cpu_time(total["cpu_user"]),
        cpu_time(total["cpu_system"]),
        size(total["memory_peak"]),
        *(NONE if total[key] is None else str(total[key]) for key in ("pids_peak", "pids_forks", "memory_events_oom")),
    ]


def print_csv(groups: list[dict[str, Any]]) -> None:
    """Print the titles, and a line for each group."""
    import csv  # takes a while to import

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(FIELDS)
    writer.writerows([group[field] for field in FIELDS] for group in groups)
