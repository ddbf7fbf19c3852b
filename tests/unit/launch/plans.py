"""Plans as spawnd writes them, of all kinds of operations."""

from __future__ import annotations

from supervisor.definitions.service import Service
from supervisor.launch.program import Arrival
from supervisor.process.launch import Launch
from supervisor.process.launch_plan import make_plan
from supervisor.process.paths import Mark

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
            _launch(full, fds=(("a", 7), ("b", 8)), marks=marks, emptied=(4,), rewound=(3,), keyring=True), ARRIVAL
        ),
    }


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
