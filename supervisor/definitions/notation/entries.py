"""Keys that hold many entries, entry by entry, in the notation of the definition files."""

from __future__ import annotations

from collections.abc import Callable

from supervisor.definitions.notation import lua
from supervisor.definitions.notation.descriptor import constructor
from supervisor.definitions.notation.quantity import limit
from supervisor.definitions.service import Service

ShowEntries = Callable[[Service], dict[str, str]]  # by name, those of `fd` by their number from 1 up


def _env(service: Service) -> dict[str, str]:
    return {name: lua.string(value) for name, value in service.env.items()}


def _options(service: Service) -> dict[str, str]:
    return {name: lua.data(value) for name, value in service.options.items()}


def _limits(service: Service) -> dict[str, str]:
    return {name: limit(name, values) for name, values in service.limits.items()}


def _fd(service: Service) -> dict[str, str]:
    specs = service.own_descriptors()
    return {str(number): constructor(spec, service.netns) for number, spec in enumerate(specs, 1)}


ENTRIES: dict[str, ShowEntries] = {"env": _env, "options": _options, "limits": _limits, "fd": _fd}
