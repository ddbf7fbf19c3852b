"""The descriptors that spawnd holds open for services, over all their restarts, and the table of each service.

They are opened by root, once.  Opening blocks for no longer than a local system call takes: no name is looked up, no
FIFO waits for its other end, no connect waits for room in a backlog.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from supervisor.definitions.service import Descriptor, Service
from supervisor.errors import StepError
from supervisor.linux.socket_state import backlog_length, has_lost_peer, queue_length
from supervisor.notify.safe_close import Closer
from supervisor.plural import count
from supervisor.process.files import EMPTIED, Rights, inode_of, open_file, rights_of
from supervisor.process.network_namespace import namespace_of_name, namespace_of_socket, run_in_namespace
from supervisor.process.paths import Mark, Sight, refined
from supervisor.process.slots import FIRST, STDIO, Slot
from supervisor.process.sockets import open_internet, open_unix, shut_down_unix, unlink_same

NULL_PATH = "/dev/null"
INTERNET = frozenset({"udp", "tcp"})
UNIX = frozenset({"stream", "dgram", "seqpacket"})


@dataclass(frozen=True, slots=True)
class Opened:
    """A descriptor that is open, and what has to be known to close it: plain data.

    The holder owns `fd`.  `inode` is device and number of the regular file, or of the socket file that
    `bind` made, which fstat on the socket does not tell; None where there is none.  `port` is the one that the kernel
    has chosen: it is asked at once, as getsockname(2) waits for a process that hangs while it uses the socket.
    """

    spec: Descriptor
    fd: int
    inode: tuple[int, int] | None = None
    port: int = 0


def is_null(spec: Descriptor) -> bool:
    """Whether `spec` is /dev/null: not worth a descriptor of spawnd for each service, the child opens it."""
    return spec.kind == "file" and spec.path == NULL_PATH


def open_descriptor(spec: Descriptor, rights: Rights | None = None) -> Opened:
    """Open `spec`, close-on-exec and in blocking mode, as daemons expect; the caller owns the descriptor.

    `rights` are those of the service's user, for paths beyond a link that others than root can have set; without
    them such a link is an error.  Raises StepError with the step (`open`, `bind tcp 127.0.0.1:80`, `connect`, …),
    the path and the errno; nothing half-made stays.  `log` descriptors are the log worker's to make.
    """
    if spec.kind == "file":
        fd = open_file(spec, rights)
        return Opened(spec, fd, inode_of(fd))
    if spec.netns:
        return run_in_namespace(spec.netns, lambda: _open_socket(spec, rights))
    return _open_socket(spec, rights)


def _open_socket(spec: Descriptor, rights: Rights | None) -> Opened:
    if spec.kind in INTERNET:
        fd = open_internet(spec)
        return Opened(spec, fd, port=spec.port or _port_of(fd))
    if spec.kind in UNIX:
        return Opened(spec, *open_unix(spec, rights))
    raise ValueError(f"no descriptor of kind {spec.kind!r} is opened here")


def _port_of(fd: int) -> int:
    with socket.socket(fileno=os.dup(fd)) as sock:
        port: int = sock.getsockname()[1]
        return port


def close_descriptors(closing: Iterable[Opened], closer: Closer) -> None:
    """Close descriptors and remove the socket files that came with them, unless others took their place.

    The addresses of sockets are free at once.  A service may share each of them with processes that live on, and
    have put it into an epoll, so all closes are `closer`'s business.
    """
    bound: list[int] = []
    others: list[int] = []
    for opened in closing:
        if opened.spec.kind in UNIX:
            _remove_socket_file(opened)
            others += shut_down_unix(opened.fd)
        is_bound = opened.spec.kind in INTERNET or opened.spec.path.startswith("@")
        (bound if is_bound else others).append(opened.fd)
    if bound:
        closer.release(bound)
    if others:
        closer.close(others)


def close_descriptor(opened: Opened, closer: Closer) -> None:
    """Close one, as `close_descriptors` does."""
    close_descriptors([opened], closer)


def _remove_socket_file(opened: Opened) -> None:
    """Before the close: as long as the socket lives, its inode's number is no other file's.

    A socket file that cannot be removed does no harm: the next bind finds it stale.
    """
    if opened.inode is not None:
        with contextlib.suppress(OSError):
            unlink_same(opened.spec.path, opened.inode)


def mark(slot: Slot, opened: Opened) -> Mark | None:
    """The mark that a look at its path is compared with; None where no path is to lead to it."""
    if opened.inode is None:
        return None
    return Mark(slot, opened.spec.path, *opened.inode, opened.spec.kind in UNIX)


def has_waiting(opened: Opened) -> bool:
    """Whether clients, or datagrams, wait on a socket to be taken."""
    if opened.spec.kind not in UNIX | INTERNET or opened.spec.connect:
        return False
    poll = select.poll()
    poll.register(opened.fd, select.POLLIN)
    return bool(poll.poll(0))


def has_lost_server(opened: Opened) -> bool:
    """Whether it is a connected Unix socket whose other end was closed, so that nobody will ever answer there."""
    if not opened.spec.connect or opened.spec.kind not in UNIX:
        return False
    if opened.spec.kind == "dgram":
        with contextlib.suppress(OSError):  # a kernel that does not say it
            return has_lost_peer(opened.fd)
        return False
    poll = select.poll()
    poll.register(opened.fd, 0)
    return any(events & select.POLLHUP for _fd, events in poll.poll(0))


def waiting(opened: Opened) -> str:
    """The clients that wait on a socket to be taken, in words; empty where none do."""
    if not has_waiting(opened):
        return ""
    if opened.spec.kind in ("dgram", "udp"):
        return "datagrams"
    length = backlog_length if opened.spec.kind in INTERNET else queue_length
    try:
        return count(length(opened.fd), "client")
    except OSError:
        return "clients"  # the kernel does not say how many: not of a Unix socket in another network namespace


def is_rewound(opened: Opened) -> bool:
    """Whether it is a regular file that each start sets back to its beginning.

    The offset belongs to the open file, which outlives the process.  A file opened with `a` has none.  The child does
    that: lseek(2) waits for a process that hangs while it reads the file.
    """
    return opened.spec.kind == "file" and opened.spec.access != "a"


def is_emptied(opened: Opened) -> bool:
    """Whether it is a regular file that each start truncates, as fopen(3) does with `w` and `w+`.

    The child does that, once it is sure that the file still is the one at its path.
    """
    return opened.spec.kind == "file" and opened.spec.access in EMPTIED and opened.inode is not None


def wanted(service: Service) -> dict[Slot, Descriptor]:
    """The wanted content of a service's table, by slot.

    Left out is what is not the table's: `/dev/null`, which the child opens by itself, and `log()`.
    """
    slots: dict[Slot, Descriptor] = {slot: getattr(service, name) for slot, name in enumerate(STDIO)}
    slots.update(enumerate(service.fd, FIRST))
    return {slot: spec for slot, spec in slots.items() if spec.kind != "log" and not is_null(spec)}


def open_all(specs: Mapping[Slot, Descriptor], closer: Closer, rights: Rights | None = None) -> dict[Slot, Opened]:
    """Open all for a user with `rights`, by slot, or raise what one of them raised and leave none open."""
    opened: dict[Slot, Opened] = {}
    try:
        for slot, spec in specs.items():
            opened[slot] = open_descriptor(spec, rights)
    except BaseException:
        close_all(opened, closer)
        raise
    return opened


def close_all(opened: dict[Slot, Opened], closer: Closer) -> None:
    """Close them and empty the dict."""
    closing = list(opened.values())
    opened.clear()
    close_descriptors(closing, closer)


def claim(specs: Mapping[Slot, Descriptor], have: Container[Slot], pool: dict[Slot, Opened]) -> dict[Slot, Opened]:
    """Take out of `pool` what is wanted in slots that are not in `have`, whatever its slot was there."""
    claimed: dict[Slot, Opened] = {}
    for slot, spec in specs.items():
        match = next((old for old, opened in pool.items() if opened.spec == spec), None)
        if slot not in have and match is not None:
            claimed[slot] = pool.pop(match)
    return claimed


class Renewal(NamedTuple):
    """Whether something was opened anew, a sentence about that, and who waited on the old socket, in words."""

    is_new: bool
    sentence: str
    disconnected: Sequence[str] = ()


def is_displaced(opened: Opened) -> bool:
    """Whether it is a socket in a network namespace other than the one that has the name of its own now."""
    netns = opened.spec.netns
    if not netns:
        return False
    there = namespace_of_socket(opened.fd)
    return there is not None and namespace_of_name(netns) not in (None, there)


class Table:
    """The open descriptors of one service by slot.  It owns them all."""

    def __init__(self, closer: Closer) -> None:
        self._closer = closer
        self._opened: dict[Slot, Opened] = {}

    def open_missing(self, service: Service) -> None:
        """Open what the service wants and is not open yet: all of it, or StepError and none of it."""
        self._opened.update(open_all(self.missing(service), self._closer, rights_of(service)))

    def close_displaced(self) -> list[str]:
        """Close the sockets in network namespaces whose names others have by now: nobody reaches them there.

        Returns who waited on them, as `adopt` does.
        """
        slots = [slot for slot, opened in self._opened.items() if is_displaced(opened)]
        return self._disconnect({slot: self._opened.pop(slot) for slot in slots})

    def close_disconnected(self) -> None:
        """Close connected sockets whose servers are gone or have closed them: they are to be connected anew."""
        slots = [slot for slot, opened in self._opened.items() if has_lost_server(opened)]
        close_all({slot: self._opened.pop(slot) for slot in slots}, self._closer)

    @property
    def is_displaced(self) -> bool:
        """Whether there are such sockets."""
        return any(is_displaced(opened) for opened in self._opened.values())

    @property
    def is_awaited(self) -> bool:
        """Whether clients wait on a socket that may be out of reach: bound to a path, or in a namespace of before."""
        awaited = [opened for opened in self._opened.values() if has_waiting(opened)]
        return any(opened.inode is not None or is_displaced(opened) for opened in awaited)

    def marks(self) -> tuple[Mark, ...]:
        """The marks that looks at the paths of its files and sockets are compared with."""
        marks = (mark(slot, opened) for slot, opened in self._opened.items())
        return tuple(found for found in marks if found is not None)

    def emptied(self) -> tuple[Slot, ...]:
        """The slots of regular files that are truncated at each start."""
        return tuple(slot for slot, opened in self._opened.items() if is_emptied(opened))

    def rewound(self) -> tuple[Slot, ...]:
        """The slots of files that are read from their beginning again at each start."""
        return tuple(slot for slot, opened in self._opened.items() if is_rewound(opened))

    def renew(self, sights: Mapping[Slot, Sight], rights: Rights | None) -> list[Renewal]:
        """Open anew what has changed, in these slots, and close what was open there.

        A descriptor that cannot be opened anew stays as it was.
        """
        known = {slot: self.refined(slot, sight) for slot, sight in sights.items() if slot in self._opened}
        return [self._renew(slot, sight, rights) for slot, sight in known.items()]

    def refined(self, slot: Slot, sight: Sight) -> Sight:
        """The fate of the file in a slot, where a look has found nothing at its path."""
        return refined(sight, self._opened[slot].fd)

    def _renew(self, slot: Slot, sight: Sight, rights: Rights | None) -> Renewal:
        old = self._opened[slot]
        what = f"{old.spec.kind} {old.spec.path!r}"
        try:
            new = open_descriptor(old.spec, rights)
        except StepError as error:
            return Renewal(False, f"{what} was {sight} and stays as it was: {error}")
        self._opened[slot] = new
        return Renewal(True, f"{what} was {sight}: opened anew", self._disconnect({slot: old}))

    def _disconnect(self, old: dict[Slot, Opened]) -> list[str]:
        """Close what something else has the place of by now.  Returns who waited there to be taken, in words."""
        awaited = [(who, opened.spec) for opened in old.values() if (who := waiting(opened))]
        close_all(old, self._closer)
        return [f"{who} of {spec.kind} {spec.path or f'{spec.host}:{spec.port}'}" for who, spec in awaited]

    def missing(self, service: Service) -> dict[Slot, Descriptor]:
        """The wanted descriptors that are not open yet, by slot."""
        return {slot: spec for slot, spec in wanted(service).items() if slot not in self._opened}

    def adopt(self, service: Service, ready: dict[Slot, Opened]) -> list[str]:
        """Become the table of another definition: keep what both want, take over `ready`, close the rest.

        Returns who waited on sockets that others at the same places have replaced: "2 clients of stream /run/x".
        """
        successors = [opened.spec for opened in ready.values()]
        ready.update(claim(wanted(service), ready, self._opened))
        left, self._opened = self._opened, ready
        replaced = [slot for slot, opened in left.items() if opened.spec in successors]
        disconnected = self._disconnect({slot: left.pop(slot) for slot in replaced})
        close_all(left, self._closer)
        return disconnected

    def take_back(self, slot: Slot, opened: Opened) -> bool:
        """Take over what an earlier spawnd had in a slot; False, and it is the caller's, where the slot is taken."""
        if slot in self._opened:
            return False
        self._opened[slot] = opened
        return True

    def give(self, slot: Slot) -> Opened:
        """Give up what is in a slot, to somebody who owns it from now on."""
        return self._opened.pop(slot)

    def fd(self, slot: Slot) -> int:
        """The descriptor in a slot that `open_missing` has filled; it stays the table's."""
        return self._opened[slot].fd

    def as_bound(self, slot: Slot, spec: Descriptor) -> Descriptor:
        """`spec`, with the port that the kernel has chosen where it is open and asks for port 0."""
        opened = self._opened.get(slot)
        if opened is None or opened.spec != spec or spec.kind not in ("tcp", "udp") or spec.port:
            return spec
        return replace(spec, port=opened.port)

    def close(self) -> None:
        close_all(self._opened, self._closer)

    def __iter__(self) -> Iterator[tuple[Slot, Opened]]:
        return iter(self._opened.items())

    def __len__(self) -> int:
        return len(self._opened)
