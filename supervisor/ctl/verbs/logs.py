"""`logs`: the last lines of a service's output and, with --follow, the later ones."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.errors import CallFailed, ExitCode, NoSuchService
from supervisor.ctl.output import print_json
from supervisor.ctl.parsers import take_name
from supervisor.printable import count, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

LINES = 20


def arguments(parser: ArgumentParser) -> None:
    take_name(parser)
    parser.add_argument(
        "-n", dest="count", metavar="N", type=line_count, default=LINES, help=f"number of lines ({LINES})"
    )
    parser.add_argument("-f", "--follow", action="store_true", help="follow the output until interrupted")


def line_count(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"not a number of lines: {text!r}")
    return int(text)


def run(client: Client, args: Namespace) -> int:
    if args.follow:
        return follow(client, args)
    reply = client.call("Logs", name=args.name, count=args.count)
    if reply["journal"] and not args.json:
        show_journal(args.name, args.count, follow=False)
    lines = list(journal_lines(args.name, args.count)) if reply["journal"] else reply["lines"]
    if args.json:
        print_json({"name": args.name, "journal": reply["journal"], "lines": lines})
        return ExitCode.DONE
    for line in lines:
        print(shown(line))
    if not lines and args.count and not reply["journal"]:
        print(f"spawnctl: {args.name} has written nothing", file=sys.stderr)
    return ExitCode.DONE


def follow(client: Client, args: Namespace) -> int:
    printer = JsonPrinter(args.name) if args.json else Printer(args.name)
    begun = False
    try:
        for reply in client.stream("Logs", name=args.name, count=args.count):
            begun = True
            if reply["journal"]:
                return follow_journal(args, printer)
            printer.print(reply)
    except NoSuchService as error:
        if not begun:
            raise
        raise NoSuchService(f"{args.name} is not defined any more") from error
    finally:
        printer.end()
    return ExitCode.DONE


def follow_journal(args: Namespace, printer: Printer) -> int:
    if not args.json:
        show_journal(args.name, args.count, follow=True)
    for line in journal_lines(args.name, args.count, follow=True):
        printer.print({"lines": [line], "lost": 0, "partial": False})
    return ExitCode.DONE


def shown(text: str) -> str:
    """Return the text unchanged, or for a terminal without control characters."""
    return printable(text.expandtabs()) if sys.stdout.isatty() else text


class Printer:
    """Prints output immediately, even incomplete lines."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._open = False  # the last line is incomplete

    def print(self, reply: dict[str, Any]) -> None:
        if reply["lost"]:
            self.end()
            lines = count(reply["lost"], "line")
            print(f"spawnctl: {lines} of {self.name} not read in time", file=sys.stderr, flush=True)
        lines = reply["lines"]
        if lines:
            print("\n".join(map(shown, lines)), end="" if reply["partial"] else "\n", flush=True)
            self._open = reply["partial"]

    def end(self) -> None:
        if self._open:
            print(flush=True)
            self._open = False


class JsonPrinter(Printer):
    """Prints one object per line: a line of output, or the number of lost lines."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._rest = ""

    def print(self, reply: dict[str, Any]) -> None:
        if reply["lost"]:
            self.end()
            print_json({"name": self.name, "lost": reply["lost"]})
        lines = list(reply["lines"])
        if lines:
            lines[0] = self._rest + lines[0]
            self._rest = lines.pop() if reply["partial"] else ""
        for line in lines:
            print_json({"name": self.name, "line": line})
        sys.stdout.flush()

    def end(self) -> None:
        if self._rest:
            print_json({"name": self.name, "line": self._rest})
            sys.stdout.flush()
            self._rest = ""


def show_journal(name: str, count: int, follow: bool) -> None:
    """Replace this process by a journalctl that prints the output. Raises CallFailed."""
    command = _command(name, count, follow)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the arguments are ours
    except OSError as error:
        raise _failed(name, error) from error


def journal_lines(name: str, count: int, follow: bool = False) -> Iterator[str]:
    """Yield the last lines of the output and, with `follow`, all later ones. Raises CallFailed."""
    from subprocess import PIPE, Popen  # takes a while to import

    command = [*_command(name, count, follow), "-q", "-o", "cat"]
    try:
        process = Popen(command, stdout=PIPE, encoding="utf-8", errors="backslashreplace")  # in any locale
    except OSError as error:
        raise _failed(name, error) from error
    with process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                yield line.removesuffix("\n")
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise CallFailed(f"the output of {name} is in the journal: journalctl ended with {process.returncode}")


def _command(name: str, count: int, follow: bool) -> list[str]:
    return ["journalctl", "-t", name, "-n", str(count), *(["-f"] if follow else [])]


def _failed(name: str, error: OSError) -> CallFailed:
    return CallFailed(f"the output of {name} is in the journal: cannot run journalctl: {error}")
