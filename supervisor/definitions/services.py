"""One table or module of a definition file to one `Service`: keys by the schema, then what they mean together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from supervisor.definitions.namespace import in_namespace
from supervisor.definitions.near import hint
from supervisor.definitions.problems import Bad
from supervisor.definitions.schema import KEYS
from supervisor.definitions.scope import Host, Scope
from supervisor.definitions.service import Service
from supervisor.definitions.values import describe

FIRST_FD = 3
STANDARD = frozenset({"stdin", "stdout", "stderr"})

GROUP = frozenset({"description", "depends", "after", "conflicts", "status"})  # all that a group has
PROCESS = frozenset({  # keys that are about a process, and so for a module with one
    "arg", "chroot", "control", "fdstore_max", "handover_signal", "kill_mode", "ready", "ready_fd", "reload_signal",
    "stop_signal", "watchdog",
})  # fmt: skip

Converted = dict[str, Any]  # values by key
Account = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Defaults:
    """`_DEFAULT` of a file, with the lines of its keys."""

    values: Converted
    lines: Mapping[str, int]


def convert(values: dict[str, Any], scope: Scope) -> Converted:
    """The good keys of a table, converted; the bad ones are reported."""
    good: Converted = {}
    for key, value in sorted(values.items()):  # Lua has no order, messages need one
        try:
            known = KEYS.get(key)
            if known is None:
                scope.problems.add(scope.file, scope.line_of((key,)), _unknown(key, scope))
            else:
                good[key] = known.convert(value, scope)
        except Bad as error:
            scope.bad(error, key)
    return good


def of_table(raw: dict[str, Any], defaults: Defaults, scope: Scope) -> Service:
    """The service that a table is; what is wrong is reported."""
    merged, lines = _merged(raw, defaults, scope)
    has = raw.keys() | merged.keys()
    if not _has_process(merged):
        merged = _without_process(merged, raw)
    if "exec" not in has and "worker" not in has and not ("depends" in raw and raw.keys() <= GROUP):
        scope.bad(Bad('has neither exec nor worker: say what it runs, like exec = "/usr/sbin/named"'))
    _check(merged, raw, scope)
    return _service(merged, scope, lines)


def of_module(
    raw: dict[str, Any], functions: dict[str, int], text: str, defaults: Defaults, scope: Scope
) -> Service:
    """The service that a module is; `functions` are its own with their lines, of the text with the digest `text`."""
    merged, lines = _merged(raw, defaults, scope)
    has_process = _has_process(merged)
    if not has_process:
        merged = _without_process(merged, raw)
    for key in sorted(PROCESS & raw.keys()) if not has_process else ():
        scope.bad(Bad("is about a process, and this module has none: it has no exec"), key)
    for key in sorted(STANDARD & raw.keys()) if not has_process and "check" not in merged else ():
        scope.bad(Bad("is for a process or a check, and this module has none: functions write to the log"), key)
    _check(merged, raw, scope)
    service = _service(merged, scope, {**lines, **{function_key(name): line for name, line in functions.items()}})
    as_root = bool(functions) and has_process and "user" not in merged
    return replace(service, functions=tuple(functions), functions_as_root=as_root, text=text)


def _has_process(merged: Converted) -> bool:
    return "exec" in merged or "worker" in merged


def _without_process(merged: Converted, raw: dict[str, Any]) -> Converted:
    """Defaults about a process are for what has one: nobody would feed the watchdog of a group."""
    unused = PROCESS if "check" in merged else PROCESS | STANDARD
    return {key: value for key, value in merged.items() if key in raw or key not in unused}


def function_key(name: str) -> str:
    """The key of a module's function among the lines: `restart` and `status` are keys as well."""
    return f"{name}()"


def is_function_key(key: str) -> bool:
    return key.endswith("()")


def _merged(raw: dict[str, Any], defaults: Defaults, scope: Scope) -> tuple[Converted, dict[str, int]]:
    given = convert(raw, scope)
    lines = {**defaults.lines, **{key: scope.line_of((key,)) for key in raw}}
    return _merge(given, raw, defaults.values), lines


def _unknown(key: str, scope: Scope) -> str:
    return f"{scope.name}: unknown key {describe(key)}{hint(key, KEYS)}"


def _service(merged: Converted, scope: Scope, lines: Mapping[str, int]) -> Service:
    has_process = _has_process(merged)
    user, group = _nobody(scope.host) if has_process or "user" in merged else _root(scope.host)
    fields: Converted = {"user": user, "group": group, "groups": ()}
    for key, value in merged.items():
        known = KEYS[key]
        if known.part:
            fields.setdefault(known.field, {})[known.part] = value
        else:
            fields[known.field or key] = value
    fields["user"], fields["uid"] = fields["user"]
    fields["group"], fields["gid"] = fields["group"]
    groups = fields["groups"]
    fields["groups"] = tuple(name for name, _ in groups)
    fields["gids"] = tuple(gid for _, gid in groups)
    _derive(fields)
    used = {key: line for key, line in lines.items() if key in merged or is_function_key(key)}
    return Service(name=scope.name, file=scope.file, line=scope.line, lines=used, **fields)


def _nobody(host: Host) -> tuple[Account, Account]:
    user, uid, group, gid = host.accounts.nobody()
    return ((user, uid), (group, gid)) if host.root else ((user, os.geteuid()), (group, os.getegid()))


def _root(host: Host) -> tuple[Account, Account]:
    return (("root", 0), ("root", 0)) if host.root else (("root", os.geteuid()), ("root", os.getegid()))


def _merge(given: Converted, raw: dict[str, Any], defaults: Converted) -> Converted:
    """A default holds for a key that the service does not have; its own `exec` replaces a default `worker`."""
    replaced = set(raw)
    if "worker" in raw:
        replaced.add("exec")
    elif "exec" in raw:
        replaced |= {"worker", "options"}
    return {key: value for key, value in defaults.items() if key not in replaced} | given


def _check(merged: Converted, raw: dict[str, Any], scope: Scope) -> None:
    """What keys mean together."""
    has = raw.keys() | merged.keys()
    if "exec" in has and "worker" in has:
        scope.bad(Bad("a service has either exec or worker, not both"), "worker")
    if "options" in has and "worker" not in has:
        scope.bad(Bad("only a worker has options; a program gets arg and env"), "options")
    if merged.get("task") and merged.get("restart") == "always":
        scope.bad(Bad("a task runs once, it cannot be restarted always"), "restart")
    _check_ready(merged, scope)
    if merged.get("control") and any(entry.name == "control" for entry in merged.get("fd", ())):
        scope.bad(Bad("another descriptor has the name 'control', which control = true gives to its socket"), "fd")


def _check_ready(merged: Converted, scope: Scope) -> None:
    if "ready_fd" not in merged:
        return
    if merged.get("ready", "exec") != "fd":
        scope.bad(Bad('goes with ready = "fd" alone'), "ready_fd")
        return
    least = first_free(merged)
    if merged["ready_fd"] < least:
        taken = f"its table of {len(merged.get('fd', ()))} descriptors from {FIRST_FD} up"
        taken += ", the control socket" if merged.get("control") else ""
        taken += ", the worker's options" if merged.get("worker") else ""
        store = merged.get("fdstore_max", 0)
        taken += f" and up to {store} stored ones" if store else ""
        scope.bad(Bad(f"{merged['ready_fd']} is taken by {taken}; the first free number is {least}"), "ready_fd")


def first_free(merged: Converted) -> int:
    """The first descriptor number that neither the table nor the store can reach."""
    added = bool(merged.get("control")) + bool(merged.get("worker"))  # the control socket, a worker's options
    return FIRST_FD + len(merged.get("fd", ())) + added + int(merged.get("fdstore_max", 0))


def _derive(fields: dict[str, Any]) -> None:
    """Defaults that follow from other keys."""
    if fields.get("task"):
        fields.setdefault("restart", "never")
    if fields.get("ready") == "fd":
        fields.setdefault("ready_fd", first_free(fields))
    netns = fields.get("netns")
    for slot in STANDARD & fields.keys():
        fields[slot] = in_namespace(fields[slot], netns)
    if "fd" in fields:
        fields["fd"] = tuple(in_namespace(descriptor, netns) for descriptor in fields["fd"])
