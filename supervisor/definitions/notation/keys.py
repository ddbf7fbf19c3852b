"""The value of each key in the notation of the definition files, by the kind that its field of `Service` names."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from supervisor.definitions import scalars
from supervisor.definitions.notation import lua
from supervisor.definitions.notation.quantity import duration, limit, resource, size, timeout
from supervisor.definitions.service import KEYS, Accept, Backoff, Client, Descriptor, Key, Service

INTERNET = ("udp", "tcp")
STANDARD = ("stdin", "stdout", "stderr")
OPTIONS: dict[str, Callable[[Any], str]] = {
    "backlog": str,
    "mode": lambda mode: lua.string(scalars.show_permissions(mode)),
    "owner": str,
    "group": str,
    "reuseport": lua.boolean,
    "freebind": lua.boolean,
    "transparent": lua.boolean,
    "v6only": lua.boolean,
    "nodelay": lua.boolean,
    "passcred": lua.boolean,
    "mark": str,
    "sndbuf": size,
    "rcvbuf": size,
    "interface": lua.string,
    "defer_accept": timeout,
}

_DEFAULT = Descriptor("log")
_NOT_IN_NAMES = re.compile(r"[:\x00-\x1f\x7f]")
_MAX_NAME = 255

Show = Callable[[Service], str]
ShowEntries = Callable[[Service], dict[str, str]]  # by name; the entries of `fd` by their number from 1 up


def constructor(spec: Descriptor, netns: str = "") -> str:
    """Return `tcp("127.0.0.1", 80, { backlog = 16 })`, for a service of the network namespace `netns`."""
    arguments = _arguments(spec)
    options = _options(spec, netns)
    if options:
        entries = ", ".join(f"{lua.key(name)} = {text}" for name, text in options.items())
        arguments.append(f"{{ {entries} }}")
    return f"{spec.kind}({', '.join(arguments)})"


def _arguments(spec: Descriptor) -> list[str]:
    if spec.kind in INTERNET:
        return [lua.string(spec.host), str(spec.port)]
    if spec.kind == "file":
        return [lua.string(spec.path), lua.string(spec.access)]
    if spec.kind == "log":
        return []
    return [lua.string(spec.path), *(["'connect'"] if spec.connect else [])]


def _options(spec: Descriptor, netns: str) -> dict[str, str]:
    """Return the options whose values differ from the default."""
    found = {}
    if spec.name not in STANDARD and spec.name != _own_name(spec):
        found["name"] = lua.string(spec.name)
    for name, text in OPTIONS.items():
        value = getattr(spec, name)
        if value != getattr(_DEFAULT, name):
            found[name] = text(value)
    if spec.belongs_to_namespace and (spec.netns or "") != netns:
        found["netns"] = lua.string(spec.netns) if spec.netns else "false"
    return found


def _own_name(spec: Descriptor) -> str:
    """Return the name of a descriptor without an explicit one."""
    if spec.kind in INTERNET:
        return str(spec.port)
    last = spec.path.removeprefix("@").rstrip("/").rpartition("/")[2]
    return _NOT_IN_NAMES.sub("_", last)[:_MAX_NAME]


def _text(value: str | None) -> str:
    return lua.string(value) if value else lua.NIL


def _number(value: int | None) -> str:
    return lua.NIL if value is None else str(value)


def _signal(value: int | None) -> str:
    return lua.NIL if value is None else lua.string(scalars.signal_name(value))


def _capabilities(keep: tuple[str, ...] | None) -> str:
    return lua.NIL if keep is None else lua.table({"keep": lua.strings(keep)})


def _cpu_affinity(cpus: tuple[int, ...]) -> str:
    """Return text like `"0-3,5"`."""
    ranges: list[list[int]] = []
    for cpu in cpus:
        if ranges and ranges[-1][-1] == cpu - 1:
            ranges[-1][1:] = [cpu]
        else:
            ranges.append([cpu])
    return lua.string(",".join("-".join(map(str, ends)) for ends in ranges)) if ranges else lua.NIL


def _backoff(backoff: Backoff) -> str:
    return lua.table(
        {
            "first": duration(backoff.first),
            "factor": lua.number(backoff.factor),
            "max": duration(backoff.max),
            "jitter": lua.number(backoff.jitter),
        }
    )


def _accept(accept: Accept | None) -> str:
    """Return the options that differ from the defaults, `true` if there are none."""
    if accept is None:
        return lua.boolean(False)
    found = {name: show(getattr(accept, name)) for name, show in _ACCEPT.items() if _differs(accept, name)}
    if accept.per_source:
        bits = {name: str(getattr(accept, name)) for name in ("v4", "v6") if _differs(accept, name)}
        found["per_source"] = lua.table({"n": str(accept.per_source), **bits}) if bits else str(accept.per_source)
    return lua.table(found) if found else lua.boolean(True)


def _rate(rate: tuple[int, int]) -> str:
    number, seconds = rate
    return lua.string(f"{number}/{_RATE_UNITS[seconds]}")


_RATE_UNITS = {seconds: unit for unit, seconds in scalars.RATES.items()}


def _clients(clients: tuple[Client, ...]) -> str:
    return lua.strings(text for text, _id in clients)


def _differs(accept: Accept, name: str) -> bool:
    return bool(getattr(accept, name) != getattr(_ACCEPTS, name))


_ACCEPTS = Accept()
_ACCEPT: dict[str, Callable[[Any], str]] = {
    "descriptor": str,
    "max": str,
    "rate": _rate,
    "burst": str,
    "source_rate": _rate,
    "only_from": _clients,
    "no_access": _clients,
    "hours": lambda spans: lua.strings(scalars.show_hours(spans)),
    "load_max": lua.number,
    "memory_min": size,
    "on_limit": lua.string,
    "banner": lua.string,
    "banner_refused": lua.string,
    "trap": lua.boolean,
    "deny_time": timeout,
    "session_timeout": timeout,
    "nodelay": lua.boolean,
    "keepalive": lua.boolean,
    "defer_accept": timeout,
    "interface": lua.string,
    "linger": timeout,
    "session_log": lua.string,
    "session_cgroup": lua.boolean,
}
VALUES: dict[str, Callable[[Any], str]] = {
    "accept": _accept,
    "arguments": lua.strings,
    "backoff": _backoff,
    "boolean": lua.boolean,
    "capabilities": _capabilities,
    "choice": _text,
    "command": lambda words: lua.strings(words) if words else lua.NIL,
    "cpu_affinity": _cpu_affinity,
    "description": _text,
    "duration": timeout,
    "environment": lambda values: lua.table({name: lua.string(value) for name, value in values.items()}),
    "environment_files": lua.strings,
    "file_name": _text,
    "group": _text,
    "groups": lua.strings,
    "idle_stop": timeout,
    "integer": _number,
    "limits": lambda limits: lua.table({name: limit(name, pair) for name, pair in limits.items()}),
    "path": _text,
    "positive_timeout": timeout,
    "real_time_signal": _signal,
    "scheduling": _text,
    "services": lua.strings,
    "signal": _signal,
    "start_limit": lambda most: "false" if most is None else str(most),
    "statuses": lambda statuses: lua.braces(map(str, statuses)),
    "stop_timeout": timeout,
    "text": _text,
    "timer_slack": lambda seconds: lua.NIL if seconds is None else duration(seconds),
    "umask": lambda mask: lua.string(scalars.show_permissions(mask)),
    "user": _text,
    "watchdog": timeout,
    "worker": _text,
}


def _standard(service: Service, key: Key) -> str:
    if service.worker and key.name != "stdin" and key.name not in service.lines:
        return lua.NIL  # a worker shares the supervisor's log
    spec: Descriptor = getattr(service, key.field)
    return constructor(spec, service.netns)


def _descriptors(service: Service, key: Key) -> str:
    return lua.braces(constructor(spec, service.netns) for spec in service.own_descriptors())


def _status(service: Service, key: Key) -> str:
    return lua.string("stop" if not service.autostart else "demand" if service.demand else "start")


def _worker_options(service: Service, key: Key) -> str:
    return lua.data(service.options) if service.worker else lua.NIL


def _idle_cpu(service: Service, key: Key) -> str:
    return lua.NIL if service.idle_stop is None else lua.string(f"{service.idle_cpu * 100:g}%")


def _resource(service: Service, key: Key) -> str:
    return resource(key.part, service.resources.get(key.part))


WHOLE: dict[str, Callable[[Service, Key], str]] = {  # kinds whose text needs more than the value
    "cpu_share": _resource,
    "descriptors": _descriptors,
    "idle_cpu": _idle_cpu,
    "memory": _resource,
    "options": _worker_options,
    "processes": _resource,
    "standard": _standard,
    "status": _status,
    "weight": _resource,
}


def _show(key: Key, service: Service) -> str:
    whole = WHOLE.get(key.kind)
    return VALUES[key.kind](getattr(service, key.field)) if whole is None else whole(service, key)


SHOW: dict[str, Show] = {name: partial(_show, key) for name, key in KEYS.items()}


def functions(service: Service) -> str:
    """Return the functions of a service's module and their digest, for people: they are no key."""
    digest = service.functions_digest or service.source_digest
    return f"{', '.join(service.functions)} -- {digest[:12]}" if service.functions else lua.NIL


# keys with many entries, entry by entry


def _env_entries(service: Service) -> dict[str, str]:
    return {name: lua.string(value) for name, value in service.env.items()}


def _options_entries(service: Service) -> dict[str, str]:
    return {name: lua.data(value) for name, value in service.options.items()}


def _limits_entries(service: Service) -> dict[str, str]:
    return {name: limit(name, values) for name, values in service.limits.items()}


def _fd_entries(service: Service) -> dict[str, str]:
    specs = service.own_descriptors()
    return {str(number): constructor(spec, service.netns) for number, spec in enumerate(specs, 1)}


ENTRIES: dict[str, ShowEntries] = {
    "env": _env_entries, "options": _options_entries, "limits": _limits_entries, "fd": _fd_entries,
}  # fmt: skip
