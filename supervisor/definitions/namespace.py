"""In which network namespace the sockets of a service are made.

Until a service is complete a descriptor's `netns` is None where its definition does not say, and empty
where it says `false`.  A default of the file may be read before the service whose namespace counts.
"""

from __future__ import annotations

from dataclasses import replace

from supervisor.definitions.service import Descriptor


def in_namespace(descriptor: Descriptor, netns: str | None) -> Descriptor:
    """`descriptor` in a service of the namespace `netns`; None is where spawnd is."""
    if not belongs_to_namespace(descriptor):
        return descriptor
    found = netns if descriptor.netns is None else descriptor.netns or None
    return descriptor if found == descriptor.netns else replace(descriptor, netns=found)


def belongs_to_namespace(descriptor: Descriptor) -> bool:
    """Files, and sockets that are files, are the same in every network namespace."""
    return descriptor.kind in ("udp", "tcp") or descriptor.path.startswith("@")
