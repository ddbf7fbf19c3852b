"""The result of definitions, checked and resolved: plain values without Lua, and without names to look up.

Times are seconds, sizes bytes, signals and ids numbers. Services that are equal here need no action at a
reload. Each key of a definition is declared once, at the field of `Service` that it fills.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Literal

UNLIMITED = -1  # RLIM_INFINITY
CONTROL = "control"  # name of the descriptor that `control = true` adds to the table

Kind = Literal["file", "udp", "tcp", "stream", "dgram", "seqpacket", "log"]

# the slots of a descriptor table: the numbers that a service finds its descriptors at
STDIO = ("stdin", "stdout", "stderr")  # 0, 1 and 2
FIRST = 3  # of the table proper, as systemd's SD_LISTEN_FDS_START
Slot = int


class Change(StrEnum):
    """Effect of a changed key on a running service, least first."""

    NOTHING = "nothing"
    ADOPT = "adopt"  # only spawnd needs to know it
    LIMITS = "limits"  # written to the cgroup of the running service
    RESTART = "restart"
    REBUILD = "rebuild"  # descriptors are opened or closed, and the service restarts


class Reset(StrEnum):
    """Functions of a module that run as if the key were not given."""

    NEVER = "never"
    ALWAYS = "always"  # the key is about a program
    BESIDE_PROCESS = "beside process"  # functions of a service with a process, which alone has the key
    OTHER_USER = "other user"  # functions that run as another user than the process


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a definition, or a field that follows from one.

    `kind` names the converter that reads the value (`schema`) and the notation that shows it
    (`notation.keys`); `arguments` belong to that converter. `kind` is empty for a field that no key fills
    directly: its changes are those of the key `name`. `field` is the field of `Service`, `part` the entry of
    a field that is a dict. `about_process`: the key has no meaning without a process, so a default of the
    file is omitted there.
    """

    kind: str = ""
    arguments: tuple[Any, ...] = ()
    change: Change = Change.RESTART
    reset: Reset = Reset.NEVER
    about_process: bool = False
    name: str = ""
    field: str = ""
    part: str = ""


def _field(default: Any, **metadata: object) -> Any:
    """Return a field with a default; for a dict, each object gets a new one."""
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def _key(
    default: Any,
    kind: str,
    *arguments: Any,
    name: str = "",
    change: Change = Change.RESTART,
    reset: Reset = Reset.NEVER,
    about_process: bool = False,
) -> Any:
    """Return a field that the key with its name, or `name`, fills."""
    return _field(default, key=Key(kind, arguments, change, reset, about_process, name))


def _follows(default: Any, name: str, change: Change, reset: Reset = Reset.NEVER, saved: str = "") -> Any:
    """Return a field that follows from the key `name`; `saved` is its name in records, if different."""
    return _field(default, key=Key(change=change, reset=reset, name=name), saved=saved)


def _parts(kinds: dict[str, str], change: Change) -> Any:
    """Return a dict with an entry for each of several keys, given with their kinds."""
    return _field({}, parts=[Key(kind, change=change, name=name, part=name) for name, kind in kinds.items()])


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One entry of a service's descriptor table, or its stdin, stdout or stderr.

    `path` belongs to `file` and to the three Unix kinds (`@name` is abstract), `host` (numeric) and `port` to
    `udp` and `tcp`. `access` is the mode of a file in the notation of `fopen` (`r`, `r+`, `w`, `w+`, `a`,
    `a+`). `mode`, `owner` and `group` are set on a file that is created and on a Unix socket that is bound;
    None leaves them unchanged. `netns` is the network namespace of a socket, by default the service's own;
    None stands for that of spawnd. `interface` is the only one that clients may come from, '' for any;
    `defer_accept` is the time for which the kernel holds back a TCP client that sends nothing.
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
    interface: str = ""
    defer_accept: float | None = None

    @property
    def belongs_to_namespace(self) -> bool:
        """Whether each network namespace has its own; files, and sockets that are files, are the same everywhere."""
        return self.kind in ("udp", "tcp") or self.path.startswith("@")

    @property
    def may_wake(self) -> bool:
        """Whether a client there can start a service: a listening or bound socket, or a file, if that is a FIFO."""
        if self.kind == "file":
            return self.access in ("r", "r+") and self.path != "/dev/null"
        return self.kind != "log" and not self.connect

    @property
    def accepts(self) -> bool:
        """Whether it is a listening socket, which has a connection for each client."""
        return self.kind in ("tcp", "stream", "seqpacket") and not self.connect

    @property
    def has_datagrams(self) -> bool:
        """Whether datagrams of any client can wait there."""
        return self.kind in ("udp", "dgram") and not self.connect

    def describe(self) -> str:
        """Return text for people: `udp 127.0.0.1:69`, `stream /run/x`, `file /etc/y r`, `log`."""
        where = f" in netns {self.netns}" if self.netns else ""
        match self.kind:
            case "udp" | "tcp":
                host = f"[{self.host}]" if ":" in self.host else self.host
                return f"{self.kind} {host}:{self.port}{where}"
            case "file":
                return f"file {self.path} {self.access}"
            case "log":
                return "log"
            case _:
                return f"{self.kind} {self.path}{' connected' if self.connect else ''}{where}"

    def address(self) -> tuple[object, ...]:
        """Return the address, of which only one descriptor can be open; equal for two that would collide."""
        return (self.kind, self.path, self.host, self.port, self.netns)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Back-off after failures: `first` seconds, growing by `factor`, at most `max`, varied by `jitter` (a share)."""

    first: float = 0.1
    factor: float = 2.0
    max: float = 30.0
    jitter: float = 0.1


NETWORK = -1  # in place of an id
Client = tuple[str, int]  # address or network, or user or @group with its id


@dataclass(frozen=True, slots=True)
class Accept:
    """One process for each connection.

    A session has its connection as `descriptor`: 0, and then as 1 as well, or 3. At most `max` sessions run at a
    time, `per_source` of one client, which is `v4` or `v6` bits of an address or a uid (0: any number). Rates are a
    number of starts and the seconds for them; `burst` is None for that number. `only_from` is None for anybody, `hours`
    are begins and ends in minutes of the week. `on_limit` says what becomes of clients beyond limits for all. A `trap`
    has no sessions, and denies all services to its clients for `deny_time`. With `session_cgroup`, each session has a
    cgroup, for which the resources of the service are limits. `defer_accept` is the time for which a
    silent client is held back. `linger` is how long the acceptor stays without sessions and clients, None for good.
    """

    descriptor: int = 0
    max: int = 256
    per_source: int = 0
    v4: int = 32
    v6: int = 64
    rate: tuple[int, int] | None = None
    burst: int | None = None
    source_rate: tuple[int, int] | None = None
    only_from: tuple[Client, ...] | None = None
    no_access: tuple[Client, ...] = ()
    hours: tuple[tuple[int, int], ...] = ()
    load_max: float | None = None
    memory_min: int | None = None
    on_limit: Literal["wait", "refuse"] = "wait"
    banner: str = ""
    banner_refused: str = ""
    trap: bool = False
    deny_time: float | None = 3600.0
    session_timeout: float | None = None
    nodelay: bool = False
    keepalive: bool = False
    defer_accept: float | None = None
    interface: str = ""
    linger: float | None = 10.0
    session_log: Literal["failures", "all", "none"] = "failures"
    session_cgroup: bool = False


NULL_IN = Descriptor("file", name="stdin", path="/dev/null", access="r")
NULL_OUT = Descriptor("file", name="stdout", path="/dev/null", access="w")
NULL_ERR = Descriptor("file", name="stderr", path="/dev/null", access="w")


_ADOPT = Change.ADOPT
_BESIDE = Reset.BESIDE_PROCESS
DEFAULT_UMASK = 0o077
FUNCTIONS = "functions"  # the name for changes of a module's functions, which are no keys


@dataclass(frozen=True, slots=True)
class Service:
    """One service. At most one of `exec` and `worker` is set; without either, it has no process of its own.

    `lines` has the line of each given key. `functions` are those of its module, `source_digest` is the
    SHA-256 of their text, `functions_digest` that of everything that they depend on, '' if that is unknown.
    `functions_as_root`: its process runs as its default user, but the functions run as root. `function_ids` are
    user and group of `function_user`. `login_env` has the variables that the key of this name adds, none
    without it. `limits` maps names such as `nofile` to the soft and the hard limit, `resources` maps keys such
    as `memory_max` to the text of the kernel's file. Equal values share their dicts, which must not be changed.
    """

    name: str
    file: str = ""
    line: int = 0
    lines: dict[str, int] = field(default_factory=dict, compare=False, repr=False)
    description: str = _key("", "description", change=_ADOPT)
    # the program
    exec: str = _key("", "path")
    worker: str = _key("", "worker")
    options: dict[str, Any] = _key({}, "options")
    arg: tuple[str, ...] = _key((), "arguments", about_process=True)
    argv0: str = _key("", "text", about_process=True)
    env: dict[str, str] = _key({}, "environment")
    env_file: tuple[str, ...] = _key((), "environment_files")
    login_env: dict[str, str] = _key({}, "boolean", reset=Reset.OTHER_USER)
    expand_env: bool = _key(False, "boolean", reset=Reset.ALWAYS, about_process=True)
    check: tuple[str, ...] = _key((), "command", change=_ADOPT)
    # user and place
    user: str = _key("nobody", "user")
    uid: int = _follows(65534, "user", Change.RESTART)
    group: str = _key("nobody", "group")
    gid: int = _follows(65534, "group", Change.RESTART)
    groups: tuple[str, ...] = _key((), "groups", reset=Reset.OTHER_USER)
    gids: tuple[int, ...] = _follows((), "groups", Change.RESTART, Reset.OTHER_USER)
    function_user: str = _key("", "user", change=_ADOPT)
    function_ids: tuple[int, int] | None = _follows(None, "function_user", _ADOPT)
    cwd: str = _key("/", "path")
    umask: int = _key(DEFAULT_UMASK, "umask")
    chroot: str = _key("", "path", reset=_BESIDE, about_process=True)
    netns: str = _key("", "file_name")
    capabilities: tuple[str, ...] | None = _key(None, "capabilities", reset=_BESIDE)
    no_new_privs: bool = _key(False, "boolean", reset=_BESIDE)
    # descriptors
    stdin: Descriptor = _key(NULL_IN, "standard", change=Change.REBUILD)
    stdout: Descriptor = _key(NULL_OUT, "standard", change=Change.REBUILD)
    stderr: Descriptor = _key(NULL_ERR, "standard", change=Change.REBUILD)
    fd: tuple[Descriptor, ...] = _key((), "descriptors", change=Change.REBUILD)
    fdstore_max: int = _key(0, "integer", 0, 1_000_000, about_process=True)
    control: bool = _key(False, "boolean", change=Change.REBUILD, about_process=True)
    listen_fds: bool = _key(True, "boolean", reset=Reset.ALWAYS, about_process=True)
    # limits and resources
    limits: dict[str, tuple[int, int]] = _key({}, "limits", reset=_BESIDE)
    nice: int | None = _key(None, "integer", -20, 19, reset=_BESIDE)
    cpu_affinity: tuple[int, ...] = _key((), "cpu_affinity", reset=_BESIDE)
    oom_score_adj: int | None = _key(None, "integer", -1000, 1000, reset=_BESIDE)
    io_class: Literal["realtime", "best-effort", "idle"] | None = _key(
        None, "choice", "realtime", "best-effort", "idle", reset=_BESIDE
    )
    io_priority: int | None = _key(None, "integer", 0, 7, reset=_BESIDE)
    scheduling: str = _key("", "scheduling", reset=_BESIDE)
    timer_slack: float | None = _key(None, "timer_slack", reset=_BESIDE)
    resources: dict[str, str] = _parts(
        {
            "memory_max": "memory",
            "memory_high": "memory",
            "memory_swap_max": "memory",
            "cpu_weight": "weight",
            "cpu_max": "cpu_share",
            "pids_max": "processes",
            "io_weight": "weight",
        },
        Change.LIMITS,
    )
    # order
    depends: tuple[str, ...] = _key((), "services", change=_ADOPT)
    after: tuple[str, ...] = _key((), "services", change=_ADOPT)
    conflicts: tuple[str, ...] = _key((), "services", change=_ADOPT)
    # life
    autostart: bool = _key(True, "status", name="status", change=_ADOPT)
    demand: bool = _follows(False, "status", _ADOPT)
    accept: Accept | None = _key(None, "accept", about_process=True)
    idle_stop: float | None = _key(None, "idle_stop", change=_ADOPT, about_process=True)
    idle_cpu: float = _key(0.002, "idle_cpu", change=_ADOPT, about_process=True)
    flush: bool = _key(False, "boolean", change=_ADOPT, about_process=True)
    task: bool = _key(False, "boolean", change=_ADOPT)
    restart: Literal["always", "on-failure", "never"] = _key(
        "always", "choice", "always", "on-failure", "never", change=_ADOPT
    )
    success_status: tuple[int, ...] = _key((), "statuses", change=_ADOPT, about_process=True)
    no_restart_status: tuple[int, ...] = _key((), "statuses", change=_ADOPT, about_process=True)
    healthy_after: float = _key(1.0, "duration", change=_ADOPT)
    backoff: Backoff = _key(Backoff(), "backoff", change=_ADOPT)
    start_limit: int | None = _key(10, "start_limit", change=_ADOPT)
    ready: Literal["exec", "notify", "fd"] = _key("exec", "choice", "exec", "notify", "fd", about_process=True)
    forking: bool = _key(False, "boolean", about_process=True)
    pid_file: str = _key("", "path", about_process=True)
    ready_fd: int | None = _key(None, "integer", 3, 1_000_000, about_process=True)
    start_timeout: float | None = _key(90.0, "positive_timeout", change=_ADOPT)
    stop_timeout: float | None = _key(10.0, "stop_timeout", change=_ADOPT)
    stop_signal: int = _key(15, "signal", change=_ADOPT, about_process=True)
    handover_signal: int | None = _key(None, "signal", change=_ADOPT, about_process=True)
    reload_signal: int | None = _key(None, "signal", change=_ADOPT, about_process=True)
    restart_signal: int | None = _key(None, "real_time_signal", change=_ADOPT)
    kill_mode: Literal["all", "group", "mixed", "process"] = _key(
        "all", "choice", "all", "group", "mixed", "process", change=_ADOPT, about_process=True
    )
    watchdog: float | None = _key(None, "watchdog", about_process=True)
    # functions of a module, which are no keys
    functions: tuple[str, ...] = _follows((), FUNCTIONS, _ADOPT)
    functions_as_root: bool = _follows(False, FUNCTIONS, _ADOPT)
    source_digest: str = _follows("", FUNCTIONS, _ADOPT, saved="text")
    functions_digest: str = _follows("", FUNCTIONS, _ADOPT)

    @property
    def has_process(self) -> bool:
        """Whether a process is supervised; else the service is up from the success of its `start` to its `stop`."""
        return bool(self.exec or self.worker or self.is_trap)

    @property
    def is_trap(self) -> bool:
        """Whether its process is an acceptor that starts no program."""
        return self.accept is not None and self.accept.trap

    @property
    def has_session_cgroups(self) -> bool:
        """Whether each session of its acceptor has a cgroup of its own."""
        return self.accept is not None and self.accept.session_cgroup

    @property
    def shared_resources(self) -> dict[str, str]:
        """Return the limits of its cgroup as a whole."""
        return {} if self.has_session_cgroups else self.resources

    @property
    def can_sleep(self) -> bool:
        """Whether a client can start its process, as far as the definition tells."""
        is_able = self.has_process and not self.task and self.worker != "netns"  # whose namespace others need
        return is_able and any(spec.may_wake for spec in (self.stdin, *self.fd))

    def own_descriptors(self) -> tuple[Descriptor, ...]:
        """Return the table without the control socket, which belongs to `control` rather than `fd`."""
        return tuple(spec for spec in self.fd if not (self.control and spec.name == CONTROL))

    @property
    def loses_stderr(self) -> bool:
        """Whether the stderr of the process goes to `/dev/null` only by default."""
        return bool(self.exec) and self.stderr == NULL_ERR and "stderr" not in self.lines

    def shares_log(self, slot: str) -> bool:
        """Whether `stdout` or `stderr` is spawnd's own log, which is the default of a worker."""
        return bool(self.worker) and slot in ("stdout", "stderr") and slot not in self.lines

    def without(self, reset: Reset) -> Service:
        """Return the service as if none of the keys with this `reset` were given."""
        return replace(self, **{name: default_of(item) for name, item in _FIELDS.items() if _reset_of(item) is reset})


def default_of(item: Field[Any]) -> Any:
    """Return the default of a field; MISSING without one."""
    return item.default if item.default_factory is MISSING else item.default_factory()


def _reset_of(item: Field[Any]) -> Reset:
    key: Key | None = item.metadata.get("key")
    return Reset.NEVER if key is None else key.reset


_FIELDS: dict[str, Field[Any]] = {item.name: item for item in fields(Service)}


def _declared() -> list[Key]:
    """Return every key at a field, with the name of its field and its own."""
    found = []
    for name, item in _FIELDS.items():
        keys = item.metadata.get("parts", [item.metadata["key"]] if "key" in item.metadata else [])
        found += [replace(key, field=name, name=key.name or name) for key in keys]
    return found


_DECLARED = _declared()
KEYS: dict[str, Key] = {key.name: key for key in _DECLARED if key.kind}  # in the order of `show`
FIELDS = tuple(dict.fromkeys(key.field for key in _DECLARED))  # all fields that keys fill or determine
KEY_OF_FIELD: dict[str, str] = {key.field: key.name for key in _DECLARED if not key.part}
CHANGES: dict[str, Change] = {key.name: key.change for key in _DECLARED}


@dataclass(frozen=True, slots=True)
class Settings:
    """`_SUPERVISOR`: settings of spawnd itself.

    `control_group` is the gid whose members may use the control socket. `cgroup` is the folder of a delegated
    cgroup v2 subtree, below the mount point of cgroup2. `places` has the FILE:LINE of each given setting.
    """

    control_group: int | None = None
    log_level: Literal["debug", "info", "notice", "warning", "err"] = "info"
    cgroup: str = ""
    places: dict[str, str] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class KeptFile:
    """The result of a file, which need not be evaluated again while its text and the databases stay the same.

    `text` is the hash of the text, with the key of this process, which its children inherit. `asked` has the questions
    to the databases with their answers, as JSON. `notices` are those of this file alone, each with the services that it
    compares. `digests` has a part for each service, and is empty unless it was requested.
    """

    text: int
    asked: str
    notices: tuple[tuple[str, tuple[str, ...]], ...] = ()
    digests: str = ""
    services: tuple[Service, ...] = ()


@dataclass(frozen=True, slots=True)
class Definitions:
    """The content of all definition files. `sources` maps each file to the text that was checked.

    A file that was not evaluated again is among the `sources` only if it has functions. `kept` are the files that need
    not be evaluated again.

    `about` has the services that a notice compares. `digest` is equal for equal definitions, wherever they
    are written; it is empty unless requested.
    """

    services: dict[str, Service] = field(default_factory=dict)
    settings: Settings = Settings()
    sources: dict[str, str] = field(default_factory=dict, repr=False)
    notices: tuple[str, ...] = ()
    about: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    digest: str = ""
    kept: dict[str, KeptFile] = field(default_factory=dict, compare=False, repr=False)


def slot_name(slot: Slot) -> str:
    """Return the name of a slot in messages and in the state file: `stdin`, `stdout`, `stderr`, `3`, `4`, …"""
    return STDIO[slot] if slot < FIRST else str(slot)
