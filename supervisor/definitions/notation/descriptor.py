"""Descriptors as the calls of the constructors that describe them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from supervisor.definitions import permissions
from supervisor.definitions.namespace import belongs_to_namespace
from supervisor.definitions.notation import lua
from supervisor.definitions.notation.quantity import size
from supervisor.definitions.service import Descriptor

INTERNET = ("udp", "tcp")
STANDARD = ("stdin", "stdout", "stderr")
OPTIONS: dict[str, Callable[[Any], str]] = {
    "backlog": str,
    "mode": lambda mode: lua.string(permissions.show(mode)),
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
}

_DEFAULT = Descriptor("log")
_NOT_IN_NAMES = re.compile(r"[:\x00-\x1f\x7f]")
_MAX_NAME = 255


def constructor(spec: Descriptor, netns: str = "") -> str:
    """`tcp("127.0.0.1", 80, { backlog = 16 })`, for a service of the network namespace `netns`."""
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
    """What has another value than it has by itself."""
    found = {}
    if spec.name not in STANDARD and spec.name != _own_name(spec):
        found["name"] = lua.string(spec.name)
    for name, text in OPTIONS.items():
        value = getattr(spec, name)
        if value != getattr(_DEFAULT, name):
            found[name] = text(value)
    if belongs_to_namespace(spec) and (spec.netns or "") != netns:
        found["netns"] = lua.string(spec.netns) if spec.netns else "false"
    return found


def _own_name(spec: Descriptor) -> str:
    """The name that it has unless the definition says another."""
    if spec.kind in INTERNET:
        return str(spec.port)
    last = spec.path.removeprefix("@").rstrip("/").rpartition("/")[2]
    return _NOT_IN_NAMES.sub("_", last)[:_MAX_NAME]
