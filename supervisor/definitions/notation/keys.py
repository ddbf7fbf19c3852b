"""Every key that a service can have, with its value in the notation of the definition files."""

from __future__ import annotations

from collections.abc import Callable

from supervisor.definitions import permissions, signals
from supervisor.definitions.notation import lua
from supervisor.definitions.notation.descriptor import constructor
from supervisor.definitions.notation.quantity import duration, limit, resource, timeout
from supervisor.definitions.service import Backoff, Descriptor, Service

Show = Callable[[Service], str]


def _text(field: str) -> Show:
    def show(service: Service) -> str:
        value = getattr(service, field)
        return lua.string(value) if value else lua.NIL

    return show


def _texts(field: str) -> Show:
    return lambda service: lua.strings(getattr(service, field))


def _boolean(field: str) -> Show:
    return lambda service: lua.boolean(getattr(service, field))


def _number(field: str) -> Show:
    def show(service: Service) -> str:
        value = getattr(service, field)
        return lua.NIL if value is None else str(value)

    return show


def _duration(field: str) -> Show:
    return lambda service: timeout(getattr(service, field))


def _signal(field: str) -> Show:
    def show(service: Service) -> str:
        value = getattr(service, field)
        return lua.NIL if value is None else lua.string(signals.show(value))

    return show


def _resource(key: str) -> Show:
    return lambda service: resource(key, service.resources.get(key))


def _standard(slot: str) -> Show:
    def show(service: Service) -> str:
        if service.worker and slot != "stdin" and slot not in service.lines:
            return lua.NIL  # a worker shares the supervisor's log
        spec: Descriptor = getattr(service, slot)
        return constructor(spec, service.netns)

    return show


def _fd(service: Service) -> str:
    return lua.braces(constructor(spec, service.netns) for spec in service.own_descriptors())


def _options(service: Service) -> str:
    return lua.data(service.options) if service.worker else lua.NIL


def _env(service: Service) -> str:
    return lua.table({name: lua.string(value) for name, value in service.env.items()})


def _capabilities(service: Service) -> str:
    return lua.NIL if service.capabilities is None else lua.table({"keep": lua.strings(service.capabilities)})


def _limits(service: Service) -> str:
    return lua.table({name: limit(name, values) for name, values in service.limits.items()})


def _cpu_affinity(service: Service) -> str:
    """`"0-3,5"`."""
    ranges: list[list[int]] = []
    for cpu in service.cpu_affinity:
        if ranges and ranges[-1][-1] == cpu - 1:
            ranges[-1][1:] = [cpu]
        else:
            ranges.append([cpu])
    return lua.string(",".join("-".join(map(str, ends)) for ends in ranges)) if ranges else lua.NIL


def _backoff(service: Service) -> str:
    backoff: Backoff = service.backoff
    return lua.table(
        {
            "first": duration(backoff.first),
            "factor": lua.number(backoff.factor),
            "max": duration(backoff.max),
            "jitter": lua.number(backoff.jitter),
        }
    )


def functions(service: Service) -> str:
    """Those of its module, and which text they are of.  They are no key: it is for people alone."""
    return f"{', '.join(service.functions)} -- {service.text[:12]}" if service.functions else lua.NIL


KEYS: dict[str, Show] = {
    "description": _text("description"),
    "exec": _text("exec"),
    "worker": _text("worker"),
    "options": _options,
    "arg": _texts("arg"),
    "env": _env,
    "env_file": _texts("env_file"),
    "check": lambda service: lua.strings(service.check) if service.check else lua.NIL,
    "user": _text("user"),
    "group": _text("group"),
    "groups": _texts("groups"),
    "cwd": _text("cwd"),
    "umask": lambda service: lua.string(permissions.show(service.umask)),
    "chroot": _text("chroot"),
    "netns": _text("netns"),
    "capabilities": _capabilities,
    "no_new_privs": _boolean("no_new_privs"),
    "stdin": _standard("stdin"),
    "stdout": _standard("stdout"),
    "stderr": _standard("stderr"),
    "fd": _fd,
    "fdstore_max": _number("fdstore_max"),
    "control": _boolean("control"),
    "limits": _limits,
    "nice": _number("nice"),
    "cpu_affinity": _cpu_affinity,
    "oom_score_adj": _number("oom_score_adj"),
    "memory_max": _resource("memory_max"),
    "memory_high": _resource("memory_high"),
    "memory_swap_max": _resource("memory_swap_max"),
    "cpu_weight": _resource("cpu_weight"),
    "cpu_max": _resource("cpu_max"),
    "pids_max": _resource("pids_max"),
    "io_weight": _resource("io_weight"),
    "depends": _texts("depends"),
    "after": _texts("after"),
    "conflicts": _texts("conflicts"),
    "status": lambda service: lua.string("start" if service.autostart else "stop"),
    "task": _boolean("task"),
    "restart": _text("restart"),
    "healthy_after": _duration("healthy_after"),
    "backoff": _backoff,
    "start_limit": lambda service: "false" if service.start_limit is None else str(service.start_limit),
    "ready": _text("ready"),
    "ready_fd": _number("ready_fd"),
    "start_timeout": _duration("start_timeout"),
    "stop_timeout": _duration("stop_timeout"),
    "stop_signal": _signal("stop_signal"),
    "handover_signal": _signal("handover_signal"),
    "reload_signal": _signal("reload_signal"),
    "restart_signal": _signal("restart_signal"),
    "kill_mode": _text("kill_mode"),
    "watchdog": _duration("watchdog"),
}
