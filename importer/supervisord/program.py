"""Entries of a program of supervisord as keys of a definition."""

from __future__ import annotations

import re

from importer.accounts import set_user
from importer.addresses import number
from importer.commands import set_command, split
from importer.supervisord.process import Process
from importer.values import Code, Value, call
from supervisor.definitions import scalars
from supervisor.definitions.notation import quantity
from supervisor.definitions.problems import InvalidValue

PORTS = 65535
STREAMS = ("stdout", "stderr")
_STANDARD = ("/dev/stdout", "/dev/stderr", "/dev/fd/1", "/dev/fd/2", "syslog")
_TCP = re.compile(r"tcp://(?:\[(?P<v6>[^]]+)\]|(?P<host>[^:]*)):(?P<port>\d+)")
_UNIX = re.compile(r"unix://(?P<path>/.+)")
_RESTART = {"true": "always", "unexpected": "on-failure", "false": "never"}


def keys(process: Process) -> None:
    """Set all keys but the order. Raises SourceError."""
    _status(process)
    _command(process)
    _account(process)
    _environment(process)
    if process.entry("socket"):
        _socket(process)
    _life(process)
    _stop(process)
    _limits(process)
    _output(process)
    _rest(process)


def _status(process: Process) -> None:
    process.carried("autostart", "process_name", "numprocs", "numprocs_start")
    if not process.boolean("autostart", True):
        process.definition.set("status", "stop")


def _command(process: Process) -> None:
    entry = process.entry("command")
    if entry is None:
        raise process.error("command", "it is missing")
    try:
        words = split(process.text("command"))
    except ValueError as error:
        raise process.error("command", str(error)) from None
    set_command(process.ledger, process.definition, entry.directive, words, process.text("directory"))


def _account(process: Process) -> None:
    entry = process.entry("user")
    process.carried("user", "directory", "umask")
    directive = entry.directive if entry else process.section.directive
    set_user(process.ledger, process.definition, directive, process.text("user", process.common.user))
    directory = process.text("directory", process.common.directory)
    if directory:
        if not directory.startswith("/"):
            raise process.error("directory", f"{directory!r} is no absolute path")
        process.definition.set("cwd", directory)
    umask = process.text("umask", process.common.umask)
    if re.fullmatch(r"0?[0-7]{1,3}", umask) is None:
        raise process.error("umask", f"an octal number expected, not {umask!r}")
    process.definition.set("umask", f"{int(umask, 8):03o}")


def _environment(process: Process) -> None:
    found: dict[str, Value] = {
        name: number(value)
        for name, value in {**process.common.environment, **process.variables("environment")}.items()
    }
    process.carried("environment")
    if found:
        process.definition.set("env", found)
    process.definition.set("login_env", True)  # the environment of supervisord has PATH and HOME


def _socket(process: Process) -> None:
    """Set `stdin`, for a program of FastCGI."""
    text = process.text("socket")
    options: dict[str, Value] = {}
    if backlog := process.integer("socket_backlog", 0):
        options["backlog"] = backlog
    if (match := _TCP.fullmatch(text)) and int(match["port"][:6]) <= PORTS:
        host = match["v6"] or match["host"] or "*"
        process.definition.set("stdin", call("tcp", host, int(match["port"]), **options))
    elif match := _UNIX.fullmatch(text):
        owner, _, group = process.text("socket_owner").partition(":")
        mode = process.text("socket_mode", "0700")
        if re.fullmatch(r"0?[0-7]{3}", mode) is None:
            raise process.error("socket_mode", f"an octal number expected, not {mode!r}")
        options |= {"mode": mode[-3:], "owner": owner or process.definition.keys["user"]}
        if owner_group := group or (not owner and process.definition.keys.get("group")):
            options["group"] = owner_group
        process.definition.set("stdin", call("stream", match["path"], **options))
    else:
        raise process.error("socket", f"tcp://HOST:PORT or unix:///PATH expected, not {text!r}")
    process.carried("socket", "socket_owner", "socket_mode", "socket_backlog")


def _life(process: Process) -> None:
    text = process.text("autorestart", "unexpected").lower()
    if text not in _RESTART:
        text = "true" if process.boolean("autorestart", True) else "false"
    process.definition.set("restart", _RESTART[text])
    process.carried("autorestart", "startsecs", "startretries")
    statuses: list[Value] = []
    for word in re.split(r"[,\s]+", process.text("exitcodes")):
        if word and not (word.isdecimal() and int(word) < 256):
            raise process.error("exitcodes", f"numbers from 0 to 255 expected, not {word!r}")
        if word:
            statuses.append(int(word))
    if process.entry("exitcodes") and 0 not in statuses:
        process.approximate("exitcodes", "0 is a success, too")
    process.carried("exitcodes")
    good = [status for status in statuses if status != 0]
    if good:
        process.definition.set("success_status", good[0] if len(good) == 1 else good)
    if process.entry("startsecs"):
        process.definition.set("healthy_after", _seconds(process.integer("startsecs", 1)))
    if process.entry("startretries"):
        retries = process.integer("startretries", 3)
        if retries == 0:
            process.approximate("startretries", "the first failure is the last one")
        process.definition.set("start_limit", max(retries, 1))


def _stop(process: Process) -> None:
    if process.entry("stopsignal"):
        text = process.text("stopsignal")
        try:
            signal = scalars.signal_number(text)
        except InvalidValue as error:
            raise process.error("stopsignal", str(error)) from None
        process.definition.set("stop_signal", scalars.signal_name(signal))
    if process.entry("stopwaitsecs"):
        process.definition.set("stop_timeout", _seconds(process.integer("stopwaitsecs", 10)))
    if process.boolean("stopasgroup", False) or process.boolean("killasgroup", False):
        process.definition.set("kill_mode", "group")
    process.carried("stopsignal", "stopwaitsecs", "stopasgroup", "killasgroup")


def _limits(process: Process) -> None:
    if process.common.limits:
        process.definition.set("limits", dict(process.common.limits))


def _output(process: Process) -> None:
    """Set `stdout` and `stderr`: files become the log."""
    together = process.boolean("redirect_stderr", False)
    process.carried("redirect_stderr")
    kept = {stream: _stream(process, stream) for stream in STREAMS}
    if together:
        kept["stderr"] = kept["stdout"]
    for stream in STREAMS:
        if kept[stream]:
            process.definition.set(stream, call("log"))


def _stream(process: Process, stream: str) -> bool:
    """Return whether a stream goes to the log."""
    name = f"{stream}_logfile"
    target = process.text(name, "AUTO")
    if target.startswith("/") and target not in (*_STANDARD, "/dev/null"):
        process.approximate(name, f'the log; {stream} = file("{target}", "a") keeps the file')
    else:
        process.carried(name)
    for bound in ("maxbytes", "backups"):
        process.approximate(f"{name}_{bound}", "the log has limits of its own", comment=False)
    if process.boolean(f"{stream}_events_enabled", False):
        process.left_out(f"{stream}_events_enabled", "there are no events of output")
    if process.text(f"{stream}_capture_maxbytes", "0").strip("0 KMGBkmgb"):
        process.left_out(f"{stream}_capture_maxbytes", "there are no events of output")
    process.carried(f"{stream}_events_enabled", f"{stream}_capture_maxbytes", f"{stream}_syslog")
    return (target.upper() != "NONE" and target != "/dev/null") or process.boolean(f"{stream}_syslog", False)


def _rest(process: Process) -> None:
    process.left_out("serverurl", "a program finds no server of supervisord")
    for name in process.section.entries:
        if name not in KNOWN:
            process.left_out(name, "supervisord does not have it")


def _seconds(seconds: int) -> Code:
    return Code(quantity.duration(seconds))


KNOWN = frozenset(
    "command process_name numprocs numprocs_start priority autostart startsecs startretries autorestart exitcodes "
    "stopsignal stopwaitsecs stopasgroup killasgroup user redirect_stderr environment directory umask serverurl socket "
    "socket_owner socket_mode socket_backlog".split()
) | {
    f"{stream}_{name}"
    for stream in STREAMS
    for name in "logfile logfile_maxbytes logfile_backups capture_maxbytes events_enabled syslog".split()
}
