"""The data with which a child becomes its service, complete before the fork."""

from __future__ import annotations

from typing import NamedTuple

from supervisor.definitions.service import Service, Slot
from supervisor.linux.signal_mask import SETTABLE
from supervisor.process.files import Rights
from supervisor.process.paths import Mark

Source = int | str  # an open descriptor of spawnd, or a path that the child opens, which is always /dev/null


class Launch(NamedTuple):
    """A start of a service. spawnd keeps all descriptors; the child has copies.

    `argv[0]` is the path to execute. The environment consists of `env`, the files `env_files` in order, and
    the variables of the protocols; later ones win. `stdio` are the descriptors 0, 1 and 2; `fds` are the
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
    emptied: tuple[Slot, ...] = ()
    rewound: tuple[Slot, ...] = ()
    ignored: int = SETTABLE


class DescriptorRow(NamedTuple):
    """A descriptor of a service; `what` is for people (`udp 127.0.0.1:69`), `stored` ones are in its store."""

    number: int
    name: str
    what: str
    stored: bool = False
