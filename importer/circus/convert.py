"""`spawnctl import circus`: a definition for each process of a watcher."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

from importer.circus.files import Sources, expand, variables
from importer.circus.watcher import Watcher, keys
from importer.ini import Section
from importer.ledger import Ledger
from importer.programs import Names, Program, convert_each, put_in_order, written
from importer.result import Definition, OutputFile, Result, SourceError
from importer.values import Code, Value, call

MOST = 1000  # processes of a watcher
_NAMED = re.compile(r"circus\.sockets\.([\w-]+)", re.I)
_KINDS = {"sock_stream": ("tcp", "stream"), "sock_dgram": ("udp", "dgram"), "sock_seqpacket": ("", "seqpacket")}
_SOCKET = frozenset("host port family type path interface so_reuseport blocking replace umask backlog proto".split())


def convert(paths: Sequence[str]) -> Result:
    """Convert files like circus.ini, with what they include."""
    return convert_each(paths, Sources, _Conversion)


class _Conversion:
    """Converts the sections of a main file and of what it includes."""

    def __init__(self, result: Result, ledger: Ledger, sections: list[Section]) -> None:
        self._result = result
        self._ledger = ledger
        self._sections = sections
        self._names = Names(result)
        self._inherited = dict(os.environ)
        self._settings = OutputFile(self._names.file("circus"))  # comments about settings of circus itself
        watchers = [section for section in sections if section.name.startswith("watcher:")]
        self._shared = self._users(watchers)
        self._used = {name for section in watchers for name in self._wanted(section)}
        self._programs: list[Program] = []
        files = [file for section in watchers if (file := self._guarded(section, self._watcher)) is not None]
        put_in_order(self._programs, ledger, highest_first=True)
        for section in sections:
            if section not in watchers:
                self._other(section)
        result.files += [self._settings] if self._settings.comments else []
        result.files += files

    def _guarded(self, section: Section, convert: Callable[[Section], OutputFile]) -> OutputFile | None:
        try:
            return convert(section)
        except SourceError as error:
            self._result.errors.append(error)
            return None

    def _watcher(self, section: Section) -> OutputFile:
        name = section.name.partition(":")[2].strip()
        self._ledger.carried(section.directive)
        environment = variables(self._sections, name, self._inherited)
        inherited: dict[str, str | int] = {
            f"env.{key.lower()}": value for key, value in {**self._inherited, **environment}.items()
        }
        probe = Watcher(section, inherited, {}, {}, self._ledger, Definition(name))
        count = 1 if probe.boolean("singleton", False) else int(probe.number("numprocesses", 1))
        if not 0 <= count <= MOST:
            raise probe.error("numprocesses", f"a number up to {MOST} expected")
        program = Program(section, int(probe.number("priority", 0)))
        sockets = self._sockets(probe)
        numbers = {f"sockets.{key.lower()}": 3 + index for index, key in enumerate(sockets)}
        for number in range(1, max(count, 1) + 1):
            definition = Definition(self._names.service(f"{name}_{number}" if count > 1 else name))
            values = {**inherited, **numbers, "wid": number}
            keys(Watcher(section, values, environment, sockets, self._ledger, definition))
            program.definitions.append(definition)
        if count == 0:
            program.definitions[0].set("status", "stop")
        self._programs.append(program)
        return written(program, name, self._names, of_several=count > 1)

    # sockets

    def _wanted(self, section: Section) -> list[str]:
        """Return the names of the sockets that a watcher has: those that its command names, or all."""
        entries = section.entries
        text = " ".join(entries[name].value for name in ("cmd", "args") if name in entries)
        stdin = entries["stdin_socket"].value.split() if "stdin_socket" in entries else []
        uses = "use_sockets" in entries and entries["use_sockets"].value.lower() in ("true", "yes", "on", "1")
        named = [name.lower() for name in _NAMED.findall(text)] if uses else []
        known = [each.name.partition(":")[2] for each in self._sections if each.name.startswith("socket:")]
        if uses and not named:
            return known
        return [name for name in known if name.lower() in named or name in stdin]

    def _users(self, watchers: list[Section]) -> set[str]:
        """Return the names of sockets that several processes have."""
        counts: dict[str, int] = {}
        for section in watchers:
            entry = section.entries.get("numprocesses")
            for name in self._wanted(section):
                counts[name] = counts.get(name, 0) + (2 if entry and entry.value != "1" else 1)
        return {name for name, count in counts.items() if count > 1}

    def _sockets(self, probe: Watcher) -> dict[str, Code]:
        found = {}
        for name in self._wanted(probe.section):
            section = next(each for each in self._sections if each.name == f"socket:{name}")
            found[name] = self._constructor(section, name)
        stdin = probe.text("stdin_socket")
        return {key: found[key] for key in sorted(found, key=lambda key: key == stdin)}  # it has no number

    def _constructor(self, section: Section, name: str) -> Code:
        entries = {key: expand(entry, {}).strip() for key, entry in section.entries.items()}
        kinds = _KINDS.get(entries.get("type", "sock_stream").lower())
        if kinds is None:
            raise _error(section, "type", f"unknown type {entries['type']!r}")
        self._ledger.carried(section.directive)
        for key, entry in section.entries.items():
            if key in _SOCKET:
                self._ledger.carried(entry.directive)
            else:
                self._ledger.left_out(entry.directive, "a socket of a definition does not have it", self._settings)
        options: dict[str, Value] = {"name": name}
        if entries.get("backlog", "").isdecimal():
            options["backlog"] = int(entries["backlog"])
        if "path" in entries:
            if name in self._shared:
                raise _error(section, "path", "several processes cannot have one Unix socket")
            if "umask" in entries:
                if re.fullmatch(r"0?[0-7]{3}", entries["umask"]) is None:
                    raise _error(section, "umask", f"an octal number expected, not {entries['umask']!r}")
                options["mode"] = f"{0o777 & ~int(entries['umask'], 8):03o}"
            return call(kinds[1], entries["path"], **options)
        port = entries.get("port", "0")
        if not port.isdecimal() or int(port) > 65535 or not kinds[0]:
            raise _error(section, "port", f"a number up to 65535 expected, not {port!r}")
        if name in self._shared or entries.get("so_reuseport", "").lower() in ("true", "1", "yes"):
            options["reuseport"] = True
        if "interface" in entries:
            options["interface"] = entries["interface"]
        host = entries.get("host", "localhost")
        return call(kinds[0], "127.0.0.1" if host == "localhost" else host, int(port), **options)

    # the rest

    def _other(self, section: Section) -> None:
        kind = section.name.partition(":")[0]
        if kind == "socket" and section.name.partition(":")[2] not in self._used:
            self._ledger.left_out(section.directive, "no watcher uses it", self._settings)
        elif kind in ("socket", "env"):
            self._ledger.carried(section.directive)
            for entry in section.entries.values():
                self._ledger.carried(entry.directive)
        elif section.name == "circus":
            self._ledger.carried(section.directive)
            for entry in section.entries.values():
                if entry.name not in ("include", "include_dir"):
                    self._ledger.left_out(entry.directive, "it is about circus itself", self._settings)
        else:
            text = "spawnd has no plugins" if kind == "plugin" else "circus does not have it"
            self._ledger.left_out(section.directive, text, self._settings)
            for entry in section.entries.values():
                self._ledger.left_out(entry.directive, "", None)


def _error(section: Section, name: str, text: str) -> SourceError:
    entry = section.entries.get(name)
    directive = entry.directive if entry else section.directive
    return SourceError(directive.file, directive.line, f"{name}: {text}")
