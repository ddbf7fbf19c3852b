"""The data with which a child becomes its service, complete before the fork."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from supervisor.definitions.service import Accept, Service, Slot
from supervisor.linux.signal_mask import SETTABLE
from supervisor.process.files import Rights
from supervisor.process.paths import Mark

Source = int | str  # an open descriptor of spawnd, or a path that the child opens: /dev/null, or a file for reading
LONGEST_S = 1e9  # without a limit of time


class Launch(NamedTuple):
    """A start of a service. spawnd keeps all descriptors; the child has copies.

    `argv[0]` is the path to execute, `argv0` the name that the program gets in its place, '' for none. The
    environment consists of `env`, the files `env_files` in order, and the variables of the protocols; later ones
    win. `stdio` are the descriptors 0, 1 and 2; `fds` are the
    names and descriptors from 3 up: the service's own table, then its stored ones. `ready` is the number on
    which the service reports that it is ready, and the pipe. `watchdog_usec` is 0, `notify_socket` and
    `cgroup` (a folder) are '' without one. `mark` identifies the process by its environment if there is no
    cgroup. `nofile_soft` is the original soft limit of spawnd. `spared`: the kernel spares spawnd when memory
    is short, which does not extend to services. `ignored` is the set of signals that spawnd may ignore.
    `keyring`: the service gets a session keyring of its own. `error_fd` is the close-on-exec pipe for
    `failure.report`. `worker`: the child executes no program, and continues in Python. `rights` are those of
    the service's user, even if this process belongs to root. Paths through links of other users are accessed
    with these rights, or not at all.

    `acceptor` is the number that the program of an acceptor has in the process, which executes it in place of a path;
    -1 for others.

    `marks` identify the files at the paths of the table; the start fails if a path leads elsewhere by now.
    `emptied` are the slots of files to truncate, `rewound` those of files to read from the beginning.
    """

    error_fd: int  # the first one: other values may be those of the start before
    argv: tuple[str, ...]
    env: dict[str, str]
    service: Service
    stdio: tuple[Source, Source, Source]
    nofile_soft: int
    is_root: bool
    env_files: tuple[str, ...] = ()
    fds: tuple[tuple[str, Source], ...] = ()
    ready: tuple[int, int] | None = None
    notify_socket: str = ""
    watchdog_usec: int = 0
    cgroup: str = ""
    mark: str = ""
    worker: bool = False
    spared: bool = False
    keyring: bool = False
    rights: Rights | None = None
    marks: tuple[Mark, ...] = ()
    acceptor: int = -1
    argv0: str = ""
    emptied: tuple[Slot, ...] = ()
    rewound: tuple[Slot, ...] = ()
    ignored: int = SETTABLE


class DescriptorRow(NamedTuple):
    """A descriptor of a service; `what` is for people (`udp 127.0.0.1:69`), `stored` ones are in its store."""

    number: int
    name: str
    what: str
    stored: bool = False


def acceptor_options(
    service: Service, accept: Accept, numbers: Mapping[str, int], listeners: tuple[int, ...], limits: Mapping[str, str]
) -> bytes:
    """Return the options of an acceptor that has its descriptors at these numbers, by their names in `Options`.

    `limits` are those of the cgroup of each session, by file.
    """
    from supervisor.launch.acceptor import Options, Rate, encode, entry_of, local_offset, zone_changes

    options = Options(
        **numbers,
        listeners=listeners,
        limits=limits,
        max=accept.max,
        per_source=accept.per_source,
        v4_bits=accept.v4,
        v6_bits=accept.v6,
        rate=Rate.of(accept.rate, accept.burst),
        source_rate=Rate.of(accept.source_rate),
        load_max=accept.load_max,
        memory_min=accept.memory_min,
        refuses=accept.on_limit == "refuse",
        is_trap=accept.trap,
        deny_time=LONGEST_S if accept.deny_time is None else accept.deny_time,
        session_timeout=accept.session_timeout or 0,
        stop_signal=service.stop_signal,
        stop_timeout=LONGEST_S if service.stop_timeout is None else service.stop_timeout,
        nodelay=accept.nodelay,
        keepalive=accept.keepalive,
        linger=accept.linger,
        logged=accept.session_log,
        only_from=None if accept.only_from is None else tuple(entry_of(*client) for client in accept.only_from),
        no_access=tuple(entry_of(*client) for client in accept.no_access),
        hours=accept.hours,
        zone=zone_changes(local_offset, int(time.time())) if accept.hours else (),
    )
    return encode(options)
