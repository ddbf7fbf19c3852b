"""Conversion of one table or module of a definition file to one `Service`: key by key, then the keys together."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from supervisor.definitions.checking import Checking
from supervisor.definitions.convert import access, kernel, plain, tables
from supervisor.definitions.convert.descriptor import entries, standard
from supervisor.definitions.databases import Databases
from supervisor.definitions.problems import InvalidValue, did_you_mean
from supervisor.definitions.programs import worker
from supervisor.definitions.service import DEFAULT_UMASK, KEYS, Accept, Descriptor, Key, Service
from supervisor.definitions.values import describe, table
from supervisor.printable import count

Convert = Callable[[Any, Checking], Any]

# the converter of each key, by the kind that its field of `Service` names
CONVERTERS: dict[str, Convert] = {
    "accept": access.accept,
    "arguments": tables.arguments,
    "backoff": tables.backoff,
    "boolean": plain.boolean,
    "capabilities": kernel.capabilities,
    "command": tables.command,
    "cpu_affinity": kernel.cpu_affinity,
    "cpu_share": kernel.cpu_share,
    "description": plain.description,
    "descriptors": entries,
    "duration": plain.duration,
    "environment": tables.environment,
    "environment_files": tables.environment_files,
    "file_name": plain.file_name,
    "group": access.group,
    "groups": access.groups,
    "idle_cpu": kernel.idle_cpu,
    "idle_stop": plain.idle_stop,
    "limits": tables.limits,
    "memory": kernel.memory,
    "options": tables.options,
    "path": plain.absolute,
    "positive_timeout": plain.positive_timeout,
    "processes": kernel.processes,
    "real_time_signal": plain.real_time_signal,
    "scheduling": kernel.scheduling,
    "signal": plain.signal,
    "start_limit": plain.start_limit,
    "status": plain.status,
    "stop_timeout": plain.stop_timeout,
    "text": plain.text,
    "timer_slack": plain.timer_slack,
    "umask": plain.umask,
    "user": access.user,
    "watchdog": plain.watchdog,
    "weight": kernel.weight,
    "worker": worker,
}
MAKERS: dict[str, Callable[..., Convert]] = {  # kinds whose converter is made from the name and arguments of a key
    "choice": plain.choice,
    "integer": lambda name, low, high: plain.integer(low, high),
    "services": tables.services,
    "standard": standard,
    "statuses": tables.statuses,
}

_NO_MESSAGES = "the main process is the acceptor, which sends no messages"
_NO_SIGNALS = "a signal would end the acceptor alone"
_NOT_WITH_ACCEPT = {  # keys with the reasons
    "stdin": "the connection is there",
    "stdout": "the connection is there",
    "ready": "a session is started for a client that waits already",
    "watchdog": _NO_MESSAGES,
    "fdstore_max": _NO_MESSAGES,
    "task": "there is no end of clients",
    "control": "there are any number of sessions, and none is asked",
    "forking": "a session ends with its process, so have the program stay in the foreground",
    "handover_signal": _NO_SIGNALS,
    "reload_signal": _NO_SIGNALS,
    "idle_stop": "the acceptor ends by itself, see linger",
    "kill_mode": "the end of the acceptor ends no session, and stop ends all of them",
    "success_status": "sessions may end with any status",
    "no_restart_status": "sessions may end with any status",
}

FIRST_FD = 3
DEMAND = "demand"
STANDARD = frozenset({"stdin", "stdout", "stderr"})

GROUP = frozenset({"description", "depends", "after", "conflicts", "status"})  # all keys of a group
PROCESS = frozenset(name for name, key in KEYS.items() if key.about_process)

# like login(1), which gives system programs to root
ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
USER_PATH = "/usr/local/bin:/usr/bin:/bin"
DEFAULT_SHELL = "/bin/sh"  # for an entry without one: passwd(5)

Converted = dict[str, Any]  # values by key
Account = tuple[str, int]


def _converter(key: Key) -> Convert:
    return MAKERS[key.kind](key.name, *key.arguments) if key.kind in MAKERS else CONVERTERS[key.kind]


CONVERT: dict[str, Convert] = {name: _converter(key) for name, key in KEYS.items()}


@dataclass(frozen=True, slots=True)
class Defaults:
    """`_DEFAULT` of a file, with the lines of its keys."""

    values: Converted
    lines: Mapping[str, int]


def convert(values: dict[str, Any], checking: Checking) -> Converted:
    """Return the valid keys of a table, converted; report the invalid ones."""
    good: Converted = {}
    for key, value in sorted(values.items()):  # Lua tables have no order, but messages need one
        try:
            if key in KEYS:
                good[key] = CONVERT[key](value, checking)
            else:
                checking.problems.add(checking.file, checking.line_of((key,)), _unknown(key, checking))
        except InvalidValue as error:
            checking.invalid(error, key)
    return good


def of_table(raw: dict[str, Any], defaults: Defaults, checking: Checking) -> Service:
    """Return the service of a table, and report its problems."""
    merged, lines = _merged(raw, defaults, checking)
    has = raw.keys() | merged.keys()
    if not _has_process(merged):
        merged = _without_process(merged, raw)
    if not {"exec", "worker"} & has and not _is_trap(merged) and not ("depends" in raw and raw.keys() <= GROUP):
        checking.problem('has neither exec nor worker: say what it runs, like exec = "/usr/sbin/named"')
    if "function_user" in raw:
        checking.problem("is for the functions of a module, and a table has none", "function_user")
    merged.pop("function_user", None)
    _check(merged, raw, checking)
    return _service(merged, checking, lines)


def of_module(
    raw: dict[str, Any], functions: dict[str, int], defaults: Defaults, checking: Checking
) -> Service:
    """Return the service of a module; `functions` are its own with their lines."""
    raw = _without_services(raw, checking)
    merged, lines = _merged(raw, defaults, checking)
    has_process = _has_process(merged)
    if not has_process:
        merged = _without_process(merged, raw)
    for key in sorted(PROCESS & raw.keys()) if not has_process else ():
        checking.problem("is about a process, and this module has none: it has no exec", key)
    for key in sorted(STANDARD & raw.keys()) if not has_process and "check" not in merged else ():
        checking.problem("is for a process or a check, and this module has none: functions write to the log", key)
    if "function_user" in raw and not (functions and has_process):
        missing = "functions" if not functions else "process: user is that of its functions"
        checking.problem(f"is for a module with functions and a process, and this has no {missing}", "function_user")
    _check(merged, raw, checking)
    if functions and merged.get("accept") is not None:
        checking.problem("does not go with functions: write a table instead of a module", "accept")
    service = _service(merged, checking, {**lines, **{function_key(name): line for name, line in functions.items()}})
    as_root = bool(functions) and has_process and not {"user", "function_user"} & merged.keys()
    return replace(service, functions=tuple(functions), functions_as_root=as_root)


def _without_services(raw: dict[str, Any], checking: Checking) -> dict[str, Any]:
    """Omit and report keys of a module that should have been services before it."""
    good = {}
    for key, value in raw.items():
        if key in KEYS or not {"exec", "worker", "depends"} & (table(value) or {}).keys():
            good[key] = value
            continue
        text = f"{describe(key)} is a table after module(), so it belongs to the module; put services before it"
        checking.problems.add(checking.file, checking.line_of((key,)), f"{checking.name}: {text}")
    return good


def _has_process(merged: Converted) -> bool:
    return "exec" in merged or "worker" in merged or _is_trap(merged)


def _is_trap(merged: Converted) -> bool:
    accept = merged.get("accept")
    return accept is not None and bool(accept.trap)


def _for_sessions(merged: Converted, raw: dict[str, Any]) -> Converted:
    """Omit defaults that do not go with `accept`, where a service has that: they are for other services of the file."""
    accept = merged.get("accept")
    if accept is None:
        return merged
    unused = _NOT_WITH_ACCEPT.keys() - ({"stdout"} if accept.descriptor else set())
    return {key: value for key, value in merged.items() if key in raw or key not in unused}


def _without_process(merged: Converted, raw: dict[str, Any]) -> Converted:
    """Omit defaults about a process if there is none: a group would never feed its watchdog."""
    unused = PROCESS if "check" in merged else PROCESS | STANDARD
    return {key: value for key, value in merged.items() if key in raw or key not in unused}


def function_key(name: str) -> str:
    """Return the key of a module's function among the lines: `restart` and `status` are also keys."""
    return f"{name}()"


def is_function_key(key: str) -> bool:
    return key.endswith("()")


def _merged(raw: dict[str, Any], defaults: Defaults, checking: Checking) -> tuple[Converted, dict[str, int]]:
    given = convert(raw, checking)
    lines = {**defaults.lines, **{key: checking.line_of((key,)) for key in raw}}
    return _for_sessions(_merge(given, raw, defaults.values), raw), lines


def _unknown(key: str, checking: Checking) -> str:
    from supervisor.definitions import synonyms  # only an error needs it

    hint = "" if key.lower() in KEYS else synonyms.key(key)
    hint = hint or did_you_mean(key, KEYS) or synonyms.misspelt_key(key)
    return f"{checking.name}: unknown key {describe(key)}{hint}"


def _service(merged: Converted, checking: Checking, lines: Mapping[str, int]) -> Service:
    has_process = _has_process(merged)
    user, group = _nobody(checking.databases) if has_process or "user" in merged else _root(checking.databases)
    fields: Converted = {"user": user, "group": group, "groups": ()}
    for key, value in merged.items():
        known = KEYS[key]
        if known.part:
            fields.setdefault(known.field, {})[known.part] = value
        elif key == "status":
            fields |= of_status(value)
        else:
            fields[known.field] = value
    if has_process and "user" in merged and "group" not in merged:
        _note_group(fields["user"], fields["group"], fields.get("umask", DEFAULT_UMASK), checking)
    fields["user"], fields["uid"] = fields["user"]
    fields["group"], fields["gid"] = fields["group"]
    groups = fields["groups"]
    fields["groups"] = tuple(name for name, _ in groups)
    fields["gids"] = tuple(gid for _, gid in groups)
    if "function_user" in fields:
        fields["function_user"], uid = fields["function_user"]
        fields["function_ids"] = uid, _primary_group(uid, checking.databases)
    fields["login_env"] = _login(fields["uid"], fields["user"], checking) if fields.get("login_env") else {}
    _derive(fields)
    used = {key: line for key, line in lines.items() if key in merged or is_function_key(key)}
    return Service(name=checking.name, file=checking.file, line=checking.line, lines=used, **fields)


def of_status(status: str) -> Converted:
    """Return the fields of `status`."""
    return {"autostart": status != "stop", "demand": status == DEMAND}


def _note_group(user: Account, group: Account, umask: int, checking: Checking) -> None:
    """Note that a user does not bring its group along, as it does elsewhere: it lacks the rights of that group.

    Root needs none of these rights, but may open its files to the group of other services.
    """
    name, uid = user
    matters = uid or ~umask & stat.S_IRWXG
    own = checking.databases.accounts.primary_group(uid) if checking.databases.root and matters else None
    if own is not None and own[1] != group[1]:
        text = f'{name!r} runs with group {group[0]!r}, not its own: add group = "{own[0]}", or group = "nobody"'
        checking.notice(text, "user", about=[checking.name])


def _primary_group(uid: int, databases: Databases) -> int:
    entry = databases.accounts.entry(uid) if databases.root else None
    if entry is not None:
        return entry.pw_gid
    return databases.accounts.nobody()[3] if databases.root else os.getegid()


def _login(uid: int, user: str, checking: Checking) -> dict[str, str]:
    """Return the variables that login(1) sets for a user."""
    entry = checking.databases.accounts.entry(uid)
    if entry is None:
        checking.problem(f"user {user!r} has no entry that would say a home and a shell", "login_env")
        return {}
    names = {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name, "SHELL": entry.pw_shell}
    return {"PATH": ROOT_PATH if uid == 0 else USER_PATH, **names, "SHELL": entry.pw_shell or DEFAULT_SHELL}


def _nobody(databases: Databases) -> tuple[Account, Account]:
    user, uid, group, gid = databases.accounts.nobody()
    return ((user, uid), (group, gid)) if databases.root else ((user, os.geteuid()), (group, os.getegid()))


def _root(databases: Databases) -> tuple[Account, Account]:
    return (("root", 0), ("root", 0)) if databases.root else (("root", os.geteuid()), ("root", os.getegid()))


def _merge(given: Converted, raw: dict[str, Any], defaults: Converted) -> Converted:
    """Add defaults for keys that the service does not have; its own `exec` replaces a default `worker`."""
    replaced = set(raw)
    if "worker" in raw:
        replaced.add("exec")
    elif "exec" in raw:
        replaced |= {"worker", "options"}
    return {key: value for key, value in defaults.items() if key not in replaced} | given


def _check(merged: Converted, raw: dict[str, Any], checking: Checking) -> None:
    """Check the keys together."""
    has = raw.keys() | merged.keys()
    if "exec" in has and "worker" in has:
        checking.problem("a service has either exec or worker, not both", "worker")
    if "options" in has and "worker" not in has:
        checking.problem("only a worker has options; a program gets arg and env", "options")
    if merged.get("task") and merged.get("restart") == "always":
        checking.problem("a task runs once, it cannot be restarted always", "restart")
    if "worker" in has and merged.get("argv0"):
        checking.problem("is for a program, and a worker has none", "argv0")
    if "worker" in has and (merged.get("listen_fds") is False or merged.get("expand_env")):
        checking.problem("a worker finds its descriptors by LISTEN_FDS, and has no arguments", "worker")
    if merged.get("io_class") == "idle" and "io_priority" in merged:
        checking.problem('the io_class "idle" has no priorities', "io_priority")
    _check_forking(merged, checking)
    _check_ready(merged, checking)
    _check_demand(merged, raw, checking)
    _check_accept(merged, raw, checking)
    _check_idle(merged, raw, checking)
    if merged.get("control") and any(entry.name == "control" for entry in merged.get("fd", ())):
        checking.problem("another descriptor has the name 'control', which control = true gives to its socket", "fd")


def _check_forking(merged: Converted, checking: Checking) -> None:
    """Check `forking`: a daemon is up once it is in the background, and no protocol reaches it there."""
    if not merged.get("forking"):
        if "pid_file" in merged:
            checking.problem("goes with forking = true alone", "pid_file")
        return
    wrong = {
        "worker": "worker" in merged,
        "task": merged.get("task"),
        "ready": merged.get("ready", "exec") != "exec",
        "watchdog": merged.get("watchdog") is not None,
        "kill_mode": merged.get("kill_mode") == "process",
    }
    for key, is_wrong in wrong.items():
        if is_wrong:
            checking.problem("does not go with forking = true: have the program stay in the foreground", key)


def _check_demand(merged: Converted, raw: dict[str, Any], checking: Checking) -> None:
    """Check `status = "demand"`: a client has to be able to start the service."""
    table = (*merged.get("fd", ()), *(merged[slot] for slot in STANDARD & merged.keys()))
    if merged.get("flush"):
        if merged.get("status") != DEMAND:
            checking.problem('goes with status = "demand" alone', "flush")
        elif not any(spec.has_datagrams for spec in table):
            checking.problem("needs a socket for datagrams in fd or stdin: udp(…) or dgram(…)", "flush")
    if merged.get("status") != DEMAND:
        return
    if not _has_process(merged):
        if "status" in raw:
            checking.problem("is \"demand\", and there is no process that a client could start", "status")
        merged.pop("status")
        return
    if merged.get("task"):
        checking.problem('does not go with status = "demand": a task that is done is not started by a client', "task")
    if not merged.get("control") and not any(spec.may_wake for spec in table):
        text = 'is "demand", so a socket in fd or stdin that is not connected, or a FIFO, has to tell of clients'
        checking.problem(text, "status")


def _check_accept(merged: Converted, raw: dict[str, Any], checking: Checking) -> None:
    """Check `accept`: the main process is the acceptor, and the program knows its connection alone."""
    accept = merged.get("accept")
    if accept is None:
        return
    if "exec" not in merged and not accept.trap:
        checking.problem("needs exec: a program that is started for each connection", "accept")
    if "exec" in merged and accept.trap:
        checking.problem("does not go with accept.trap: a trap serves nobody", "exec")
    table = merged.get("fd", ())
    if not table:
        checking.problem("needs listening sockets in fd: tcp(…), stream(…) or seqpacket(…)", "accept")
    for number, spec in enumerate(table, 1):
        if not spec.accepts:
            text = f"{spec.describe()} has no connections: with accept, all of fd are listening sockets"
            checking.problem(text, "fd", number)
    default = Service("")
    wrong = {
        key: why for key, why in _NOT_WITH_ACCEPT.items() if merged.get(key, plain := getattr(default, key)) != plain
    }
    if accept.descriptor != 0:
        wrong.pop("stdout", None)
    for key, why in wrong.items():
        checking.problem(f"does not go with accept: {why}", key)
    access.check_clients(accept, raw.get("accept"), [spec for spec in table if spec.accepts], checking)


def _check_idle(merged: Converted, raw: dict[str, Any], checking: Checking) -> None:
    """Check `idle_stop`: a client has to be able to wake the service, and each of its connections has to be seen."""
    if merged.get("idle_stop") is None:
        if "idle_cpu" in raw:
            checking.problem("goes with idle_stop alone", "idle_cpu")
        return
    if merged.get("accept") is not None:
        return
    if merged.get("status") != DEMAND:
        checking.problem('needs status = "demand": no client would wake the service again', "idle_stop")
    for number, spec in enumerate(merged.get("fd", ()), 1):
        if spec.accepts and spec.transparent:
            text = f"connections of {spec.describe()} have any address (transparent), so idle_stop cannot see them"
            checking.problem(text, "fd", number)


def _check_ready(merged: Converted, checking: Checking) -> None:
    if "ready_fd" not in merged:
        return
    if merged.get("ready", "exec") != "fd":
        checking.problem('goes with ready = "fd" alone', "ready_fd")
        return
    least = first_free(merged)
    if merged["ready_fd"] < least:
        taken = f"its table of {count(len(merged.get('fd', ())), 'descriptor')} from {FIRST_FD} up"
        taken += ", the control socket" if merged.get("control") else ""
        taken += ", the worker's options" if merged.get("worker") else ""
        store = merged.get("fdstore_max", 0)
        taken += f" and up to {store} stored ones" if store else ""
        checking.problem(f"{merged['ready_fd']} is taken by {taken}; the first free number is {least}", "ready_fd")


def first_free(merged: Converted) -> int:
    """Return the first descriptor number that neither the table nor the store can reach."""
    added = bool(merged.get("control")) + bool(merged.get("worker"))  # the control socket, a worker's options
    return FIRST_FD + len(merged.get("fd", ())) + added + int(merged.get("fdstore_max", 0))


def _derive(fields: dict[str, Any]) -> None:
    """Set defaults that follow from other keys."""
    if fields.get("task"):
        fields.setdefault("restart", "never")
    if fields.get("accept") is not None:
        fields["demand"] = True
        fields.setdefault("stderr", Descriptor("log", "stderr"))  # the acceptor writes there, too
        fields["fd"] = tuple(_as_accepted(spec, fields["accept"]) for spec in fields.get("fd", ()))
    if fields.get("demand"):
        fields.setdefault("start_limit", None)  # nobody can close a port by clients that make the service fail
    if fields.get("ready") == "fd":
        fields.setdefault("ready_fd", first_free(fields))
    netns = fields.get("netns")
    for slot in STANDARD & fields.keys():
        fields[slot] = in_namespace(fields[slot], netns)
    if "fd" in fields:
        fields["fd"] = tuple(in_namespace(descriptor, netns) for descriptor in fields["fd"])


def _as_accepted(spec: Descriptor, accept: Accept) -> Descriptor:
    """Return a listening socket with the options that `accept` sets for all of them."""
    if spec.kind != "tcp":
        return spec
    return replace(
        spec, interface=spec.interface or accept.interface, defer_accept=spec.defer_accept or accept.defer_accept
    )


def in_namespace(descriptor: Descriptor, netns: str | None) -> Descriptor:
    """Return `descriptor` for a service of the namespace `netns`; None stands for that of spawnd.

    Until a service is complete, a descriptor's `netns` is None if its definition names none, and '' if it is
    `false`: a default of the file may be read before the service whose namespace counts.
    """
    if not descriptor.belongs_to_namespace:
        return descriptor
    found = netns if descriptor.netns is None else descriptor.netns or None
    return descriptor if found == descriptor.netns else replace(descriptor, netns=found)
