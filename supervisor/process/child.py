"""From the fork to the service: everything that a child does to itself, in a fixed order.

The order is a rule, not a habit: what needs root or a path of the host comes before chroot
and the user, the user before the capabilities that it may keep, no_new_privs last.  spawnd's
memory is shared here until it is written to, and a thousand children may start in a row: so
nothing is imported, and little is computed, that could have been before the fork.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import traceback
from collections.abc import Callable
from typing import NoReturn

from supervisor.linux.signal_mask import default_all
from supervisor.process import privileges
from supervisor.process.descriptor_table import arrange, close_others, plan
from supervisor.process.environment import environment
from supervisor.process.failure import ErrorPipe
from supervisor.process.fork import EXIT_CHILD_FAILED, default_signals
from supervisor.process.launch import Launch
from supervisor.process.limits import set_binding_limits, set_limits, with_descriptors
from supervisor.process.network_namespace import bind_resolver, enter_namespace
from supervisor.process.scheduling import set_scheduling, write_once
from supervisor.process.step import failed, step

Main = Callable[[], int]


def prepare(launch: Launch) -> None:
    """Import what this launch needs beyond the ordinary.  To be called in spawnd, before the fork."""
    privileges.load(launch.service)


def run(launch: Launch, load: Callable[[], Main] | None = None, hears: bool = True) -> NoReturn:
    """Become the service.  To be called in the child, with all signals blocked; never comes back.

    A worker is imported by `load` once all is set up; its main function, which `load` returns,
    gives the exit status.  Whatever fails before goes to `launch.error_fd`, and the exit
    status is EXIT_CHILD_FAILED; so it is with no spawnd left that knows of this child.
    Without `hears` signals stay blocked, for the main function to unblock.
    """
    pipe = ErrorPipe(launch.error_fd)
    try:
        env = set_up(launch, pipe, hears)
        if not pipe.is_released():
            os._exit(EXIT_CHILD_FAILED)
        if load is None:
            _execute(launch.argv, env)
        main = load()
        pipe.close()
    except BaseException as error:
        with contextlib.suppress(BaseException):
            pipe.report(error)
        os._exit(EXIT_CHILD_FAILED)
    run_worker(main)


def set_up(launch: Launch, pipe: ErrorPipe, hears: bool) -> dict[str, str]:
    """Everything up to exec; returns the environment, which a worker has in `os.environ` then.

    Owns every descriptor of the process: after it there are those of the table and `pipe`.
    Raises StepError; the process is good for nothing then but to report it through `pipe`.
    """
    service = launch.service
    gc.disable()  # a collection would copy every page that it marks
    with step("start a session"):
        os.setsid()
    default_signals() if hears else default_all()
    close_others(launch)
    if launch.cgroup:
        procs = f"{launch.cgroup}/cgroup.procs"
        with step("enter cgroup", procs):
            write_once(procs, "0")
    if service.netns:
        enter_namespace(service.netns)
        bind_resolver(service.netns)
    arrange(plan(launch), pipe)
    env = environment(launch)
    os.umask(service.umask)
    limits = with_descriptors(service.limits, launch.nofile_soft)
    set_limits(limits)
    set_scheduling(service, launch.spared)
    _change_folder(service.chroot, service.cwd)
    privileges.set_privileges(service, is_root=launch.is_root)
    if launch.worker:
        for name in list(os.environ):  # clear() lists them all again for each
            del os.environ[name]
        os.environ.update(env)
        gc.freeze()  # what is spawnd's is not to be looked at, and so not copied, by its collections either
        gc.enable()
    else:
        pipe.expect_no_memory("exec", launch.argv[0], "the limits leave no memory for it")
    set_binding_limits(limits)
    return env


def _change_folder(chroot: str, cwd: str) -> None:
    if chroot:
        with step("chroot", chroot):
            os.chroot(chroot)
    with step("change directory", cwd):
        os.chdir(cwd)


def _execute(argv: tuple[str, ...], env: dict[str, str]) -> NoReturn:
    path = argv[0]
    try:
        os.execve(path, argv, env)  # noqa: S606  # no shell is the point
    except OSError as error:
        interpreter = isinstance(error, FileNotFoundError) and os.path.exists(path)
        cause = "the interpreter that it names does not exist" if interpreter else ""
        raise failed("exec", path, error.errno or 0, cause) from error


def run_worker(main: Main) -> NoReturn:
    """Be a worker in a forked child that is set up: its main function's result is the exit status."""
    status = EXIT_CHILD_FAILED
    try:
        # as in every Python process: who writes to what nobody reads gets an error, and lives on
        for signum in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(signum, signal.SIG_IGN)
        status = main()
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else EXIT_CHILD_FAILED if exit.code else 0
    except BaseException:
        with contextlib.suppress(BaseException):
            os.write(2, traceback.format_exc().encode(errors="replace"))
    finally:
        os._exit(status)
