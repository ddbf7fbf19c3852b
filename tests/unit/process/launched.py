"""Starting a service as spawnd does, and what the program then sees of itself."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from supervisor.definitions.service import Service
from supervisor.errors import StepError
from supervisor.process import child
from supervisor.process.failure import ErrorPipe
from supervisor.process.files import rights_of
from supervisor.process.fork import default_signals, fork
from supervisor.process.launch import Launch
from supervisor.process.launch_plan import descriptors, make_plan
from supervisor.process.run import Role, Run
from tests.unit.launch.inserted import inserted
from tests.unit.process.forked import read_all
from tests.unit.program import PROGRAM

# not the virtual environment's, which may be where only root gets to
PYTHON = os.path.realpath(sys.executable)

_VIEW = """
import json, os, resource
def link(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return None
links = {fd: link(fd) for fd in os.listdir("/proc/self/fd")}
os.write(1, json.dumps({
    "fds": {fd: target for fd, target in links.items() if target},
    "status": dict(line.rstrip("\\n").split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line),
    "limits": [resource.getrlimit(number) for number in range(16)],
    "cgroup": open("/proc/self/cgroup").read(),
    "oom_score_adj": int(open("/proc/self/oom_score_adj").read()),
    "nice": os.getpriority(os.PRIO_PROCESS, 0),
    "affinity": sorted(os.sched_getaffinity(0)),
    "netns": os.stat("/proc/self/ns/net").st_ino,
    "cwd": os.getcwd(),
    "env": dict(os.environ),
    "pid": os.getpid(), "sid": os.getsid(0), "pgid": os.getpgid(0),
    "uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(),
}).encode())
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a start went.  `status` is what waitpid gave, `output` what was written to stdout and stderr."""

    status: int
    failure: StepError | None
    output: str
    notices: tuple[str, ...] = ()

    @property
    def failed_step(self) -> tuple[str, str, int]:
        assert self.failure is not None, (self.status, self.output)
        return self.failure.step, self.failure.path, self.failure.errno


def service(**changes: Any) -> Service:
    """A service of the user nobody."""
    return Service("test", **changes)


def launch_of(
    service: Service, argv: tuple[str, ...], output: int, error: int, is_worker: bool, **changes: Any
) -> Launch:
    """Return the launch of a service whose output goes to one descriptor; `changes` are fields of it."""
    fields: dict[str, Any] = {
        "argv": argv,
        "env": service.env,
        "env_files": service.env_file,
        "service": service,
        "stdio": ("/dev/null", output, output),
        "error_fd": error,
        "nofile_soft": 1024,
        "is_root": os.geteuid() == 0,
        "rights": rights_of(service),
        "worker": is_worker,
    }
    return Launch(**(fields | changes))


def start(
    service: Service,
    argv: tuple[str, ...],
    *,
    before: Callable[[], object] | None = None,
    load: Callable[[], child.Main] | None = None,
    hears: bool = True,
    more: Sequence[bytes] = (),
    **changes: Any,
) -> Outcome:
    """Start and wait for the end; `before` is called in the child first, `changes` are fields of the Launch.

    `more` are operations beside those of the plan.
    """
    ours, theirs = socket.socketpair()
    ours.send(b"\n")  # it may go on as soon as it is set up
    error_r, error_w = ours.detach(), theirs.detach()
    output_r, output_w = os.pipe2(os.O_CLOEXEC)
    launch = launch_of(service, argv, output_w, error_w, is_worker=load is not None, **changes)

    def become() -> None:
        if before is not None:
            before()
        try:
            if load is None:
                execute(launch, error_r, hears, more)
            else:
                child.become_worker(child.forked_plan(launch, hears), error_w, load)
        except BaseException as error:
            ErrorPipe(error_w).report(error)

    run = Run(fork(become), Role.MAIN, error_r)
    os.close(error_w)
    os.close(output_w)
    while not run.read_errors():
        pass
    run.close()
    output = read_all(output_r).decode()
    return Outcome(os.waitpid(run.pid, 0)[1], run.setup_error(), output, run.notices)


def execute(launch: Launch, our_end: int, hears: bool, more: Sequence[bytes] = ()) -> None:
    """End as the process that `launch` starts."""
    arrival = PROGRAM.arrival(descriptors(launch), launch.error_fd)
    plan = inserted(make_plan(launch, arrival, hears), more)
    pid = PROGRAM.start(plan, arrival, launch.error_fd, our_end)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        default_signals()
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


def view(service: Service, forked: bool = False, **changes: Any) -> dict[str, Any]:
    """Return a started program's view of itself, or that of a forked worker."""

    def main() -> int:
        exec(_VIEW, {})  # noqa: S102  # as the program does
        return 0

    outcome = start(service, (PYTHON, "-ISB", "-c", _VIEW), load=(lambda: main) if forked else None, **changes)
    assert outcome.failure is None, outcome.failure
    assert outcome.status == 0, outcome.output
    seen = json.loads(outcome.output)
    assert isinstance(seen, dict)
    return seen


def told(service: Service, function: Callable[[], object], **changes: Any) -> Any:
    """Return the result of `function`, called in a forked worker, as JSON gives it."""

    def main() -> int:
        os.write(1, json.dumps(function()).encode())
        return 0

    outcome = start(service, (), load=lambda: main, **changes)
    assert outcome.failure is None, outcome.failure
    assert outcome.status == 0, outcome.output
    return json.loads(outcome.output)


def shell(service: Service, script: str, **changes: Any) -> str:
    """Return the output of a started shell script."""
    outcome = start(service, ("/bin/sh", "-c", script), **changes)
    assert outcome.failure is None, outcome.failure
    assert outcome.status == 0, outcome.output
    return outcome.output
