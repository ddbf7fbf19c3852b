"""All that a child needs to become its service: plain data, complete before the fork."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.definitions.service import Service

Source = int | str  # a descriptor that is open in spawnd, or a path for the child to open: /dev/null and nothing else


@dataclass(frozen=True, slots=True)
class Launch:
    """One start of a service.  All descriptors stay spawnd's; the child has its copies of them.

    `argv[0]` is the path to execute.  `env` comes first, then the files `env_files` in their
    order, then what the protocols need; later ones win.  `stdio` is descriptor 0, 1 and 2,
    `fds` are the names and descriptors from 3 up: the service's own table, then its stored
    ones.  `ready` is the number on which the service writes that it is ready, and the pipe.
    `watchdog_usec` is 0, `notify_socket` and `cgroup` (a folder) are empty where there is
    none.  `nofile_soft` is the soft limit that spawnd was started with, `spared` says that the
    kernel spares spawnd when memory is short, which is not for services.  `error_fd` is the
    close-on-exec pipe for `failure.report`.  With `worker` nothing is executed: the child
    goes on in Python.
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
    worker: bool = False
    spared: bool = False
