"""Completion of a command line: shells ask for candidates with `spawnctl --complete WORD...`.

The words are those between `spawnctl` and the cursor. The last one is incomplete and may be empty. Each line
of output is a candidate: a word, a tab and its meaning. Shells themselves select the candidates that match
the last word. Errors are not printed, because they would disturb the line being typed. Shells insert
candidates literally. As any program may listen on a socket and a name may contain commands, only valid names
of services are offered.
"""

from __future__ import annotations

import argparse
import os
from contextlib import suppress

from supervisor.ctl.client import Client
from supervisor.ctl.errors import SpawnctlError
from supervisor.ctl.parsers import ADDRESS, SESSION, VERB, general_parser, verb_parser
from supervisor.ctl.verbs import VERBS
from supervisor.places import default_socket
from supervisor.printable import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Candidates = Iterator[tuple[str, str]]

PATIENCE = 1.0  # seconds to wait for the names while the user waits for the candidates
REAL_TIME = 15  # real-time signals offered after RTMIN; there may be more
PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.@:+-")  # of names of files
MOST = 10_000  # names; a supervisor has fewer
FILES = "paths"  # the name of an argument that is files
SERVICES, SIGNALS = "NAME", "SIG"  # with VERB, SESSION and ADDRESS, those that have candidates


def complete(words: Sequence[str]) -> int:
    """Print the candidates."""
    try:
        for word, meaning in candidates(words):
            print(f"{word}\t{meaning}")
    except SpawnctlError:
        pass
    return 0


def candidates(words: Sequence[str]) -> Candidates:
    """Yield words and their meanings. Raises SpawnctlError."""
    *before, current = words or [""]
    general = Typed(general_parser(), before, ends_at_first=True)
    if general.awaited is not None:
        return
    if not general.given:
        yield from general.options() if current.startswith("-") else VERBS.items()
        return
    verb = general.given[0]
    if verb in VERBS:
        typed = Typed(verb_parser(verb)[1], before[general.taken :])
        typed.socket = typed.socket or general.socket
        yield from _of_verb(typed, current)


def _of_verb(typed: Typed, current: str) -> Candidates:
    if typed.awaited is not None:
        if typed.awaited.metavar == ADDRESS:
            yield from _denied(typed.socket)
        return
    if current.startswith("-") and not typed.only_arguments:
        yield from typed.options()
        return
    match typed.argument():
        case argument, given if argument.metavar == SERVICES:
            yield from _services(typed.socket, given)
            if takes_several(argument) and not given:
                yield "all", "every service"
        case argument, _ if argument.metavar == SIGNALS:
            yield from _signals()
        case argument, _ if argument.metavar == SESSION:
            yield from _sessions(typed.socket, typed.given[0])
        case argument, _ if argument.metavar == VERB:
            yield from VERBS.items()
        case argument, given if argument.choices and not given:
            for choice in argument.choices:
                yield choice, ""
        case argument, _ if argument.dest == FILES:
            yield from _files(current)


def takes_several(argument: argparse.Action) -> bool:
    return argument.nargs in ("+", "*")


def _services(path: str | None, given: Sequence[str]) -> Candidates:
    """Yield the services, without those already given."""
    from supervisor.definitions.values import is_service_name  # takes a while to import

    client = Client(path or default_socket(), PATIENCE)
    try:
        nodes = client.call("Graph").get("nodes")
    finally:
        client.close()
    for node in nodes[:MOST] if isinstance(nodes, list) else ():
        name = node.get("name") if isinstance(node, dict) and not node.get("internal") else None
        if isinstance(name, str) and is_service_name(name) and name not in given:
            state = str(node.get("state"))
            yield name, state if state.isascii() and state.isalpha() else "in an unknown state"


def _sessions(path: str | None, name: str) -> Candidates:
    """Yield the pids of the sessions of a service, with their peers."""
    client = Client(path or default_socket(), PATIENCE)
    try:
        sessions = client.call("Sessions", names=[name]).get("sessions")
    finally:
        client.close()
    for session in sessions[:MOST] if isinstance(sessions, list) else ():
        pid, peer = (session.get(key) for key in ("pid", "peer")) if isinstance(session, dict) else (None, None)
        if isinstance(pid, int) and isinstance(peer, str):
            yield str(pid), printable(peer)


def _denied(path: str | None) -> Candidates:
    """Yield the addresses that are denied, with the time that is left."""
    from ipaddress import ip_network

    client = Client(path or default_socket(), PATIENCE)
    try:
        denied = client.call("Denied").get("denied")
    finally:
        client.close()
    for row in denied if isinstance(denied, list) else ():
        address, left = (row.get(key) for key in ("address", "left_s")) if isinstance(row, dict) else (None, None)
        if isinstance(address, str):
            with suppress(ValueError):
                ip_network(address)
                yield address, "until boot" if left is None else f"for {float(left):.0f} s"
    yield "all", "every address that is denied"


def _files(current: str) -> Candidates:
    """Yield the files of a folder whose names mean nothing else to a shell."""
    folder = current.rpartition("/")[0] + "/" if "/" in current else ""
    with suppress(OSError), os.scandir(os.path.expanduser(folder) or ".") as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not set(entry.name) - PLAIN:
                is_folder = entry.is_dir()
                yield f"{folder}{entry.name}{'/' if is_folder else ''}", "directory" if is_folder else "file"


def _signals() -> Candidates:
    from signal import Signals, strsignal  # takes a while to import

    for signum in Signals:
        if signum < Signals.SIGRTMIN:
            yield signum.name.removeprefix("SIG"), strsignal(signum) or ""
    yield "RTMIN", "Real-time signal 0"
    for number in range(1, REAL_TIME + 1):
        yield f"RTMIN+{number}", f"Real-time signal {number}"


class Typed:
    """The words before the incomplete one, interpreted like the parser does.

    `given` are the positional arguments, `taken` is the number of words up to the last of them. With
    `ends_at_first`, the words after the first positional argument belong to another parser.
    """

    def __init__(self, parser: argparse.ArgumentParser, words: Sequence[str], ends_at_first: bool = False) -> None:
        self.given: list[str] = []
        self.taken = 0
        self.socket: str | None = None
        self.awaited: argparse.Action | None = None  # the option whose value is incomplete
        self.only_arguments = False
        self._actions = [action for action in parser._actions if action.help != argparse.SUPPRESS]
        self._options = {name: action for action in self._actions for name in action.option_strings}
        self._used: set[argparse.Action] = set()
        for word in words:
            if ends_at_first and self.given:
                break
            self.taken += 1
            self.awaited = self._take(word, self.awaited)

    def options(self) -> Candidates:
        """Yield the options that have not been given."""
        for action in self._actions:
            if action.option_strings and action not in self._used:
                yield max(action.option_strings, key=len), action.help or ""

    def argument(self) -> tuple[argparse.Action, list[str]] | None:
        """Return the next positional argument and its values so far; None if no more are allowed."""
        given = self.given
        for action in self._actions:
            if not action.option_strings:
                if not given or takes_several(action):
                    return action, given
                given = given[1:]
        return None

    def _take(self, word: str, awaited: argparse.Action | None) -> argparse.Action | None:
        """Process one word; return the option whose value the next word is."""
        if awaited is not None:
            self._set(awaited, word)
            return None
        if self.only_arguments or not word.startswith("-"):
            self.given.append(word)
            return None
        if word == "--":
            self.only_arguments = True
            return None
        name, equals, value = word.partition("=")
        action = self._options.get(name)
        if action is None:
            return None
        self._used.add(action)
        if action.nargs == 0:
            return None
        if equals:
            self._set(action, value)
        return None if equals else action

    def _set(self, action: argparse.Action, value: str) -> None:
        if action.dest == "socket":
            self.socket = os.path.expanduser(value)  # the shell has not expanded it
