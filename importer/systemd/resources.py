"""Limits, scheduling, resources and privileges of a service."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from importer.systemd import values
from importer.systemd.conversion import Conversion
from importer.systemd.unit_file import Entry
from importer.systemd.values import ValueNotUnderstood
from importer.systemd.words import texts
from importer.values import Value
from supervisor.definitions.notation import quantity
from supervisor.linux.capabilities import CAPABILITIES

Handler = Callable[[Conversion, Sequence[Entry]], None]

SIZE_LIMITS = quantity.SIZE_LIMITS
IO_CLASSES = {"1": "realtime", "2": "best-effort", "3": "idle"}
_CPUS = re.compile(r"[0-9]+(-[0-9]+)?")


def limit(name: str) -> Handler:
    """Return the handler of a resource limit, `LimitNOFILE=soft:hard`."""

    def handle(conversion: Conversion, entries: Sequence[Entry]) -> None:
        soft, colon, hard = entries[-1].value.partition(":")
        value = _limit(name, soft)
        pair: Value = {"soft": value, "hard": _limit(name, hard)} if colon else value
        conversion.part(entries, "limits", name, pair)

    return handle


def _limit(name: str, text: str) -> Value:
    if text == "infinity":
        return "unlimited"
    if name == "cpu":
        number = values.seconds(text)
        return values.duration(float(max(1, round(number or 0))))
    if name == "rttime":
        return values.duration(values.seconds(text, 1e-6) or 0.0)
    if name in SIZE_LIMITS:
        return values.size(text)
    if name == "nice" and text.startswith(("+", "-")):
        return 20 - values.integer(text, -20, 19)
    return values.integer(text, 0, 1 << 40) if not text.endswith(("K", "M", "G")) else values.size_of(text)


def nice(conversion: Conversion, entries: Sequence[Entry]) -> None:
    conversion.key(entries, "nice", values.integer(entries[-1].value, -20, 19))


def oom_score_adjust(conversion: Conversion, entries: Sequence[Entry]) -> None:
    conversion.key(entries, "oom_score_adj", values.integer(entries[-1].value, -1000, 1000))


def cpu_affinity(conversion: Conversion, entries: Sequence[Entry]) -> None:
    words = [word for entry in entries for word in entry.value.replace(",", " ").split()]
    if not words or not all(_CPUS.fullmatch(word) for word in words):
        raise ValueNotUnderstood("only numbers of CPUs and ranges have an equivalent")
    conversion.key(entries, "cpu_affinity", ",".join(words))


def scheduling(conversion: Conversion, entries: Sequence[Entry]) -> None:
    """Convert CPUSchedulingPolicy, with the priority of another directive."""
    policy = entries[-1].value
    if policy == "other":
        conversion.carried(entries)
    elif policy in ("batch", "idle"):
        conversion.key(entries, "scheduling", policy)
    elif policy in ("fifo", "rr"):
        priority = conversion.unit.value("Service", "CPUSchedulingPriority", "1")
        conversion.key(entries, "scheduling", f"{policy}:{values.integer(priority, 1, 99)}")
    else:
        raise ValueNotUnderstood(f"{policy!r} has no equivalent")


def scheduling_priority(conversion: Conversion, entries: Sequence[Entry]) -> None:
    if conversion.unit.value("Service", "CPUSchedulingPolicy") in ("fifo", "rr"):
        conversion.carried(entries, "in scheduling")
    else:
        conversion.left_out(entries, "it goes with the policies fifo and rr")


def io_class(conversion: Conversion, entries: Sequence[Entry]) -> None:
    name = IO_CLASSES.get(entries[-1].value, entries[-1].value)
    if name in ("0", "none"):
        conversion.carried(entries)
    elif name in IO_CLASSES.values():
        conversion.key(entries, "io_class", name)
    else:
        raise ValueNotUnderstood(f"{name!r} is not a class")


def io_priority(conversion: Conversion, entries: Sequence[Entry]) -> None:
    if conversion.unit.value("Service", "IOSchedulingClass") in ("idle", "3"):
        conversion.left_out(entries, "the class idle has no priorities")
    else:
        conversion.key(entries, "io_priority", values.integer(entries[-1].value, 0, 7))


def timer_slack(conversion: Conversion, entries: Sequence[Entry]) -> None:
    number = values.seconds(entries[-1].value, 1e-9)
    if not number:
        raise ValueNotUnderstood("it has to be a time above 0")
    conversion.key(entries, "timer_slack", values.duration(number))


def memory(name: str) -> Handler:
    return lambda conversion, entries: conversion.key(entries, name, values.memory(entries[-1].value))


def weight(name: str) -> Handler:
    return lambda conversion, entries: conversion.key(entries, name, values.integer(entries[-1].value, 1, 10_000))


def cpu_quota(conversion: Conversion, entries: Sequence[Entry]) -> None:
    text = entries[-1].value
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?%", text) or float(text[:-1]) <= 0:
        raise ValueNotUnderstood(f"{text!r} is not a share like 150%")
    conversion.key(entries, "cpu_max", text)


def tasks_max(conversion: Conversion, entries: Sequence[Entry]) -> None:
    text = entries[-1].value
    if text.endswith("%"):
        raise ValueNotUnderstood("a share of the host's processes has to be written as a number")
    value: Value = "unlimited" if text == "infinity" else values.integer(text, 1, 1 << 40)
    conversion.key(entries, "pids_max", value)


def ambient_capabilities(conversion: Conversion, entries: Sequence[Entry]) -> None:
    kept = _capabilities(entries, set())
    conversion.key(entries, "capabilities", {"keep": sorted(kept)})


def capability_bounding_set(conversion: Conversion, entries: Sequence[Entry]) -> None:
    """Convert the bounding set: what root keeps. Other users have only what AmbientCapabilities gives them."""
    kept = _capabilities(entries, set(CAPABILITIES))
    unit = conversion.unit
    if unit.all("Service", "AmbientCapabilities"):
        conversion.carried(entries, "capabilities keeps fewer")
    elif unit.value("Service", "User", "root") not in ("root", "0") or unit.value("Service", "DynamicUser") == "yes":
        conversion.carried(entries, "another user than root has none")
    else:
        conversion.key(entries, "capabilities", {"keep": sorted(kept)})


def _capabilities(entries: Sequence[Entry], everything: set[str]) -> set[str]:
    """Return the names that the lines add up to; a line with `~` takes away, and begins with `everything`."""
    kept: set[str] | None = None
    for entry in entries:
        negated = entry.value.startswith("~")
        names = {word.lower().removeprefix("cap_") for word in texts(entry.value.lstrip("~"))}
        unknown = names - set(CAPABILITIES)
        if unknown:
            raise ValueNotUnderstood(f"unknown capability {sorted(unknown)[0]!r}")
        if kept is None:
            kept = set(everything) if negated else set()
        kept = kept - names if negated else kept | names
    return kept or set()


def file_store(conversion: Conversion, entries: Sequence[Entry]) -> None:
    conversion.key(entries, "fdstore_max", values.integer(entries[-1].value, 0, 1_000_000))


def network_namespace(conversion: Conversion, entries: Sequence[Entry]) -> None:
    path = conversion.unit.expand(entries[-1].value)
    folder, _slash, name = path.rpartition("/")
    if folder not in ("/run/netns", "/var/run/netns") or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,57}", name):
        raise ValueNotUnderstood("only a namespace of /run/netns has an equivalent")
    conversion.key(entries, "netns", name)


HANDLERS: dict[str, Handler] = {
    **{
        f"Limit{name.upper()}": limit(name)
        for name in (
            "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
            "rtprio", "rttime", "sigpending", "stack",
        )
    },
    "AmbientCapabilities": ambient_capabilities,
    "CPUAffinity": cpu_affinity,
    "CPUQuota": cpu_quota,
    "CPUSchedulingPolicy": scheduling,
    "CPUSchedulingPriority": scheduling_priority,
    "CPUWeight": weight("cpu_weight"),
    "CapabilityBoundingSet": capability_bounding_set,
    "FileDescriptorStoreMax": file_store,
    "IOSchedulingClass": io_class,
    "IOSchedulingPriority": io_priority,
    "IOWeight": weight("io_weight"),
    "MemoryHigh": memory("memory_high"),
    "MemoryLimit": memory("memory_max"),
    "MemoryMax": memory("memory_max"),
    "MemorySwapMax": memory("memory_swap_max"),
    "NetworkNamespacePath": network_namespace,
    "Nice": nice,
    "OOMScoreAdjust": oom_score_adjust,
    "TasksMax": tasks_max,
    "TimerSlackNSec": timer_slack,
}  # fmt: skip
