"""`list`: a table of the services."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.errors import ExitCode
from supervisor.ctl.output import (
    GAP,
    NONE,
    Terminal,
    cpu_time,
    cut,
    duration,
    print_json,
    render,
    size,
    standard_output,
    width,
)
from supervisor.ctl.parsers import NAMES
from supervisor.printable import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TITLES = ("NAME", "STATE", "PID", "FOR", "RESTARTS", "MEMORY", "CPU", "DESCRIPTION")
ALIGNS = "<<>>>>><"
NAME, STATE = TITLES.index("NAME"), TITLES.index("STATE")
LEAST_WANTED = ("CPU", "MEMORY", "RESTARTS", "PID", "FOR")
LONGEST_REASON = 60  # columns for which other columns are left out
NARROWEST = 20  # columns of a name that are always shown
TROUBLED = ("waiting", "backoff", "failed")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=NAMES)
    parser.add_argument("-a", "--all", action="store_true", help="include built-in services")


def run(client: Client, args: Namespace) -> int:
    services = client.call("List", names=args.names)["services"]
    if not args.all and not args.names:
        services = [row for row in services if not row["internal"]]
    if args.json:
        print_json(services)
    else:
        print("\n".join(table(services, standard_output())))
    return ExitCode.DONE


def table(services: list[dict[str, Any]], terminal: Terminal) -> list[str]:
    """Return the lines. FOR is the uptime of a service, or the time in its state if it is not up.

    The last column is the description; a service that does not come up has its reason there, a service that
    is up its status text, and before that its use if it has idle_stop, or why its clients get no session.
    """

    def paint(row: int, column: int, cell: str) -> str:
        return terminal.state(services[row]["state"], cell) if column == STATE else cell

    rows = [cells(row) for row in services]
    columns = terminal.width
    if columns is None:
        return render(TITLES, ALIGNS, rows, None, paint)
    for row in rows:
        row[NAME] = cut(printable(row[NAME]), max(columns // 2, NARROWEST))
    reasons = [row[-1] for row, service in zip(rows, services, strict=True) if is_troubled(service)]
    shown = fitting(rows, reasons, columns)
    titles, aligns = [TITLES[index] for index in shown], "".join(ALIGNS[index] for index in shown)
    return render(titles, aligns, [[row[index] for index in shown] for row in rows], columns, paint)


def fitting(rows: list[list[str]], reasons: list[str], columns: int) -> list[int]:
    """Return the columns to show: those of LEAST_WANTED give way to the reasons of services that do not come up."""
    widths = [max(width(cell) for cell in (title, *column)) for title, *column in zip(TITLES, *rows, strict=True)]
    wanted = min(max(map(width, reasons), default=0), LONGEST_REASON)
    shown = list(range(len(TITLES)))
    for index in map(TITLES.index, LEAST_WANTED):
        if sum(widths[at] + len(GAP) for at in shown[:-1]) + wanted <= columns:
            break
        shown.remove(index)
    return shown


def is_troubled(row: dict[str, Any]) -> bool:
    """Whether a reason replaces the description."""
    return row["state"] in TROUBLED or bool(row.get("trouble"))  # absent in an older spawnd


def use(row: dict[str, Any]) -> str:
    """Return whether a service with idle_stop is used; absent in an older spawnd."""
    if row.get("busy"):
        return f"busy: {row['busy']}"
    return f"idle for {duration(row['idle_s'])}" if row.get("idle_s") is not None else ""


def cells(row: dict[str, Any]) -> list[str]:
    up = row["uptime_s"]
    return [
        row["name"],
        row["state"],
        NONE if row["pid"] is None else str(row["pid"]),
        duration(row["state_s"] if up is None else up),
        str(row["restarts"]),
        size(row["memory_bytes"]),
        cpu_time(row["cpu_s"]),
        remark(row),
    ]


def remark(row: dict[str, Any]) -> str:
    if row["state"] in TROUBLED:
        return str(row["reason"])
    told = row.get("trouble") or row.get("status_text") or row["description"]
    return "; ".join(filter(None, (use(row), str(told))))
