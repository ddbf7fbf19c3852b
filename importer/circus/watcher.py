"""Entries of a watcher of circus as keys of a definition."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from importer.accounts import set_user
from importer.addresses import number
from importer.circus.files import expand
from importer.commands import set_command, split
from importer.ini import Entry, Section
from importer.ledger import Ledger
from importer.result import Definition, SourceError
from importer.values import Code, Value, call
from supervisor.definitions import scalars
from supervisor.definitions.notation import quantity
from supervisor.definitions.problems import InvalidValue

STREAMS = ("stdout", "stderr")
_BOOLEAN = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_LIMITS = frozenset("as core cpu data fsize memlock nofile nproc rss stack".split())
_SIZES = _LIMITS - {"cpu", "nofile", "nproc"}
_NOTHING = {
    "copy_env": "spawnd passes nothing on: 'env' has values",
    "copy_path": "spawnd passes nothing on: 'env' has values",
    "max_age": "no process is restarted for its age",
    "max_age_variance": "no process is restarted for its age",
    "virtualenv": "'exec' is the program of the environment, such as bin/python below it",
    "virtualenv_py_ver": "'exec' is the program of the environment",
    "use_papa": "spawnd keeps sockets open itself",
    "stream_backend": "the log has no backends",
    "shell_args": "the words of the shell belong into 'arg'",
}
SHAPE = frozenset("cmd args shell numprocesses priority singleton use_sockets stdin_socket env".split())
PLAIN = frozenset(
    "autostart on_demand uid gid working_dir respawn max_retry retry_in stop_signal graceful_timeout send_hup "
    "stop_children close_child_stdout close_child_stderr".split()
)


@dataclass(slots=True)
class Watcher:
    """A process of a watcher; `sockets` are calls of constructors by their names."""

    section: Section
    values: Mapping[str, str | int]
    environment: dict[str, str]
    sockets: dict[str, Code]
    ledger: Ledger
    definition: Definition

    def text(self, name: str, default: str = "") -> str:
        entry = self.section.entries.get(name)
        return default if entry is None else expand(entry, self.values).strip()

    def boolean(self, name: str, default: bool) -> bool:
        text = self.text(name, str(default)).lower()
        if text not in _BOOLEAN:
            raise self.error(name, f"true or false expected, not {text!r}")
        return _BOOLEAN[text]

    def number(self, name: str, default: float) -> float:
        text = self.text(name, str(default))
        if re.fullmatch(r"-?\d{1,15}(\.\d{1,3})?", text) is None:
            raise self.error(name, f"a number expected, not {text!r}")
        return float(text)

    def error(self, name: str, text: str) -> SourceError:
        entry = self.section.entries.get(name)
        directive = entry.directive if entry else self.section.directive
        return SourceError(directive.file, directive.line, f"{name}: {text}")

    def carried(self, *names: str) -> None:
        for name in names:
            if entry := self.section.entries.get(name):
                self.ledger.carried(entry.directive)

    def approximate(self, name: str, text: str) -> None:
        if entry := self.section.entries.get(name):
            self.ledger.approximate(entry.directive, text, self.definition)


def keys(watcher: Watcher) -> None:
    """Set all keys but the order. Raises SourceError."""
    watcher.carried(*SHAPE)
    if not watcher.boolean("autostart", True):
        watcher.definition.set("status", "stop")
    elif watcher.boolean("on_demand", False) and watcher.sockets:
        watcher.definition.set("status", "demand")
    watcher.carried("autostart", "on_demand")
    _command(watcher)
    _account(watcher)
    if watcher.environment:
        env: dict[str, Value] = {name: number(value) for name, value in watcher.environment.items()}
        watcher.definition.set("env", env)
    watcher.definition.set("login_env", True)  # the environment of circusd has PATH and HOME
    _sockets(watcher)
    _life(watcher)
    _limits(watcher)
    _output(watcher)
    _rest(watcher)


def _command(watcher: Watcher) -> None:
    entry = watcher.section.entries.get("cmd")
    if entry is None:
        raise watcher.error("cmd", "it is missing")
    line = f"{watcher.text('cmd')} {watcher.text('args')}".strip()
    try:
        words = split(line)
    except ValueError as error:
        raise watcher.error("cmd", str(error)) from None
    if watcher.boolean("shell", False):
        watcher.definition.set("exec", "/bin/sh")
        watcher.definition.set("arg", ["-c", line])
    else:
        set_command(watcher.ledger, watcher.definition, entry.directive, words, watcher.text("working_dir"))


def _account(watcher: Watcher) -> None:
    entry = watcher.section.entries.get("uid")
    directive = entry.directive if entry else watcher.section.directive
    watcher.carried("uid", "gid", "working_dir")
    user, group = watcher.text("uid", "root"), watcher.text("gid")
    set_user(watcher.ledger, watcher.definition, directive, user, group)
    folder = watcher.text("working_dir")
    if folder:
        if not folder.startswith("/"):
            raise watcher.error("working_dir", f"{folder!r} is no absolute path")
        watcher.definition.set("cwd", folder)
    watcher.definition.set("umask", "022")


def _sockets(watcher: Watcher) -> None:
    """Set `fd`: the sockets that the command names; circus passes on all of them."""
    stdin = watcher.text("stdin_socket")
    if stdin:
        if stdin not in watcher.sockets:
            raise watcher.error("stdin_socket", f"no socket {stdin!r}")
        watcher.definition.set("stdin", watcher.sockets[stdin])
    rest = [socket for name, socket in watcher.sockets.items() if name != stdin]
    if rest and watcher.boolean("use_sockets", False):
        watcher.definition.set("fd", rest)


def _life(watcher: Watcher) -> None:
    definition = watcher.definition
    if not watcher.boolean("respawn", True):
        definition.set("restart", "never")
    if watcher.section.entries.get("max_retry"):
        retries = int(watcher.number("max_retry", 5))
        definition.set("start_limit", retries if retries > 0 else False)
    if watcher.section.entries.get("retry_in"):
        seconds = watcher.number("retry_in", 7)
        watcher.approximate("retry_in", "the wait after each failure")
        definition.set("backoff", {"first": _duration(max(seconds, 0)), "factor": 1})
    if watcher.section.entries.get("stop_signal"):
        text = watcher.text("stop_signal")
        try:
            definition.set("stop_signal", scalars.signal_name(scalars.signal_number(text)))
        except InvalidValue as error:
            raise watcher.error("stop_signal", str(error)) from None
    definition.set("stop_timeout", _duration(max(watcher.number("graceful_timeout", 30), 0)))
    if watcher.boolean("send_hup", False):
        definition.set("reload_signal", "HUP")
    if watcher.boolean("stop_children", False):
        definition.set("kill_mode", "group")
    watcher.carried("respawn", "max_retry", "retry_in", "stop_signal", "graceful_timeout", "send_hup", "stop_children")


def _limits(watcher: Watcher) -> None:
    found: dict[str, Value] = {}
    for name in watcher.section.entries:
        limit = name.removeprefix("rlimit_")
        if limit != name and limit in _LIMITS:
            value = watcher.number(name, 0)
            watcher.carried(name)
            found[limit] = (
                "unlimited" if value < 0 else Code(quantity.size(int(value))) if limit in _SIZES else int(value)
            )
    if found:
        watcher.definition.set("limits", found)


def _output(watcher: Watcher) -> None:
    for stream in STREAMS:
        filename = watcher.text(f"{stream}_stream.filename")
        if filename:
            watcher.approximate(
                f"{stream}_stream.filename", f'the log; {stream} = file("{filename}", "a") keeps the file'
            )
        for name in watcher.section.entries:
            if name.startswith(f"{stream}_stream.") and not name.endswith(".filename"):
                if name.endswith(".class"):
                    watcher.carried(name)
                else:
                    watcher.ledger.approximate(
                        watcher.section.entries[name].directive, "the log has a form and limits of its own", None
                    )
        watcher.carried(f"close_child_{stream}")
        if not watcher.boolean(f"close_child_{stream}", False):
            watcher.definition.set(stream, call("log"))


def _rest(watcher: Watcher) -> None:
    for name, entry in watcher.section.entries.items():
        if name == "warmup_delay":
            _warmup(watcher, entry)
        elif name in _NOTHING:
            _left_out(watcher, entry, _NOTHING[name])
        elif name.startswith("hooks."):
            _left_out(watcher, entry, "functions 'start' and 'stop' of a module are in Lua")
        elif not _is_known(name):
            _left_out(watcher, entry, "circus gives it to the watcher alone")


def _warmup(watcher: Watcher, entry: Entry) -> None:
    if watcher.number("warmup_delay", 0) > 0:
        _left_out(watcher, entry, "processes start at the same time")
    else:
        watcher.carried("warmup_delay")


def _left_out(watcher: Watcher, entry: Entry, text: str) -> None:
    if entry.name in ("copy_env", "copy_path") and not watcher.boolean(entry.name, False):
        watcher.carried(entry.name)
    else:
        watcher.ledger.left_out(entry.directive, text, watcher.definition)


def _is_known(name: str) -> bool:
    if name in SHAPE | PLAIN or name.removeprefix("rlimit_") in _LIMITS:
        return True
    return name.startswith(("stdout_stream.", "stderr_stream."))


def _duration(seconds: float) -> Code:
    return Code(quantity.duration(seconds))
