"""The descriptor table of a service: what spawnd holds open for it, over all its restarts."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping
from dataclasses import replace
from socket import socket

from supervisor.definitions.service import Descriptor, Service
from supervisor.process.descriptors import Opened, close_descriptor, is_null, open_descriptor, rewind
from supervisor.process.network_namespace import namespace_of_name, namespace_of_socket

STDIO = ("stdin", "stdout", "stderr")


def wanted(service: Service) -> dict[str, Descriptor]:
    """What a service's table has to hold, by slot: `stdin`, `stdout`, `stderr` and the numbers from 3 up.

    Left out is what is not the table's: `/dev/null`, which the child opens by itself, and `log()`.
    """
    slots = {slot: getattr(service, slot) for slot in STDIO}
    slots.update({str(number): spec for number, spec in enumerate(service.fd, 3)})
    return {slot: spec for slot, spec in slots.items() if spec.kind != "log" and not is_null(spec)}


def open_all(specs: Mapping[str, Descriptor]) -> dict[str, Opened]:
    """Open all, by slot, or raise what one of them raised and leave none open."""
    opened: dict[str, Opened] = {}
    try:
        for slot, spec in specs.items():
            opened[slot] = open_descriptor(spec)
    except BaseException:
        close_all(opened)
        raise
    return opened


def close_all(opened: dict[str, Opened]) -> None:
    """Close them and empty the dict."""
    while opened:
        close_descriptor(opened.popitem()[1])


def claim(specs: Mapping[str, Descriptor], have: Container[str], pool: dict[str, Opened]) -> dict[str, Opened]:
    """Take out of `pool` what is wanted in slots that are not in `have`, whatever its slot was there."""
    claimed: dict[str, Opened] = {}
    for slot, spec in specs.items():
        match = next((old for old, opened in pool.items() if opened.spec == spec), None)
        if slot not in have and match is not None:
            claimed[slot] = pool.pop(match)
    return claimed


def is_displaced(opened: Opened) -> bool:
    """Whether it is a socket in a network namespace other than the one that has the name of its own now."""
    netns = opened.spec.netns
    if not netns:
        return False
    there = namespace_of_socket(opened.fd)
    return there is not None and namespace_of_name(netns) not in (None, there)


class Table:
    """The open descriptors of one service by slot.  It owns them all."""

    def __init__(self) -> None:
        self._opened: dict[str, Opened] = {}

    def open_missing(self, service: Service) -> None:
        """Open what the service wants and is not open yet: all of it, or StepError and none of it."""
        self._opened.update(open_all(self.missing(service)))

    def close_displaced(self) -> None:
        """Close the sockets in network namespaces whose names others have by now: nobody reaches them there."""
        for slot in [slot for slot, opened in self._opened.items() if is_displaced(opened)]:
            close_descriptor(self._opened.pop(slot))

    @property
    def is_displaced(self) -> bool:
        """Whether there are such sockets."""
        return any(is_displaced(opened) for opened in self._opened.values())

    def missing(self, service: Service) -> dict[str, Descriptor]:
        """What the service wants and is not open yet, by slot."""
        return {slot: spec for slot, spec in wanted(service).items() if slot not in self._opened}

    def adopt(self, service: Service, ready: dict[str, Opened]) -> None:
        """Become the table of another definition: keep what both want, take over `ready`, close the rest."""
        ready.update(claim(wanted(service), ready, self._opened))
        left, self._opened = self._opened, ready
        close_all(left)

    def give(self, slot: str) -> Opened:
        """Give up what is in a slot, to somebody who owns it from now on."""
        return self._opened.pop(slot)

    def rewind(self) -> None:
        """Before a start: files are read from their beginning again, though the last process moved on in them."""
        for opened in self._opened.values():
            rewind(opened)

    def fd(self, slot: str) -> int:
        """The descriptor in a slot that `open_missing` has filled; it stays the table's."""
        return self._opened[slot].fd

    def as_bound(self, slot: str, spec: Descriptor) -> Descriptor:
        """`spec`, with the port that the kernel has chosen where it is open and asks for port 0."""
        opened = self._opened.get(slot)
        if opened is None or opened.spec != spec or spec.kind not in ("tcp", "udp") or spec.port:
            return spec
        with socket(fileno=os.dup(opened.fd)) as sock:
            return replace(spec, port=sock.getsockname()[1])

    def close(self) -> None:
        close_all(self._opened)

    def __iter__(self) -> Iterator[tuple[str, Opened]]:
        return iter(self._opened.items())

    def __len__(self) -> int:
        return len(self._opened)
