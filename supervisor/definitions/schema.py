"""Every key that a service can have: the field of `Service` that it fills, and what converts its value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from supervisor.definitions import permissions
from supervisor.definitions.convert import account, mapping, number, resources, sequence, text
from supervisor.definitions.convert.affinity import cpu_affinity
from supervisor.definitions.convert.capabilities import capabilities
from supervisor.definitions.convert.descriptor import entries, standard
from supervisor.definitions.convert.limits import limits
from supervisor.definitions.convert.worker import worker
from supervisor.definitions.scope import Scope

Convert = Callable[[Any, Scope], Any]


@dataclass(frozen=True, slots=True)
class Key:
    """How one key is read.  A key with `part` fills one entry of a field that is a dict."""

    convert: Convert
    field: str = ""
    part: str = ""


def _umask(value: object, scope: Scope) -> int:
    return permissions.umask(value)


def _started(value: object, scope: Scope) -> bool:
    return text.choice("stop", "start")(value, scope) == "start"


def _resource(key: str, convert: Convert) -> Key:
    return Key(convert, "resources", key)


KEYS: dict[str, Key] = {
    "description": Key(text.description),
    # what it runs
    "exec": Key(text.absolute),
    "worker": Key(worker),
    "options": Key(mapping.options),
    "arg": Key(sequence.arguments),
    "env": Key(mapping.environment),
    "env_file": Key(sequence.paths),
    "check": Key(sequence.command),
    # as whom and where
    "user": Key(account.user),
    "group": Key(account.group),
    "groups": Key(account.groups),
    "cwd": Key(text.absolute),
    "umask": Key(_umask),
    "chroot": Key(text.absolute),
    "netns": Key(text.file_name),
    "capabilities": Key(capabilities),
    "no_new_privs": Key(number.boolean),
    # descriptors
    "stdin": Key(standard("stdin")),
    "stdout": Key(standard("stdout")),
    "stderr": Key(standard("stderr")),
    "fd": Key(entries),
    "fdstore_max": Key(number.integer(0, 1_000_000)),
    "control": Key(number.boolean),
    # limits and resources
    "limits": Key(limits),
    "nice": Key(number.integer(-20, 19)),
    "cpu_affinity": Key(cpu_affinity),
    "oom_score_adj": Key(number.integer(-1000, 1000)),
    "memory_max": _resource("memory_max", resources.memory),
    "memory_high": _resource("memory_high", resources.memory),
    "memory_swap_max": _resource("memory_swap_max", resources.memory),
    "cpu_weight": _resource("cpu_weight", resources.weight),
    "cpu_max": _resource("cpu_max", resources.cpu),
    "pids_max": _resource("pids_max", resources.processes),
    "io_weight": _resource("io_weight", resources.weight),
    # order
    "depends": Key(sequence.services("depends")),
    "after": Key(sequence.services("after")),
    "conflicts": Key(sequence.services("conflicts")),
    # life
    "status": Key(_started, "autostart"),
    "task": Key(number.boolean),
    "restart": Key(text.choice("always", "on-failure", "never")),
    "healthy_after": Key(number.duration),
    "backoff": Key(mapping.backoff),
    "start_limit": Key(number.start_limit),
    "ready": Key(text.choice("exec", "notify", "fd")),
    "ready_fd": Key(number.integer(3, 1_000_000)),
    "start_timeout": Key(number.positive_timeout),
    "stop_timeout": Key(number.timeout),
    "stop_signal": Key(number.signal),
    "handover_signal": Key(number.signal),
    "reload_signal": Key(number.signal),
    "restart_signal": Key(number.real_time_signal),
    "kill_mode": Key(text.choice("all", "process")),
    "watchdog": Key(number.watchdog),
}
