"""Identity of the clients and datagrams that wait at a socket without a process, found without a read or an accept.

A process that was started for a client may end without having served it. That is known by a comparison of the
clients that wait at its end with those of its start.
"""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Callable, Iterable, Mapping
from zlib import crc32

from supervisor.definitions.service import Slot
from supervisor.errors import StepError
from supervisor.linux.file_status import is_fifo
from supervisor.linux.socket_state import backlog_length, tcp_clients, unix_clients
from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from supervisor.process.children import AnsweringChild, Children
from supervisor.process.failure import failure_of
from supervisor.process.held_descriptors import Opened
from supervisor.process.network_namespace import enter_namespace

LARGEST_DATAGRAM = 1 << 16
TIME_LIMIT = 2.0  # seconds; a look that takes longer has seen nobody

NOBODY = "?"  # a place in the queue whose client has gone: a reset connection, a datagram with a wrong checksum

Waiting = dict[Slot, frozenset[str]]
"""Clients that wait, by slot of the table; the texts have no meaning but to be equal."""


def can_wait_at(opened: Opened) -> bool:
    """Whether clients can wait at an open descriptor: a socket that is not connected, or a FIFO."""
    return opened.spec.may_wake and (opened.spec.kind != "file" or is_fifo(opened.fd))


def look(loop: Loop, children: Children, table: Mapping[Slot, Opened], done: Callable[[Waiting], None]) -> None:
    """Call `done` once with who waits at these descriptors, of which `can_wait_at` is true.

    A child looks, if the look may take long: the kernel walks through all TCP connections of the host, and a peek at
    a datagram of a Unix socket takes hold of the descriptors in it, whose release may wait. A child also looks at
    sockets in network namespaces, as it has to be there.
    """
    ready = {slot: opened for slot, opened in table.items() if _is_readable(opened.fd)}

    def answered(answer: bytes, in_time: bool) -> None:
        found = json.loads(answer) if in_time and answer else {}
        done({int(slot): frozenset(who) for slot, who in found.items()})

    if not any(opened.spec.kind in ("tcp", "dgram") or opened.spec.netns for opened in ready.values()):
        done({slot: frozenset(who) for slot, who in _look_at_all(ready).items()})
        return
    try:
        fds = [opened.fd for opened in ready.values()]
        AnsweringChild(loop, children, lambda fd: _answer(ready, fd), TIME_LIMIT, answered, fds)
    except OSError as error:
        log.warning("cannot look who waits at a socket: %s", error.strerror)
        done({})


def drop_first(
    loop: Loop,
    children: Children,
    table: Mapping[Slot, Opened],
    condemned: Mapping[Slot, str],
    done: Callable[[dict[Slot, str], set[Slot]], None],
) -> AnsweringChild:
    """Drop the first datagram of each slot if it is the condemned one, while no process reads the sockets.

    Calls `done` once with the identities of the first datagrams, and with the slots of those that were dropped. A
    child does this, as the release of a descriptor in a datagram may wait. Raises OSError.
    """

    def answer(fd: int) -> None:
        found = {slot: _first_datagram(opened.fd)[0] for slot, opened in table.items() if _is_readable(opened.fd)}
        dropped = [slot for slot, who in found.items() if who == condemned.get(slot) and _drop(table[slot].fd)]
        with open(fd, "wb") as pipe:
            pipe.write(json.dumps([found, dropped]).encode())

    def answered(data: bytes, in_time: bool) -> None:
        found, dropped = json.loads(data) if in_time and data else ({}, [])
        done({int(slot): who for slot, who in found.items() if who != NOBODY}, set(dropped))

    return AnsweringChild(loop, children, answer, TIME_LIMIT, answered, [opened.fd for opened in table.values()])


def _drop(fd: int) -> bool:
    with socket.socket(fileno=fd) as sock:
        try:
            sock.recv(1, socket.MSG_DONTWAIT)  # the rest goes with it
        except OSError:
            return False
        finally:
            sock.detach()
    return True


def are_unserved(before: Waiting, now: Waiting) -> bool:
    """Whether anybody waited, and all who did still wait."""
    return any(before.values()) and all(who <= now.get(slot, frozenset()) for slot, who in before.items())


def _answer(table: Mapping[Slot, Opened], fd: int) -> None:
    with open(fd, "wb") as pipe:
        pipe.write(json.dumps(_look_at_all(table)).encode())


def _look_at_all(table: Mapping[Slot, Opened]) -> dict[Slot, list[str]]:
    # those in namespaces come last: only a child enters them, and it stays there
    order = sorted(table.items(), key=lambda item: item[1].spec.netns or "")
    return {slot: _numbered(_look(opened)) for slot, opened in order}


def _numbered(who: Iterable[str]) -> list[str]:
    """Tell equal places in a queue apart by number, so that fewer of them are not the same."""
    seen: dict[str, int] = {}
    for each in who:
        seen[each] = seen.get(each, 0) + 1
    return [f"{each} {number}" for each, count in seen.items() for number in range(count)]


def _look(opened: Opened) -> list[str]:
    """Return who waits at a readable descriptor: nobody is known if the kernel does not tell.

    It does not for thousands of clients of a Unix socket.
    """
    try:
        if opened.spec.netns:
            enter_namespace(opened.spec.netns)
        match opened.spec.kind:
            case "file":
                return ["data"]  # bytes in a FIFO tell nothing of their writers
            case "tcp":
                return _tcp_queue(opened)
            case "stream" | "seqpacket":
                return [str(inode) if inode else NOBODY for inode in unix_clients(opened.fd)]
            case _:
                return _first_datagram(opened.fd)
    except (OSError, StepError) as error:
        log.warning("cannot look who waits at %s: %s", opened.spec.describe(), failure_of(error).cause)
        return []


def _tcp_queue(opened: Opened) -> list[str]:
    """Return the clients of a port. Connections that were reset stay in the backlog, which alone counts them."""
    found = list(tcp_clients(opened.port))
    return found + [NOBODY] * max(backlog_length(opened.fd) - len(found), not found)


def _first_datagram(fd: int) -> list[str]:
    """Return sender, size and checksum of the first datagram; a copy that the client has sent again is the same."""
    with socket.socket(fileno=fd) as sock:
        try:
            data, sender = sock.recvfrom(LARGEST_DATAGRAM, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:  # its checksum was wrong
            return [NOBODY]
        finally:
            sock.detach()
    return [f"{sender} {len(data)} {crc32(data)}"]


def _is_readable(fd: int) -> bool:
    """Whether a descriptor would wake its service: an error that nobody takes out of a socket does, too."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return any(events & (select.POLLIN | select.POLLERR) for _fd, events in poll.poll(0))
