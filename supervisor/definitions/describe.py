"""Descriptors in words, for people to read."""

from __future__ import annotations

from supervisor.definitions.service import Descriptor


def describe(spec: Descriptor) -> str:
    """`udp 127.0.0.1:69`, `stream /run/x`, `file /etc/y r`, `log`."""
    where = f" in netns {spec.netns}" if spec.netns else ""
    match spec.kind:
        case "udp" | "tcp":
            host = f"[{spec.host}]" if ":" in spec.host else spec.host
            return f"{spec.kind} {host}:{spec.port}{where}"
        case "file":
            return f"file {spec.path} {spec.access}"
        case "log":
            return "log"
        case _:
            return f"{spec.kind} {spec.path}{' connected' if spec.connect else ''}{where}"
