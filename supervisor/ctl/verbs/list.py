"""`list`: a table of the services."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from supervisor.ctl import exit_code
from supervisor.ctl.arguments import NAMES
from supervisor.ctl.client import Client
from supervisor.ctl.output import print_json
from supervisor.ctl.quantity import NONE, cpu_time, duration, size
from supervisor.ctl.table import render
from supervisor.ctl.terminal import Terminal, standard_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TITLES = ("NAME", "STATE", "PID", "FOR", "RESTARTS", "MEMORY", "CPU", "DESCRIPTION")
ALIGNS = "<<>>>>><"
STATE = TITLES.index("STATE")
TROUBLED = ("waiting", "backoff", "failed")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=NAMES)
    parser.add_argument("-a", "--all", action="store_true", help="show what is built in, too")


def run(client: Client, args: Namespace) -> int:
    services = client.call("List", names=args.names)["services"]
    if not args.all and not args.names:
        services = [row for row in services if not row["internal"]]
    if args.json:
        print_json(services)
    else:
        print("\n".join(table(services, standard_output())))
    return exit_code.DONE


def table(services: list[dict[str, Any]], terminal: Terminal) -> list[str]:
    """The lines.  FOR is how long a service has been up or, where it is not, in its state.

    Of one that does not come up the reason is told instead of its description.
    """

    def paint(row: int, column: int, cell: str) -> str:
        return terminal.state(services[row]["state"], cell) if column == STATE else cell

    return render(TITLES, ALIGNS, [cells(row) for row in services], terminal.width, paint)


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
        row["reason"] if row["state"] in TROUBLED else row["description"],
    ]
