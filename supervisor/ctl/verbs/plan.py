"""`plan`: the effect of applying the current definition files, key by key."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.errors import ExitCode
from supervisor.ctl.output import Terminal, print_json, standard_output, wrap
from supervisor.ctl.parsers import take_reload
from supervisor.printable import count, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STEPS = {
    "nothing": "nothing",
    "adopt": "no restart",
    "limits": "limits written",
    "reload": "reload",
    "restart": "restart",
    "rebuild": "sockets rebuilt, restart",
    "start": "start",
    "sleep": "sleep until a client comes",
    "stop": "stop",
}
COLOURS = {"restart": "33", "rebuild": "33", "start": "32", "sleep": "32", "stop": "31"}
WORTH = {"restart": "to restart", "rebuild": "to restart", "start": "to start", "sleep": "to sleep", "stop": "to stop"}
SETTINGS = "_SUPERVISOR"
INDENT = "    "


def arguments(parser: ArgumentParser) -> None:
    take_reload(parser)


def run(client: Client, args: Namespace) -> int:
    reply = client.call("Plan", reload=args.reload)
    if args.json:
        print_json(reply)
    if reply["problems"]:
        print_problems(reply["problems"], "the definitions are wrong", quiet=args.json)
        return ExitCode.FAILED
    if not args.json:
        terminal = standard_output()
        lines = [line for row in reply["services"] for line in (title(row, terminal), *key_lines(row, terminal.width))]
        notices = [part for text in reply["notices"] for part in wrap(f"notice: {printable(text)}", terminal.width)]
        print("\n".join([*lines, *setting_lines(reply["settings"], terminal.width), *notices, summary(reply)]))
    return ExitCode.FAILED if reply["services"] or reply["settings"] else ExitCode.DONE


def title(row: dict[str, Any], terminal: Terminal) -> str:
    """Return the title of a service's part: `web: restart: exec changed`."""
    step = terminal.paint(COLOURS.get(row["step"], ""), STEPS[row["step"]])
    also = ", asked to reload" if row.get("reloads") and row["step"] != "reload" else ""
    return f"{printable(row['name'])}: {step}{also}: {printable(row['reason'])}"


def key_lines(row: dict[str, Any], columns: int | None) -> list[str]:
    """Return the changes of a definition, each with its effect and its place."""
    if row["change"] == "added":
        return [f"    defined at {printable(row['file'])}:{row['line']}"] if row["file"] else []
    return [line for key in row["keys"] for line in _wrapped(f"{change(key)}  {asks(key)}  {place(key)}", columns)]


def _wrapped(text: str, columns: int | None) -> list[str]:
    """Return a change, indented; text that does not fit continues on further lines."""
    first = wrap(text, columns, len(INDENT))[0]
    rest = text[len(first) :].lstrip()
    return [INDENT + first, *(INDENT * 2 + part for part in wrap(rest, columns, 2 * len(INDENT)) if rest)]


def setting_lines(settings: list[dict[str, Any]], columns: int | None) -> list[str]:
    if not settings:
        return []
    when = {False: STEPS["adopt"], True: "at the next start of spawnd"}
    lines = (f"{change(row)}  [{when[row['deferred']]}]  {place(row)}" for row in settings)
    return [SETTINGS, *(part for line in lines for part in _wrapped(line, columns))]


def change(row: dict[str, Any]) -> str:
    return printable(f"{row['key']}: {row['old']} -> {row['new']}")


def asks(row: dict[str, Any]) -> str:
    return f"[{STEPS[row['asks']]}]"


def place(row: dict[str, Any]) -> str:
    return printable(f"{row['file']}:{row['line']}") if row["file"] else ""


def summary(reply: dict[str, Any]) -> str:
    """Return the summary: `Plan: 2 to restart, 1 to stop, 3 without either; 1 setting.`"""
    counts: dict[str, int] = {}
    for row in reply["services"]:
        what = WORTH.get(row["step"], "without either")
        counts[what] = counts.get(what, 0) + 1
    order = (*dict.fromkeys(WORTH.values()), "without either")
    parts = [f"{counts[what]} {what}" for what in order if what in counts]
    if reply["settings"]:
        parts.append(f"{len(reply['settings'])} of {SETTINGS}")
    return f"Plan: {', '.join(parts)}" if parts else f"Nothing to do: {as_defined(reply['defined'])}"


def as_defined(number: int) -> str:
    return f"{count(number, 'service')} {'is' if number == 1 else 'are'} as defined"


def print_problems(problems: list[str], consequence: str, quiet: bool = False) -> None:
    """Print all problems like `check`, and their consequence in one line on stderr."""
    if not quiet:
        print("\n".join(map(printable, problems)))
    print(f"spawnctl: {consequence}: {count(len(problems), 'problem')}", file=sys.stderr)
