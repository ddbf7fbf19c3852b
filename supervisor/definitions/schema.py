"""The converter of each key, by the kind that its field of `Service` names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from supervisor.definitions.checking import Checking
from supervisor.definitions.convert import account, kernel, plain, tables
from supervisor.definitions.convert.descriptor import entries, standard
from supervisor.definitions.programs import worker
from supervisor.definitions.service import KEYS, Key

Convert = Callable[[Any, Checking], Any]


CONVERTERS: dict[str, Convert] = {
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
    "group": account.group,
    "groups": account.groups,
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
    "start_or_stop": plain.start_or_stop,
    "stop_timeout": plain.stop_timeout,
    "timer_slack": plain.timer_slack,
    "umask": plain.umask,
    "user": account.user,
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


def _converter(key: Key) -> Convert:
    return MAKERS[key.kind](key.name, *key.arguments) if key.kind in MAKERS else CONVERTERS[key.kind]


CONVERT: dict[str, Convert] = {name: _converter(key) for name, key in KEYS.items()}
