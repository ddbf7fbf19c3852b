"""What a definition says, checked and resolved: plain values, no Lua, no names left to look up.

Times are seconds, sizes bytes, signals and ids numbers.  Two services that are equal
here need nothing done at a reload.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

UNLIMITED = -1  # RLIM_INFINITY
CONTROL = "control"  # the name of the descriptor that `control = true` adds to the table

Kind = Literal["file", "udp", "tcp", "stream", "dgram", "seqpacket", "log"]


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One entry of a service's descriptor table, or its stdin, stdout or stderr.

    `path` belongs to `file` and to the three Unix kinds (`@name` is abstract), `host`
    (numeric) and `port` to `udp` and `tcp`.  `access` is the mode of a file in the
    notation of `fopen` (`r`, `r+`, `w`, `w+`, `a`, `a+`).  `mode`, `owner` and `group`
    are set on a file that is created and on a Unix socket that is bound; None leaves them.
    `netns` is where a socket is made, None where spawnd is: the service's own is filled in.
    """

    kind: Kind
    name: str = ""
    path: str = ""
    access: str = ""
    host: str = ""
    port: int = 0
    connect: bool = False
    backlog: int | None = None
    mode: int | None = None
    owner: int | None = None
    group: int | None = None
    reuseport: bool = False
    freebind: bool = False
    transparent: bool = False
    v6only: bool | None = None
    nodelay: bool = False
    passcred: bool = False
    netns: str | None = None
    mark: int | None = None
    sndbuf: int | None = None
    rcvbuf: int | None = None

    def address(self) -> tuple[object, ...]:
        """What two descriptors cannot both have open; equal for two that would collide."""
        return (self.kind, self.path, self.host, self.port, self.netns)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits between failures: `first` seconds, times `factor` each, at most `max`, spread by `jitter` (a share)."""

    first: float = 0.1
    factor: float = 2.0
    max: float = 30.0
    jitter: float = 0.1


NULL_IN = Descriptor("file", name="stdin", path="/dev/null", access="r")
NULL_OUT = Descriptor("file", name="stdout", path="/dev/null", access="w")
NULL_ERR = Descriptor("file", name="stderr", path="/dev/null", access="w")


@dataclass(frozen=True, slots=True)
class Service:
    """One service.  At most one of `exec` and `worker` is set; with neither it has no process of its own.

    `functions` are those of its module, of the text with the SHA-256 `text`.  `functions_as_root`: its
    process has another user, as it always has, but the functions are root's.
    `limits` maps names such as `nofile` to the soft and the hard limit, `resources` keys such as
    `memory_max` to what the kernel's file takes.  Equal values share their dicts: they are
    never to be changed.
    """

    name: str
    file: str = ""
    line: int = 0
    lines: dict[str, int] = field(default_factory=dict, compare=False, repr=False)
    description: str = ""
    exec: str = ""
    worker: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    arg: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    env_file: tuple[str, ...] = ()
    user: str = "nobody"
    group: str = "nobody"
    groups: tuple[str, ...] = ()
    uid: int = 65534
    gid: int = 65534
    gids: tuple[int, ...] = ()
    cwd: str = "/"
    umask: int = 0o077
    chroot: str = ""
    stdin: Descriptor = NULL_IN
    stdout: Descriptor = NULL_OUT
    stderr: Descriptor = NULL_ERR
    fd: tuple[Descriptor, ...] = ()
    limits: dict[str, tuple[int, int]] = field(default_factory=dict)
    capabilities: tuple[str, ...] | None = None
    no_new_privs: bool = False
    nice: int | None = None
    cpu_affinity: tuple[int, ...] = ()
    oom_score_adj: int | None = None
    resources: dict[str, str] = field(default_factory=dict)
    netns: str = ""
    depends: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    autostart: bool = True
    task: bool = False
    restart: Literal["always", "on-failure", "never"] = "always"
    healthy_after: float = 1.0
    backoff: Backoff = Backoff()
    start_limit: int | None = 10
    ready: Literal["exec", "notify", "fd"] = "exec"
    ready_fd: int | None = None
    start_timeout: float | None = 90.0
    stop_timeout: float | None = 10.0
    stop_signal: int = 15
    handover_signal: int | None = None
    reload_signal: int | None = None
    restart_signal: int | None = None
    kill_mode: Literal["all", "process"] = "all"
    watchdog: float | None = None
    fdstore_max: int = 0
    control: bool = False
    check: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    functions_as_root: bool = False
    text: str = ""

    @property
    def has_process(self) -> bool:
        """Whether a process is supervised; else it is up from the success of its `start` to its `stop`."""
        return bool(self.exec or self.worker)

    def own_descriptors(self) -> tuple[Descriptor, ...]:
        """Its table without the control socket, which is there because of `control` and not because of `fd`."""
        return tuple(spec for spec in self.fd if not (self.control and spec.name == CONTROL))

    def shares_log(self, slot: str) -> bool:
        """Whether its `stdout` or `stderr` is spawnd's own log: that of a worker whose definition says nothing else."""
        return bool(self.worker) and slot in ("stdout", "stderr") and slot not in self.lines


@dataclass(frozen=True, slots=True)
class Settings:
    """`_SUPERVISOR`: settings of spawnd itself.

    `control_group` is the gid whose members may use the control socket.  `cgroup` is the
    folder of a delegated cgroup v2 subtree, below the mount point of cgroup2.  `places` has
    the FILE:LINE of each setting that is given.
    """

    control_group: int | None = None
    log_level: Literal["debug", "info", "notice", "warning", "err"] = "info"
    cgroup: str = ""
    places: dict[str, str] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Definitions:
    """All that the definition files say.  `sources` maps each file to the text that was checked.

    `digest` is equal for equal definitions, wherever they stand; empty where nobody asked for it.
    """

    services: dict[str, Service] = field(default_factory=dict)
    settings: Settings = Settings()
    sources: dict[str, str] = field(default_factory=dict, repr=False)
    notices: tuple[str, ...] = ()
    digest: str = ""
