"""`spawnctl import procfile`: a definition for each process of a Procfile, with the `.env` beside it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from importer.commands import set_command, split
from importer.ledger import Directive, Ledger
from importer.procfile.variables import Variables, read
from importer.result import Definition, OutputFile, Result, SourceError, service_name
from importer.sources import read_source
from importer.values import call

NAME = "Procfile"
SHELL = "/bin/sh"
UMASK = "022"
NEXT_PORT = 100  # foreman counts up by it
NOBODY = "it runs as nobody: name a 'user' and a 'group' who can use its folder"

_LINE = re.compile(r"(?P<name>[A-Za-z0-9_-]+)\s*:\s*(?P<command>.+)")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_VARIABLE = re.compile(r"\$(?:\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)\}|(?P<bare>[A-Za-z_][A-Za-z0-9_]*))")
_OF_SHELL = re.compile(r"[|&;<>()`*?\[\]#~{}!$]")
_BUILTINS = frozenset(
    ". : cd command exec exit export eval set source test trap ulimit umask unset wait if for while until case".split()
)


def convert(paths: Sequence[str]) -> Result:
    """Convert files like a Procfile, or the Procfiles of folders."""
    result = Result()
    ledger = Ledger(result)
    names: set[str] = set()
    for path in paths:
        file = os.path.join(path, NAME) if os.path.isdir(path) else path
        try:
            text = read_source(file)
        except SourceError as error:
            result.errors.append(error)
        else:
            _Procfile(file, ledger, names).convert(text)
    return result


class _Procfile:
    def __init__(self, path: str, ledger: Ledger, names: set[str]) -> None:
        self._path = path
        self._folder = os.path.dirname(os.path.abspath(path))
        self._ledger = ledger
        self._names = names
        self._errors = ledger.result.errors

    def convert(self, text: str) -> None:
        """Add a file for each process to the result."""
        variables = read(self._folder, self._ledger)
        seen: dict[str, int] = {}
        for line_number, raw in enumerate(text.split("\n"), 1):
            line = raw.strip()
            if not line or line.startswith("#"):
                continue
            directive = Directive(self._path, line_number, line)
            match = _LINE.fullmatch(line)
            if match is None:
                self._error(directive, "'NAME: COMMAND' expected")
            elif match["name"] in seen:
                self._error(directive, f"{match['name']!r} is on line {seen[match['name']]}, too")
            else:
                seen[match["name"]] = line_number
                try:
                    self._process(directive, match["name"], match["command"], variables, len(seen) - 1)
                except ValueError as error:
                    self._error(directive, str(error))

    def _process(self, directive: Directive, process: str, command: str, variables: Variables, index: int) -> None:
        definition = Definition(process)
        if process == "release":
            text = "a task, for 'spawnctl start' before a new version serves"
            self._ledger.approximate(directive, text, definition)
            definition.set("status", "stop")
            definition.set("task", True)
        self._command(directive, definition, command)
        definition.set("cwd", self._folder)
        definition.set("umask", UMASK)
        self._environment(definition, variables, index)
        definition.set("stdout", call("log"))
        definition.set("stderr", call("log"))
        if process in self._names:
            process = f"{os.path.basename(self._folder)}-{process}"
        definition.name = service_name(process, self._names)
        self._names.add(definition.name)
        self._ledger.result.files.append(OutputFile(f"{definition.name}.lua", [definition], [NOBODY]))

    def _command(self, directive: Directive, definition: Definition, command: str) -> None:
        """Set the program, with a shell only for what a definition does not do itself. Raises ValueError."""
        command = command.removeprefix("exec ").strip()
        words = split(command)
        plain = _VARIABLE.sub("", command)
        if _OF_SHELL.search(plain) or words[0] in _BUILTINS or _ASSIGNMENT.match(words[0]):
            definition.set("exec", SHELL)
            definition.set("arg", ["-c", command])
            definition.set("kill_mode", "group")  # the shell passes no signal on
            self._ledger.carried(directive)
        elif plain == command:
            set_command(self._ledger, definition, directive, words, self._folder)
        elif any(char in command for char in "\"'\\") or "$" in words[0]:
            definition.set("exec", SHELL)
            definition.set("arg", ["-c", f"exec {command}"])
            self._ledger.carried(directive)
        else:
            set_command(self._ledger, definition, directive, [_expandable(word) for word in words], self._folder)
            definition.set("expand_env", True)

    def _environment(self, definition: Definition, variables: Variables, index: int) -> None:
        """Set variables: the port that foreman gives, and those of the file."""
        port = variables.first_port + NEXT_PORT * index
        if variables.port_line is None:
            definition.set("env", {"PORT": port})
        elif index:
            text = f"foreman has {port} for this process, and 'env_file' has that of the first one"
            self._ledger.approximate(variables.port_line, text, definition)
        if variables.path:
            definition.set("env_file", variables.path)
        definition.set("login_env", True)

    def _error(self, directive: Directive, text: str) -> None:
        self._errors.append(SourceError(directive.file, directive.line, text))


def _expandable(word: str) -> str:
    """Return an argument for `expand_env`: `$NAME` alone may be several words, as in a shell."""
    if match := _VARIABLE.fullmatch(word):
        return f"${match['braced'] or match['bare']}"
    return _VARIABLE.sub(lambda match: f"${{{match['braced'] or match['bare']}}}", word)
