"""Plans as spawnd writes them, of all kinds of operations."""

from __future__ import annotations

from supervisor.definitions.service import Service
from supervisor.launch.operations import EXPANDS, HAS_ARGV0, Kind, operation, plan
from supervisor.launch.program import Arrival
from supervisor.linux.namespaces import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWUTS
from supervisor.process.launch import Launch
from supervisor.process.launch_plan import make_plan
from supervisor.process.paths import Mark

FDS = ("a", 7), ("b", 8)
ARRIVAL = Arrival({7: 5, 8: 0}, 4, (7,), (8,))


def plans() -> dict[str, bytes]:
    """Return plans by name."""
    full = Service(
        "full", nice=1, cpu_affinity=(0,), scheduling="fifo:3", io_class="idle", timer_slack=0.1, oom_score_adj=5,
        limits={"core": (0, 0), "nofile": (5, 6)}, env={"A": "1"}, env_file=("/etc/env", "-/none"), netns="n",
        chroot="/srv", cwd="/in", capabilities=(), no_new_privs=True, expand_env=True, gids=(5, 6), forking=True,
    )  # fmt: skip
    marks = (Mark(3, "/run/socket", 1, 2, True),)
    return {
        "small": make_plan(_launch(Service("small")), Arrival({}, 4)),
        "full": make_plan(
            _launch(full, fds=(*FDS, ("c", "/etc/banner")), marks=marks, emptied=(4,), rewound=(3,), keyring=True),
            ARRIVAL,
        ),
        "confined": plan(_confined()),
        "session": plan(_session()),
        "forked": make_plan(_launch(Service("small"), worker=True), Arrival({}, 4)),
        "full forked": make_plan(_launch(full, fds=FDS, worker=True), ARRIVAL),
    }


def _session() -> list[bytes]:
    """Return operations of an acceptor's sessions."""
    return [
        operation(Kind.SESSION, "start a session"),
        operation(Kind.SIGNALS, "reset signals", numbers=[1, 0]),
        operation(Kind.MOVE, "place", numbers=[3, 0, 3, 1]),
        operation(Kind.ENVIRONMENT, "set up", strings=["LISTEN_FDS=1"]),
        operation(Kind.OWN_PID, "set up", strings=["LISTEN_PID"]),
        operation(Kind.BINDING_LIMIT, "set limit nofile", numbers=[7, 5, 6]),
        operation(Kind.NO_NEW_PRIVS, "set no_new_privs"),
        operation(Kind.EXECUTE, "exec", numbers=[EXPANDS | HAS_ARGV0], strings=["/bin/true", "true", "$A"]),
    ]


def _confined() -> list[bytes]:
    """Return operations that no definition asks for yet."""
    return [
        operation(Kind.ENTER_NAMESPACE, "enter", "/run/netns/n", [CLONE_NEWNET]),
        operation(Kind.JOIN_NAMESPACE, "join", numbers=[7, CLONE_NEWIPC]),
        operation(Kind.MAKE_NAMESPACES, "make", numbers=[CLONE_NEWIPC | CLONE_NEWUTS]),
        operation(Kind.MOUNT_NAMESPACE, "make a mount namespace"),
        operation(Kind.MOUNT, "mount", numbers=[0], strings=["tmpfs", "/tmp", "tmpfs", "size=1m"]),
        operation(Kind.GO),
        operation(Kind.NO_NEW_PRIVS),
        operation(Kind.RULESET, "make a rule set", numbers=[15, 3, 0]),
        operation(Kind.PATH_RULE, "keep", "/usr", [5]),
        operation(Kind.DESCRIPTOR_RULE, "keep", numbers=[4, 5]),
        operation(Kind.RESTRICT, "restrict"),
        operation(Kind.FILTER, "filter", numbers=[2, 32, 0x7FFF000000000006]),
        operation(Kind.FILTER, "filter", numbers=[0, 0x7FFF000000000006]),
        operation(Kind.EXECUTE, "exec", numbers=[0], strings=["/bin/true"]),
    ]


def _launch(service: Service, **changes: object) -> Launch:
    fields: dict[str, object] = {
        "argv": ("/bin/true", "$A", "${B}"),
        "env": service.env,
        "env_files": service.env_file,
        "service": service,
        "stdio": ("/dev/null",) * 3,
        "error_fd": 9,
        "nofile_soft": 1024,
        "is_root": True,
        "cgroup": "/sys/fs/cgroup/x" if changes else "",
    }
    return Launch(**(fields | changes))  # type: ignore[arg-type]
