"""The [Service] section: what each directive becomes."""

from __future__ import annotations

import pwd
import re
from collections.abc import Callable, Sequence

from importer.systemd import commands, resources, values
from importer.systemd.commands import Plan
from importer.systemd.conversion import Conversion, Shape
from importer.systemd.nothing import NO_EQUIVALENT, NOT_NEEDED
from importer.systemd.unit_file import Entry
from importer.systemd.values import ValueNotUnderstood
from importer.systemd.words import texts
from importer.values import Value, call

Handler = Callable[[Conversion, Sequence[Entry]], None]

EXIT_STATUSES = {
    "SUCCESS": 0, "FAILURE": 1, "INVALIDARGUMENT": 2, "NOTIMPLEMENTED": 3, "NOPERMISSION": 4, "NOTINSTALLED": 5,
    "NOTCONFIGURED": 6, "NOTRUNNING": 7, "USAGE": 64, "DATAERR": 65, "NOINPUT": 66, "NOUSER": 67, "NOHOST": 68,
    "UNAVAILABLE": 69, "SOFTWARE": 70, "OSERR": 71, "OSFILE": 72, "CANTCREAT": 73, "IOERR": 74, "TEMPFAIL": 75,
    "PROTOCOL": 76, "NOPERM": 77, "CONFIG": 78,
}  # fmt: skip
NO_FAILURES = frozenset({"HUP", "INT", "TERM", "PIPE"})  # death by these is none, as in systemd
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
RESTARTS = {
    "always": ("always", ""),
    "no": ("never", ""),
    "on-failure": ("on-failure", ""),
    "on-abnormal": ("on-failure", "also after an exit status that is a failure"),
    "on-abort": ("on-failure", "also after an exit status that is a failure"),
    "on-watchdog": ("on-failure", "also after other failures"),
}
SHORTEST_WAIT = 0.01  # seconds
KILL_MODES = {"control-group": "group", "mixed": "mixed", "process": "process"}


def kind(plan: Plan) -> Handler:
    """Return the handler of Type."""

    def handle(conversion: Conversion, entries: Sequence[Entry]) -> None:
        match plan.type:
            case "simple" | "exec":
                conversion.carried(entries)
            case "notify":
                conversion.key(entries, "ready", "notify")
            case "notify-reload":
                conversion.key(entries, "ready", "notify", "a reload is over once the signal is sent")
                signal = conversion.unit.value("Service", "ReloadSignal", "HUP")
                conversion.definition.set("reload_signal", values.signal_name(signal))
            case "oneshot" if plan.shape is Shape.SESSIONS:
                conversion.carried(entries)
            case "oneshot" if plan.shape is Shape.STEPS and plan.remains:
                conversion.carried(entries, "functions without a process")
            case "oneshot":
                conversion.key(entries, "task", True)
            case "forking" if plan.forks:
                conversion.key(entries, "forking", True)
            case "forking":
                conversion.carried(entries, "the program stays in the foreground")
            case "dbus" | "idle":
                conversion.approximate(entries, "ready as soon as it runs")
            case other:
                raise ValueNotUnderstood(f"{other!r} is not a type")

    return handle


def remain_after_exit(plan: Plan) -> Handler:
    def handle(conversion: Conversion, entries: Sequence[Entry]) -> None:
        if plan.shape is Shape.STEPS or not plan.remains:
            conversion.carried(entries)
        else:
            conversion.left_out(entries, "a program that has ended is not up")

    return handle


def pid_file(plan: Plan) -> Handler:
    def handle(conversion: Conversion, entries: Sequence[Entry]) -> None:
        path = conversion.unit.expand(entries[-1].value)
        if plan.forks:
            path = path if path.startswith("/") else f"/run/{path}"
            conversion.key(entries, "pid_file", path.replace("/var/run/", "/run/", 1))
        else:
            conversion.carried(entries, "it is not needed: the program stays in the foreground")

    return handle


def restart(plan: Plan) -> Handler:
    def handle(conversion: Conversion, entries: Sequence[Entry]) -> None:
        value = entries[-1].value
        if plan.shape is Shape.SESSIONS:
            conversion.carried(entries, "each client gets a process of its own")
        elif value not in RESTARTS:
            raise ValueNotUnderstood("it has no equivalent")
        elif plan.is_oneshot and value == "always":
            conversion.key(entries, "restart", "on-failure", "a task is not restarted after a success")
        else:
            name, text = RESTARTS[value]
            conversion.key(entries, "restart", name, text)

    return handle


def restart_sec(conversion: Conversion, entries: Sequence[Entry]) -> None:
    number = values.seconds(entries[-1].value)
    if number is None:
        raise ValueNotUnderstood("an endless wait has no equivalent")
    if values.is_off(conversion.unit.value("Service", "Restart", "no")) and conversion.shape is Shape.PROGRAM:
        conversion.carried(entries, "nothing is restarted")
        return
    backoff: dict[str, Value] = {"first": values.duration(max(number, SHORTEST_WAIT)), "factor": 1}
    if number > 30:
        backoff["max"] = values.duration(number)
    text = "after failures alone, at once if it ran for healthy_after"
    conversion.key(entries, "backoff", backoff, text)


def timeout(name: str) -> Handler:
    return lambda conversion, entries: conversion.key(entries, name, values.timeout(entries[-1].value))


def timeout_both(conversion: Conversion, entries: Sequence[Entry]) -> None:
    value = values.timeout(entries[-1].value)
    conversion.key(entries, "start_timeout", value)
    conversion.default("stop_timeout", value)


def watchdog(conversion: Conversion, entries: Sequence[Entry]) -> None:
    number = values.seconds(entries[-1].value)
    if not number:
        conversion.carried(entries)
    else:
        conversion.key(entries, "watchdog", values.duration(number))


def signal(name: str) -> Handler:
    return lambda conversion, entries: conversion.key(entries, name, values.signal_name(entries[-1].value))


def reload_signal(conversion: Conversion, entries: Sequence[Entry]) -> None:
    if conversion.unit.value("Service", "Type") == "notify-reload":
        conversion.carried(entries)
    else:
        conversion.left_out(entries, "it goes with Type=notify-reload")


def kill_mode(conversion: Conversion, entries: Sequence[Entry]) -> None:
    value = entries[-1].value
    if value not in KILL_MODES:
        raise ValueNotUnderstood("a stop ends all processes")
    if value == "process" and conversion.has("forking"):
        raise ValueNotUnderstood("it does not go with a program that goes into the background")
    text = "a stop ends the other processes, too; they outlive a restart" if value == "process" else ""
    conversion.key(entries, "kill_mode", KILL_MODES[value], text)


def send_sigkill(conversion: Conversion, entries: Sequence[Entry]) -> None:
    if values.boolean(entries[-1].value):
        conversion.carried(entries)
    else:
        conversion.key(entries, "stop_timeout", False)


def statuses(name: str) -> Handler:
    """Return the handler of a list of exit statuses and signals."""

    def handle(conversion: Conversion, entries: Sequence[Entry]) -> None:
        numbers: list[int] = []
        others = []
        for word in [word for entry in entries for word in entry.value.split()]:
            number = EXIT_STATUSES.get(word, int(word) if word.isdecimal() and int(word) < 256 else None)
            if number is None:
                others.append(word)
            elif number or name != "success_status":
                numbers.append(number)
        known = name == "success_status" and all(word.removeprefix("SIG") in NO_FAILURES for word in others)
        text = "" if known or not others else f"without {', '.join(others)}: only exit statuses are listed here"
        if numbers:
            conversion.key(entries, name, numbers, text)
        elif others and not known:
            conversion.left_out(entries, "only exit statuses have an equivalent")
        else:
            conversion.carried(entries)

    return handle


def start_limit_burst(conversion: Conversion, entries: Sequence[Entry]) -> None:
    number = values.integer(entries[-1].value, 0, 1 << 31)
    interval = _start_limit_interval(conversion)
    if interval == "0" or number == 0:
        conversion.key(entries, "start_limit", False)
    else:
        conversion.key(entries, "start_limit", number, "it counts failures in a row, not starts in a time")


def start_limit_interval(conversion: Conversion, entries: Sequence[Entry]) -> None:
    number = values.seconds(entries[-1].value)
    if number == 0:
        conversion.key(entries, "start_limit", False)
    else:
        conversion.approximate(entries, "start_limit counts failures in a row, not starts in a time")


def _start_limit_interval(conversion: Conversion) -> str:
    names = ("StartLimitIntervalSec", "StartLimitInterval")
    found = [conversion.unit.value(section, name) for section in ("Unit", "Service") for name in names]
    return next(filter(None, found), "")


# users


def user(conversion: Conversion, entries: Sequence[Entry]) -> None:
    conversion.key(entries, "user", conversion.unit.expand(entries[-1].value))


def group(conversion: Conversion, entries: Sequence[Entry]) -> None:
    conversion.key(entries, "group", conversion.unit.expand(entries[-1].value))


def dynamic_user(conversion: Conversion, entries: Sequence[Entry]) -> None:
    if values.is_off(entries[-1].value):
        conversion.carried(entries)
        return
    name = conversion.unit.value("Service", "User") or conversion.unit.base.partition("@")[0]
    conversion.key(entries, "user", name, f"make the user: useradd --system --user-group {name}")


def groups(conversion: Conversion, entries: Sequence[Entry]) -> None:
    conversion.carried(entries)
    conversion.add("groups", [word for entry in entries for word in texts(conversion.unit.expand(entry.value))])


# environment and places


def environment(conversion: Conversion, entries: Sequence[Entry]) -> None:
    known = conversion.definition.keys.get("env")
    env = dict(known) if isinstance(known, dict) else {}
    for entry in entries:
        wrong = []
        for word in texts(entry.value):
            name, equals, value = conversion.unit.expand(word).partition("=")
            if equals and VARIABLE.fullmatch(name):
                env[name] = value
            else:
                wrong.append(word)
        if wrong:
            conversion.left_out([entry], f"{wrong[0]!r} is not NAME=VALUE")
        else:
            conversion.carried([entry])
    if env:
        conversion.definition.set("env", env)


def environment_file(conversion: Conversion, entries: Sequence[Entry]) -> None:
    for entry in entries:
        path = conversion.unit.expand(entry.value)
        if not path.removeprefix("-").startswith("/") or any(char in path for char in "*?["):
            conversion.left_out([entry], "only absolute paths without patterns have an equivalent")
        else:
            conversion.carried([entry])
            conversion.add("env_file", [path])
    files = conversion.definition.keys.get("env_file")
    if isinstance(files, list) and len(files) == 1:
        conversion.definition.set("env_file", files[0])


def working_directory(conversion: Conversion, entries: Sequence[Entry]) -> None:
    path = conversion.unit.expand(entries[-1].value)
    text = "it has to exist, in spite of the prefix -" if path.startswith("-") else ""
    path = path.removeprefix("-")
    if path == "~":
        name = conversion.unit.value("Service", "User", "root")
        try:
            path = pwd.getpwnam(name).pw_dir
        except KeyError:
            raise ValueNotUnderstood(f"the home of {name!r} is not known here") from None
        text = "the home of the user on this host"
    conversion.key(entries, "cwd", values.absolute(path), text)


def root_directory(conversion: Conversion, entries: Sequence[Entry]) -> None:
    conversion.key(entries, "chroot", values.absolute(conversion.unit.expand(entries[-1].value)))


def umask(conversion: Conversion, entries: Sequence[Entry]) -> None:
    conversion.key(entries, "umask", values.mode(entries[-1].value.zfill(3)))


def no_new_privileges(conversion: Conversion, entries: Sequence[Entry]) -> None:
    conversion.key(entries, "no_new_privs", values.boolean(entries[-1].value))


# output

TO_LOG = frozenset({"journal", "syslog", "kmsg", "journal+console", "syslog+console", "kmsg+console"})


def output(name: str) -> Handler:
    """Return the handler of StandardOutput and StandardError."""

    def handle(conversion: Conversion, entries: Sequence[Entry]) -> None:
        value = conversion.unit.expand(entries[-1].value)
        how, _colon, path = value.partition(":")
        if value in TO_LOG:
            text = "not on the console" if "console" in value else ""
            conversion.key(entries, name, call("log"), text)
        elif value == "null":
            conversion.silent.add(name)
            conversion.definition.remove(name)
            conversion.carried(entries)
        elif value == "inherit":
            other = conversion.definition.keys.get("stdout")
            source = other if name == "stderr" and other is not None else call("log")
            conversion.key(entries, name, source)
        elif how in ("append", "truncate", "file") and path.startswith("/"):
            text = "the output goes to the end of the file" if how == "file" else ""
            conversion.key(entries, name, call("file", path, "w" if how == "truncate" else "a"), text)
        elif value == "socket" and conversion.shape is Shape.SESSIONS and name == "stdout":
            conversion.carried(entries)
        else:
            raise ValueNotUnderstood(f"{name} is log() or a file")

    return handle


def standard_input(conversion: Conversion, entries: Sequence[Entry]) -> None:
    value = conversion.unit.expand(entries[-1].value)
    if value == "null":
        conversion.carried(entries)
    elif value == "socket":
        conversion.carried(entries, "the descriptor is that of the socket unit")
    elif value.startswith("file:/"):
        conversion.key(entries, "stdin", call("file", value.removeprefix("file:"), "r"))
    else:
        raise ValueNotUnderstood("stdin is a file or a socket")


def syslog_identifier(conversion: Conversion, entries: Sequence[Entry]) -> None:
    value = conversion.unit.expand(entries[-1].value)
    if value == conversion.definition.name:
        conversion.carried(entries)
    else:
        conversion.approximate(entries, f"lines have the name of the service, {conversion.definition.name!r}")


def sockets(conversion: Conversion, entries: Sequence[Entry]) -> None:
    conversion.carried(entries)


HANDLERS: dict[str, Handler] = {
    **resources.HANDLERS,
    "DynamicUser": dynamic_user,
    "Environment": environment,
    "EnvironmentFile": environment_file,
    "Group": group,
    "KillMode": kill_mode,
    "KillSignal": signal("stop_signal"),
    "NoNewPrivileges": no_new_privileges,
    "ReloadSignal": reload_signal,
    "RestartKillSignal": signal("handover_signal"),
    "RestartPreventExitStatus": statuses("no_restart_status"),
    "RestartSec": restart_sec,
    "RootDirectory": root_directory,
    "SendSIGKILL": send_sigkill,
    "Sockets": sockets,
    "StandardError": output("stderr"),
    "StandardInput": standard_input,
    "StandardOutput": output("stdout"),
    "StartLimitBurst": start_limit_burst,
    "StartLimitInterval": start_limit_interval,
    "StartLimitIntervalSec": start_limit_interval,
    "SuccessExitStatus": statuses("success_status"),
    "SupplementaryGroups": groups,
    "SyslogIdentifier": syslog_identifier,
    "TimeoutSec": timeout_both,
    "TimeoutStartSec": timeout("start_timeout"),
    "TimeoutStopSec": timeout("stop_timeout"),
    "UMask": umask,
    "User": user,
    "WatchdogSec": watchdog,
    "WorkingDirectory": working_directory,
}


def handlers(plan: Plan) -> dict[str, Handler]:
    """Return the handlers of a service's section."""

    def of(function: Callable[[Conversion, Plan, Sequence[Entry]], None]) -> Handler:
        return lambda conversion, entries: function(conversion, plan, entries)

    return {
        **HANDLERS,
        "ExecCondition": of(commands.exec_condition),
        "ExecReload": of(commands.exec_reload),
        "ExecStart": of(commands.exec_start),
        "ExecStartPost": of(commands.exec_start_post),
        "ExecStartPre": of(commands.exec_start_pre),
        "ExecStop": of(commands.exec_stop),
        "ExecStopPost": of(commands.exec_stop_post),
        "PIDFile": pid_file(plan),
        "RemainAfterExit": remain_after_exit(plan),
        "Restart": restart(plan),
        "Type": kind(plan),
    }


def other(conversion: Conversion, entries: Sequence[Entry]) -> None:
    """Record directives that no handler knows."""
    key = entries[0].key
    for entry in entries:
        if key in NOT_NEEDED:
            conversion.carried([entry], NOT_NEEDED[key])
        elif key.startswith("X-"):
            conversion.carried([entry], "systemd ignores it, too")
        elif key in NO_EQUIVALENT:
            if values.is_off(entry.value):
                conversion.carried([entry], "it is off")
            else:
                conversion.left_out([entry], NO_EQUIVALENT[key])
        else:
            conversion.left_out([entry], "it is unknown")
