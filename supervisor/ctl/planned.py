"""Plans as people read them."""

from __future__ import annotations

import sys

from supervisor.ctl.terminal import Terminal
from supervisor.ctl.text import printable

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
    "stop": "stop",
}
COLOURS = {"restart": "33", "rebuild": "33", "start": "32", "stop": "31"}
WORTH = {"restart": "to restart", "rebuild": "to restart", "start": "to start", "stop": "to stop"}
SETTINGS = "_SUPERVISOR"


def title(row: dict[str, Any], terminal: Terminal) -> str:
    """`web: restart: exec changed`."""
    step = terminal.paint(COLOURS.get(row["step"], ""), STEPS[row["step"]])
    also = ", asked to reload" if row.get("reloads") and row["step"] != "reload" else ""
    return f"{row['name']}: {step}{also}: {printable(row['reason'])}"


def key_lines(row: dict[str, Any]) -> list[str]:
    """What changes in its definition, each with what that asks for and where it stands."""
    if row["change"] == "added":
        return [f"    defined at {printable(row['file'])}:{row['line']}"] if row["file"] else []
    return [f"    {change(key)}  {asks(key)}  {place(key)}" for key in row["keys"]]


def setting_lines(settings: list[dict[str, Any]]) -> list[str]:
    if not settings:
        return []
    when = {False: STEPS["adopt"], True: "at the next start of spawnd"}
    return [SETTINGS, *(f"    {change(row)}  [{when[row['deferred']]}]  {place(row)}" for row in settings)]


def change(row: dict[str, Any]) -> str:
    return printable(f"{row['key']}: {row['old']} -> {row['new']}")


def asks(row: dict[str, Any]) -> str:
    return f"[{STEPS[row['asks']]}]"


def place(row: dict[str, Any]) -> str:
    return printable(f"{row['file']}:{row['line']}") if row["file"] else ""


def summary(reply: dict[str, Any]) -> str:
    """`Plan: 2 to restart, 1 to stop, 3 without either; 1 setting.`"""
    counts: dict[str, int] = {}
    for row in reply["services"]:
        what = WORTH.get(row["step"], "without either")
        counts[what] = counts.get(what, 0) + 1
    order = (*dict.fromkeys(WORTH.values()), "without either")
    parts = [f"{counts[what]} {what}" for what in order if what in counts]
    if reply["settings"]:
        parts.append(f"{len(reply['settings'])} of {SETTINGS}")
    return f"Plan: {', '.join(parts)}" if parts else f"Nothing to do: {reply['defined']} services are as defined"


def print_problems(problems: list[str], consequence: str, quiet: bool = False) -> None:
    """All of them as `check` prints them, and in one line on stderr that it was these."""
    if not quiet:
        print("\n".join(map(printable, problems)))
    many = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    print(f"spawnctl: {consequence}: {many}", file=sys.stderr)
