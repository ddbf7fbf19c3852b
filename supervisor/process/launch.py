"""All that a child needs to become its service: plain data, complete before the fork."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.definitions.service import FIRST, Service, Slot
from supervisor.process.files import Rights
from supervisor.process.paths import Mark

Source = int | str  # a descriptor that is open in spawnd, or a path for the child to open: /dev/null and nothing else


@dataclass(frozen=True, slots=True)
class Launch:
    """One start of a service.  All descriptors stay spawnd's; the child has its copies of them.

    `argv[0]` is the path to execute.  `env` comes first, then the files `env_files` in their
    order, then what the protocols need; later ones win.  `stdio` is descriptor 0, 1 and 2,
    `fds` are the names and descriptors from 3 up: the service's own table, then its stored
    ones.  `ready` is the number on which the service writes that it is ready, and the pipe.
    `watchdog_usec` is 0, `notify_socket` and `cgroup` (a folder) are empty where there is
    none.  `mark` goes into the environment, for a process to be known by where there is no cgroup.
    `nofile_soft` is the soft limit that spawnd was started with, `spared` says that the
    kernel spares spawnd when memory is short, which is not for services.  `keyring`: it gets a session
    keyring of its own.  `error_fd` is the
    close-on-exec pipe for `failure.report`.  With `worker` nothing is executed: the child
    goes on in Python.  `rights` are those of the service's user, also where this process is one
    of root's: paths that lead through links of others are reached with them, and without them not
    at all.
    `marks` are what the paths of its table led to; where one leads elsewhere by now, the start
    fails.  `emptied` are the slots of files to be truncated, `rewound` of those to be set back to their beginning.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    service: Service
    stdio: tuple[Source, Source, Source]
    error_fd: int
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
    emptied: tuple[Slot, ...] = ()
    rewound: tuple[Slot, ...] = ()

    def source(self, slot: Slot) -> Source:
        """The source of a slot of the table."""
        return self.stdio[slot] if slot < FIRST else self.fds[slot - FIRST][1]


@dataclass(frozen=True, slots=True)
class DescriptorRow:
    """One descriptor of a service: `what` is for people (`udp 127.0.0.1:69`), `stored` ones are in its store."""

    number: int
    name: str
    what: str
    stored: bool = False
