"""The wait until an order is carried out: its time limit, and reports for the operator meanwhile."""

from __future__ import annotations

import sys
import time

from supervisor.ctl.client import Client
from supervisor.ctl.errors import SpawnctlError, TimedOut
from supervisor.ctl.output import NO_SERVICES, print_results, standard_output, wrap
from supervisor.printable import count, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence
    from typing import Any

EVERY = 5.0  # seconds between two lines about the wait
PATIENCE = 1.0  # seconds for a query about the wait, whose answer is optional
GOING_UP = ("waiting", "starting", "stopping")  # states of services for which a start waits
GOING_DOWN = ("stopping",)


def order(
    client: Client, args: Namespace, method: str, /, pending: Sequence[str] = (), **parameters: object
) -> dict[str, Any]:
    """Call a method that answers once its order is carried out; return the reply. Raises SpawnctlError.

    `--timeout` ends the wait with TimedOut, but not the order. `pending` are the states of services that are
    still waited for; on a terminal, `why` is asked about such a service every few seconds.
    """
    begun = time.monotonic()
    names = parameters.get("names")
    if not isinstance(names, list) or parameters.get("cascade"):
        names = []  # any service may take part
    look = Look(client.path, names, pending)
    every = EVERY if pending and is_watched(args) else None
    client.begin(method, **parameters)
    while not client.has_reply(pause(begun, args.timeout, every)):
        if args.timeout is not None and time.monotonic() - begun >= args.timeout:
            raise TimedOut(method.lower(), args.timeout, look.answer() or client.silence())
        if every is not None and (answer := look.answer()):
            print("\n".join(wrap(f"waiting: {answer}", standard_output().width)), file=sys.stderr, flush=True)
    return client.finish(method)


def order_and_print(
    client: Client,
    args: Namespace,
    method: str,
    /,
    pending: Sequence[str] = (),
    nothing: str = NO_SERVICES,
    **more: object,
) -> int:
    """Give an order for the services in `args`; print each result, or `nothing`; return the exit code."""
    reply = order(client, args, method, pending, names=args.names, no_wait=args.no_wait, **more)
    return print_results(reply["results"], args.json, args.quiet, nothing)


def is_watched(args: Namespace) -> bool:
    """Whether a person at a terminal wants more than the result."""
    if args.json or getattr(args, "quiet", False):
        return False
    return sys.stdout.isatty() and sys.stderr.isatty()


def pause(begun: float, timeout: float | None, every: float | None) -> float | None:
    """Return the seconds until the next action other than the reply, or None if there is none."""
    left = None if timeout is None else max(begun + timeout - time.monotonic(), 0.0)
    return min((seconds for seconds in (left, every) if seconds is not None), default=None)


class Look:
    """Queries, over connections of their own, about what delays the services of an order."""

    def __init__(self, path: str, names: list[str], pending: Sequence[str]) -> None:
        self._path = path
        self._names = names
        self._pending = pending

    def answer(self) -> str:
        """Return what `why` says about the first service that is not yet ready; '' if nothing is known."""
        client = Client(self._path, PATIENCE)
        try:
            return self._ask(client) if self._pending else ""
        except (SpawnctlError, LookupError, TypeError):  # the supervisor is busy, or another program answers
            return ""
        finally:
            client.close()

    def _ask(self, client: Client) -> str:
        rows = client.call("List", names=self._names)["services"]
        names = [row["name"] for row in rows if row["state"] in self._pending]
        if not names:
            return ""
        reply = client.call("Why", name=names[0])
        if reply["chain"][0]["state"] not in self._pending:  # it has come up meanwhile
            return ""
        others = f" (and {count(len(names) - 1, 'other service')})" if len(names) > 1 else ""
        return printable(f"{reply['answer']}{others}")
