"""`spawnctl import runit` and `daemontools`: a definition for each service directory."""

from __future__ import annotations

import os
from collections.abc import Sequence

from importer.accounts import set_user
from importer.addresses import number
from importer.commands import set_command
from importer.ledger import Directive, Ledger
from importer.result import Definition, OutputFile, Result, SourceError, service_name
from importer.runit.script import NotSimple, Script, parse
from importer.runit.wrappers import Prepared, unwrap
from importer.sources import read_source
from importer.values import Code, Value, call
from supervisor.definitions.notation import quantity

_LOGGERS = ("svlogd", "multilog", "logger", "s6-log", "vlogger")
_LEFT_OUT = {
    "finish": "the function 'stop' of a module runs after the process",
    "check": "'ready' says when a service is ready",
    "control": "signals are 'stop_signal' and 'reload_signal'",
}


def convert(paths: Sequence[str]) -> Result:
    """Convert service directories, or folders of them such as /etc/service."""
    result = Result()
    folders: list[str] = []
    for path in paths:
        try:
            folders += _folders(path)
        except SourceError as error:
            result.errors.append(error)
    names: dict[str, str] = {}
    for folder in folders:
        names[folder] = service_name(os.path.basename(os.path.abspath(folder)), names.values())
    ledger = Ledger(result)
    for folder in folders:
        try:
            result.files.append(_Service(folder, names[folder], ledger, set(names.values())).output)
        except SourceError as error:
            result.errors.append(error)
    return result


def _folders(path: str) -> list[str]:
    """Return a service directory, or those in a folder. Raises SourceError if there are none."""
    if os.path.lexists(os.path.join(path, "run")):
        return [path]
    try:
        names = sorted(name for name in os.listdir(path) if not name.startswith("."))
    except OSError as error:
        raise SourceError(path, 1, f"cannot read: {error.strerror}") from None
    found = [os.path.join(path, name) for name in names if os.path.lexists(os.path.join(path, name, "run"))]
    if not found:
        raise SourceError(path, 1, "neither it nor a folder in it has a script 'run'")
    return found


class _Service:
    """Converts a service directory. Raises SourceError."""

    def __init__(self, folder: str, name: str, ledger: Ledger, services: set[str]) -> None:
        self._folder = os.path.abspath(folder)
        self._ledger = ledger
        self._services = services
        self._definition = Definition(name)
        self.output = OutputFile(f"{name}.lua", [self._definition])
        path = os.path.join(folder, "run")
        text = read_source(path)
        if os.path.lexists(os.path.join(folder, "down")):
            self._definition.set("status", "stop")
            ledger.carried(Directive(os.path.join(folder, "down"), 1, "down"))
        try:
            script = parse(path, text)
            prepared = unwrap(script.command[1], self._folder)
        except NotSimple as error:
            self._keep(path, str(error))
        else:
            self._convert(script, prepared)
        self._definition.set("login_env", True)
        self._output(folder)
        self._rest(folder)

    def _keep(self, path: str, why: str) -> None:
        """Have the script as the program."""
        self._ledger.approximate(Directive(path, 1, "run"), f"the script stays the program: {why}", self._definition)
        self._definition.set("exec", os.path.join(self._folder, "run"))
        for key, value in (("user", "root"), ("group", "root"), ("cwd", self._folder), ("umask", "022")):
            self._definition.set(key, value)

    def _convert(self, script: Script, prepared: Prepared) -> None:
        definition, (directive, _) = self._definition, script.command
        for step in script.steps:
            self._ledger.carried(step)
        self._depend(script)
        folder = prepared.folder or script.folder or self._folder
        set_command(self._ledger, definition, directive, prepared.words, folder)
        if prepared.argv0:
            definition.set("argv0", prepared.argv0)
        group, *groups = prepared.groups or [""]
        set_user(self._ledger, definition, directive, prepared.user or "root", group, others=False)
        if groups:
            definition.set("groups", groups)
        definition.set("cwd", os.path.normpath(os.path.join(self._folder, folder)))
        if prepared.chroot:
            definition.set("chroot", os.path.normpath(os.path.join(self._folder, prepared.chroot)))
        definition.set("umask", script.umask or "022")
        env: dict[str, Value] = {
            name: number(text) for name, text in (script.environment | prepared.environment).items()
        }
        if env:
            if prepared.from_files:
                text = "values as they are now; an 'env_file' is read at each start"
                self._ledger.approximate(directive, text, definition)
            definition.set("env", env)
        if prepared.nice is not None:
            definition.set("nice", max(-20, min(prepared.nice, 19)))
        limits = {name: _limit(name, value) for name, value in (script.limits | prepared.limits).items()}
        if limits:
            definition.set("limits", limits)

    def _depend(self, script: Script) -> None:
        names: list[Value] = []
        for directive, name in script.services:
            if name in self._services and name != self._definition.name:
                names.append(name)
            else:
                self._ledger.left_out(directive, f"{name!r} is not converted with it", self._definition)
        if names:
            self._definition.set("depends", names[0] if len(names) == 1 else names)

    def _output(self, folder: str) -> None:
        path = os.path.join(folder, "log", "run")
        if os.path.lexists(path):
            text = read_source(path)
            directive = Directive(path, 1, "log/run")
            if any(logger in text for logger in _LOGGERS):
                self._ledger.approximate(directive, "the log, which bounds itself", self._definition)
            else:
                self._ledger.left_out(directive, "output goes to the log, not to a program", self._definition)
        self._definition.set("stdout", call("log"))
        self._definition.set("stderr", call("log"))

    def _rest(self, folder: str) -> None:
        for name in sorted(os.listdir(folder)):
            if name in _LEFT_OUT:
                directive = Directive(os.path.join(folder, name), 1, name)
                self._ledger.left_out(directive, _LEFT_OUT[name], self._definition)


def _limit(name: str, value: int) -> Value:
    return Code(quantity.size(value)) if name in quantity.SIZE_LIMITS else value
