"""The descriptors that spawnd holds open for services over their restarts, and the descriptor table of a service.

Root opens them once. Opening blocks no longer than a local system call: it resolves no name, waits for no
other end of a FIFO, and waits for no room in a backlog. Files and Unix sockets at paths whose server may never
answer are opened by a child (`open_elsewhere`), and a child removes such socket files (`close_descriptors`).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, NoReturn

from supervisor.definitions.service import FIRST, STDIO, Descriptor, Service, Slot
from supervisor.errors import ServedFileError, StepError
from supervisor.linux.socket_state import backlog_length, has_lost_peer, queue_length
from supervisor.notify.safe_close import Closer
from supervisor.notify.untrusted import MAX_DESCRIPTORS
from supervisor.printable import count
from supervisor.process.failure import ErrorPipe
from supervisor.process.files import EMPTIED, IsLocal, Rights, inode_of, open_file, rights_of
from supervisor.process.fork import EXIT_CHILD_FAILED, default_signals, fork
from supervisor.process.network_namespace import namespace_of_name, namespace_of_socket, run_in_namespace
from supervisor.process.paths import Mark, Sight, refined
from supervisor.process.sockets import open_internet, open_unix, shut_down_unix, unlink_same

NULL_PATH = "/dev/null"
INTERNET = frozenset({"udp", "tcp"})
UNIX = frozenset({"stream", "dgram", "seqpacket"})
OPENED = "hand over opened files"
LONGEST_REMOVAL = 5.0  # seconds for which a start waits while a child removes the socket file of the last one
LOOK_AGAIN = 0.01  # seconds


@dataclass(frozen=True, slots=True)
class Opened:
    """An open descriptor, with the facts that are needed to close it: plain data.

    The holder owns `fd`. `inode` is device and inode of the regular file, or of the socket file that `bind`
    made and that fstat on the socket does not return; else None. `port` is the port that the kernel has
    chosen. It is read at once, because getsockname(2) waits for a process that hangs while it uses the
    socket.
    """

    spec: Descriptor
    fd: int
    inode: tuple[int, int] | None = None
    port: int = 0


def is_null(spec: Descriptor) -> bool:
    """Whether `spec` is /dev/null, which the child opens itself to save spawnd a descriptor per service."""
    return spec.kind == "file" and spec.path == NULL_PATH


def open_descriptor(spec: Descriptor, rights: Rights | None = None, is_local: IsLocal | None = None) -> Opened:
    """Open `spec`, close-on-exec and in blocking mode, as daemons expect; the caller owns the descriptor.

    `rights` are those of the service's user, for paths beyond a link that users other than root can have set;
    without them such a link is an error. Raises StepError with the step (`open`, `bind tcp 127.0.0.1:80`,
    `connect`, …), path and errno, and leaves nothing half-made; ServedFileError for a path that is not
    `is_local`. The log worker makes `log` descriptors, not this function.
    """
    if spec.kind == "file":
        fd = open_file(spec, rights, is_local)
        return Opened(spec, fd, inode_of(fd))
    if spec.netns:
        return run_in_namespace(spec.netns, lambda: _open_socket(spec, rights, is_local))
    return _open_socket(spec, rights, is_local)


def _open_socket(spec: Descriptor, rights: Rights | None, is_local: IsLocal | None) -> Opened:
    if spec.kind in INTERNET:
        fd = open_internet(spec)
        return Opened(spec, fd, port=spec.port or _port_of(fd))
    if spec.kind in UNIX:
        return Opened(spec, *open_unix(spec, rights, is_local))
    raise ValueError(f"no descriptor of kind {spec.kind!r} is opened here")


def _port_of(fd: int) -> int:
    with socket.socket(fileno=os.dup(fd)) as sock:
        port: int = sock.getsockname()[1]
        return port


def close_descriptors(closing: Iterable[Opened], closer: Closer) -> None:
    """Close descriptors and remove their socket files, unless other files have taken their places.

    The addresses of sockets are free at once. A descriptor may be shared with processes that live on, which
    may have put it into an epoll, so `closer` does all closing.
    """
    bound: list[int] = []
    others: list[int] = []
    for opened in closing:
        if opened.spec.kind in UNIX:
            _remove_socket_file(opened, closer)
            others += shut_down_unix(opened.fd)
        is_bound = opened.spec.kind in INTERNET or opened.spec.path.startswith("@")
        (bound if is_bound else others).append(opened.fd)
    if bound:
        closer.release(bound)
    if others:
        closer.close(others)


def close_descriptor(opened: Opened, closer: Closer) -> None:
    """Close one descriptor, as `close_descriptors` does."""
    close_descriptors([opened], closer)


def _remove_socket_file(opened: Opened, closer: Closer) -> None:
    """Remove the socket file before the close: while the socket lives, no other file has its inode number.

    A failure does no harm: the next bind recognizes the file as stale.
    """
    path, inode = opened.spec.path, opened.inode
    if inode is None:
        return
    with contextlib.suppress(OSError):
        try:
            unlink_same(path, inode, closer.file_systems.have)
        except ServedFileError:
            if closer.has_room:
                closer.expect(fork(lambda: _unlink_elsewhere(path, inode), [opened.fd]))


def _unlink_elsewhere(path: str, inode: tuple[int, int]) -> NoReturn:
    """Remove a socket file in a forked child of spawnd, which waits for the server and keeps the socket until then."""
    default_signals()
    with contextlib.suppress(OSError):
        unlink_same(path, inode)
    os._exit(0)


def mark(slot: Slot, opened: Opened) -> Mark | None:
    """Return the mark for later checks of the path; None for a descriptor without a path."""
    if opened.inode is None:
        return None
    return Mark(slot, opened.spec.path, *opened.inode, opened.spec.kind in UNIX)


def has_waiting(opened: Opened) -> bool:
    """Whether clients or datagrams are queued on a socket."""
    if opened.spec.kind not in UNIX | INTERNET or opened.spec.connect:
        return False
    poll = select.poll()
    poll.register(opened.fd, select.POLLIN)
    return bool(poll.poll(0))


def has_lost_server(opened: Opened) -> bool:
    """Whether a connected Unix socket has lost its peer, so that no answer will ever come."""
    if not opened.spec.connect or opened.spec.kind not in UNIX:
        return False
    if opened.spec.kind == "dgram":
        with contextlib.suppress(OSError):  # the kernel does not tell
            return has_lost_peer(opened.fd)
        return False
    poll = select.poll()
    poll.register(opened.fd, 0)
    return any(events & select.POLLHUP for _fd, events in poll.poll(0))


def is_shut(opened: Opened) -> bool:
    """Whether a process has shut down a socket that clients connect or send to, shutdown(2): no client can any more."""
    if opened.spec.kind not in UNIX | INTERNET or opened.spec.connect:
        return False
    poll = select.poll()
    poll.register(opened.fd, select.POLLRDHUP)
    return any(events & (select.POLLHUP | select.POLLRDHUP) for _fd, events in poll.poll(0))


def waiting(opened: Opened) -> str:
    """Return the queued clients of a socket as text; '' if there are none."""
    if not has_waiting(opened):
        return ""
    if opened.spec.kind in ("dgram", "udp"):
        return "datagrams"
    length = backlog_length if opened.spec.kind in INTERNET else queue_length
    try:
        return count(length(opened.fd), "client")
    except OSError:
        return "clients"  # the kernel does not count them for a Unix socket in another network namespace


def is_rewound(opened: Opened) -> bool:
    """Whether each start sets this regular file back to its beginning.

    The offset belongs to the open file, which outlives the process. A file opened with `a` has none. The
    child does this, because lseek(2) waits for a process that hangs while it reads the file.
    """
    return opened.spec.kind == "file" and opened.spec.access != "a"


def is_emptied(opened: Opened) -> bool:
    """Whether each start truncates this regular file, as fopen(3) does with `w` and `w+`.

    The child does this, once it has checked that the file is still the one at its path.
    """
    return opened.spec.kind == "file" and opened.spec.access in EMPTIED and opened.inode is not None


def wanted(service: Service) -> dict[Slot, Descriptor]:
    """Return the wanted descriptors of a service's table, by slot.

    The table does not include `/dev/null`, which the child opens itself, and `log()`.
    """
    slots: dict[Slot, Descriptor] = {slot: getattr(service, name) for slot, name in enumerate(STDIO)}
    slots.update(enumerate(service.fd, FIRST))
    return {slot: spec for slot, spec in slots.items() if spec.kind != "log" and not is_null(spec)}


def open_local(specs: Mapping[Slot, Descriptor], closer: Closer, rights: Rights | None = None) -> dict[Slot, Opened]:
    """Open all `specs` by slot for a user with `rights`, but those that `open_elsewhere` has to open.

    After an error of one of them, none stays open. Raises StepError.
    """
    opened: dict[Slot, Opened] = {}
    try:
        for slot, spec in specs.items():
            with contextlib.suppress(ServedFileError):
                opened[slot] = open_descriptor(spec, rights, closer.file_systems.have)
    except BaseException:
        close_all(opened, closer)
        raise
    return opened


def open_elsewhere(specs: Mapping[Slot, Descriptor], rights: Rights, fd: int) -> NoReturn:
    """Open files and sockets in a forked child of spawnd, which waits for their servers, and send them over `fd`."""
    os.setsid()
    default_signals()
    pipe = ErrorPipe(fd)
    if os.read(fd, 1):  # spawnd has written this process down; else it is gone
        try:
            opened = {slot: _open_patiently(spec, rights) for slot, spec in specs.items()}
            _hand_over(opened, pipe)
        except BaseException as error:
            pipe.report(error)
    os._exit(EXIT_CHILD_FAILED)


def _open_patiently(spec: Descriptor, rights: Rights) -> Opened:
    """Open `spec`; if its path is taken, wait for the child that removes the socket file of the last start."""
    deadline = time.monotonic() + LONGEST_REMOVAL
    while True:
        try:
            return open_descriptor(spec, rights)
        except StepError as error:
            if spec.kind not in UNIX or error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
        time.sleep(LOOK_AGAIN)


def _hand_over(opened: Mapping[Slot, Opened], pipe: ErrorPipe) -> None:
    """Send descriptors, and as the failure of this start their inodes, which only the child may ask for."""
    fds = [each.fd for each in opened.values()]
    with socket.socket(fileno=os.dup(pipe.fd)) as connection:
        for first in range(0, len(fds), MAX_DESCRIPTORS):
            socket.send_fds(connection, [b" "], fds[first : first + MAX_DESCRIPTORS])
    pipe.report(StepError(OPENED, "", 0, json.dumps({slot: each.inode for slot, each in opened.items()})))


def handed_over(failure: StepError | None, service: Service, fds: Sequence[int]) -> dict[Slot, Opened]:
    """Return what a child has opened for a service: its failure tells about `fds`, in this order.

    None without all of them, as where spawnd has no free numbers.
    """
    specs, inodes = wanted(service), json.loads(failure.cause) if failure and failure.step == OPENED else {}
    if len(inodes) != len(fds):
        return {}
    found = zip(map(int, inodes), inodes.values(), fds, strict=True)
    return {slot: Opened(specs[slot], fd, inode and tuple(inode)) for slot, inode, fd in found if slot in specs}


def close_all(opened: dict[Slot, Opened], closer: Closer) -> None:
    """Close all descriptors and empty the dict."""
    closing = list(opened.values())
    opened.clear()
    close_descriptors(closing, closer)


def claim(specs: Mapping[Slot, Descriptor], have: Container[Slot], pool: dict[Slot, Opened]) -> dict[Slot, Opened]:
    """Take descriptors for the slots missing in `have` out of `pool`, from whichever slots they have there."""
    claimed: dict[Slot, Opened] = {}
    for slot, spec in specs.items():
        match = next((old for old, opened in pool.items() if opened.spec == spec), None)
        if slot not in have and match is not None:
            claimed[slot] = pool.pop(match)
    return claimed


class Renewal(NamedTuple):
    """Whether something was opened anew, a sentence about it, and the clients of the old socket as text."""

    is_new: bool
    sentence: str
    disconnected: Sequence[str] = ()


def is_displaced(opened: Opened) -> bool:
    """Whether a socket is in a network namespace whose name belongs to another one by now."""
    netns = opened.spec.netns
    if not netns:
        return False
    there = namespace_of_socket(opened.fd)
    return there is not None and namespace_of_name(netns) not in (None, there)


class Table:
    """The open descriptors of one service by slot; owns them all."""

    def __init__(self, closer: Closer) -> None:
        self._closer = closer
        self._opened: dict[Slot, Opened] = {}
        self._fresh: set[Slot] = set()  # opened by a child for the next start

    def open_missing(self, service: Service) -> None:
        """Open the descriptors that the service wants and lacks: all that are local, or none with a StepError.

        Raises ServedFileError if a child has to open those that are still missing.
        """
        self.open_local(service)
        for spec in self.missing(service).values():
            raise ServedFileError(spec.path)

    def open_local(self, service: Service) -> None:
        """Do the same before a start, which opens the others."""
        self._opened.update(open_local(self.missing(service), self._closer, rights_of(service)))

    def take_over(self, failure: StepError | None, service: Service, fds: Sequence[int]) -> None:
        """Take the descriptors that a child has opened, and close those that are of no use."""
        found = handed_over(failure, service, fds)
        unused = [opened for slot, opened in found.items() if not self.take_back(slot, opened)]
        self._fresh |= found.keys()
        close_descriptors(unused, self._closer)
        known = {opened.fd for opened in found.values()}
        self._closer.close(fd for fd in fds if fd not in known)

    def close_displaced(self) -> list[str]:
        """Close the sockets in network namespaces whose names belong to others now: clients cannot reach them there.

        Return the clients that were queued, as `adopt` does.
        """
        slots = [slot for slot, opened in self._opened.items() if is_displaced(opened)]
        return self._disconnect({slot: self._opened.pop(slot) for slot in slots})

    def close_disconnected(self) -> None:
        """Close connected sockets whose servers have gone or closed them, to connect anew, once for a start."""
        slots = [slot for slot, opened in self._opened.items() if slot not in self._fresh and has_lost_server(opened)]
        self._fresh.clear()
        close_all({slot: self._opened.pop(slot) for slot in slots}, self._closer)

    def close_shut(self) -> list[str]:
        """Close the sockets that a process has shut down, to open them anew; return them as text."""
        shut = {slot: self._opened.pop(slot) for slot, opened in list(self._opened.items()) if is_shut(opened)}
        found = [opened.spec.describe() for opened in shut.values()]
        close_all(shut, self._closer)
        return found

    @property
    def is_displaced(self) -> bool:
        """Whether the table has sockets in network namespaces whose names belong to others now."""
        return any(is_displaced(opened) for opened in self._opened.values())

    @property
    def is_awaited(self) -> bool:
        """Whether clients are queued on a socket that may be out of reach: bound to a path, or in an old namespace."""
        awaited = [opened for opened in self._opened.values() if has_waiting(opened)]
        return any(opened.inode is not None or is_displaced(opened) for opened in awaited)

    def marks(self) -> tuple[Mark, ...]:
        """Return the marks for checks of the paths of its files and sockets."""
        marks = (mark(slot, opened) for slot, opened in self._opened.items())
        return tuple(found for found in marks if found is not None)

    def emptied(self) -> tuple[Slot, ...]:
        """Return the slots of regular files that are truncated at each start."""
        return tuple(slot for slot, opened in self._opened.items() if is_emptied(opened))

    def rewound(self) -> tuple[Slot, ...]:
        """Return the slots of files that are set back to their beginning at each start."""
        return tuple(slot for slot, opened in self._opened.items() if is_rewound(opened))

    def renew(self, sights: Mapping[Slot, Sight], rights: Rights | None) -> list[Renewal]:
        """Open anew what has changed in these slots, and close the old descriptors.

        A descriptor that cannot be opened anew stays as it was.
        """
        known = {slot: self.refined(slot, sight) for slot, sight in sights.items() if slot in self._opened}
        return [self._renew(slot, sight, rights) for slot, sight in known.items()]

    def refined(self, slot: Slot, sight: Sight) -> Sight:
        """Return the fate of the file in a slot, if its path was found empty."""
        return refined(sight, self._opened[slot].fd)

    def _renew(self, slot: Slot, sight: Sight, rights: Rights | None) -> Renewal:
        old = self._opened[slot]
        what = f"{old.spec.kind} {old.spec.path!r}"
        try:
            new = open_descriptor(old.spec, rights, self._closer.file_systems.have)
        except ServedFileError:
            if old.spec.kind in UNIX and not sight.has_room:
                return Renewal(False, f"{what} was {sight} and stays as it was")
            disconnected = self._disconnect({slot: self._opened.pop(slot)})
            return Renewal(True, f"{what} was {sight}: the next start opens it anew", disconnected)
        except StepError as error:
            return Renewal(False, f"{what} was {sight} and stays as it was: {error}")
        self._opened[slot] = new
        return Renewal(True, f"{what} was {sight}: opened anew", self._disconnect({slot: old}))

    def _disconnect(self, old: dict[Slot, Opened]) -> list[str]:
        """Close descriptors that others have replaced; return their queued clients as text."""
        awaited = [(who, opened.spec) for opened in old.values() if (who := waiting(opened))]
        close_all(old, self._closer)
        return [f"{who} of {spec.kind} {spec.path or f'{spec.host}:{spec.port}'}" for who, spec in awaited]

    def missing(self, service: Service) -> dict[Slot, Descriptor]:
        """Return the wanted descriptors that are not open yet, by slot."""
        return {slot: spec for slot, spec in wanted(service).items() if slot not in self._opened}

    def adopt(self, service: Service, ready: dict[Slot, Opened]) -> list[str]:
        """Become the table of another definition: keep what both want, take over `ready`, close the rest.

        Return the queued clients of sockets that were replaced at the same places: "2 clients of stream
        /run/x".
        """
        successors = [opened.spec for opened in ready.values()]
        ready.update(claim(wanted(service), ready, self._opened))
        left, self._opened = self._opened, ready
        replaced = [slot for slot, opened in left.items() if opened.spec in successors]
        disconnected = self._disconnect({slot: left.pop(slot) for slot in replaced})
        close_all(left, self._closer)
        return disconnected

    def take_back(self, slot: Slot, opened: Opened) -> bool:
        """Take over an earlier spawnd's descriptor in a slot.

        If the slot is taken, return False; the caller keeps it.
        """
        if slot in self._opened:
            return False
        self._opened[slot] = opened
        return True

    def give(self, slot: Slot) -> Opened:
        """Give up the descriptor in a slot to the caller, which owns it from now on."""
        return self._opened.pop(slot)

    def fd(self, slot: Slot) -> int:
        """Return the descriptor in a slot that `open_missing` has filled; the table still owns it."""
        return self._opened[slot].fd

    def as_bound(self, slot: Slot, spec: Descriptor) -> Descriptor:
        """Return `spec`; if it asks for port 0 and is open, with the port that the kernel has chosen."""
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
