"""From the fork to the service: everything that a child does to itself, in a fixed order.

The order is a rule, not a habit.  Steps that need root or a path of the host come before chroot and the user; the user
comes before the kept capabilities and the working directory; no_new_privs is last.  spawnd's memory is shared here
until it is written to, and a thousand children may start in a row: so nothing is imported, and little is computed, that
could have been before the fork.

The environment of a service has its definition's variables, those of its environment files, and those of the
protocols: sd_listen_fds(3), sd_notify(3) and sd_watchdog_enabled(3).
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import re
import signal
import traceback
from codecs import BOM_UTF8
from collections.abc import Callable
from typing import NoReturn

from supervisor.definitions.service import slot_name
from supervisor.errors import StepError
from supervisor.linux.credentials import join_session_keyring
from supervisor.linux.place import ForeignFile
from supervisor.linux.signal_mask import default_all
from supervisor.log.logger import close_inherited_log
from supervisor.process.attributes import (
    load_prctl,
    set_binding_limits,
    set_limits,
    set_privileges,
    set_scheduling,
    with_descriptors,
    write_once,
)
from supervisor.process.child_descriptors import arrange, close_others, plan
from supervisor.process.failure import ErrorPipe, failed, step
from supervisor.process.files import FOLDER, Rights, open_as
from supervisor.process.fork import EXIT_CHILD_FAILED, default_signals
from supervisor.process.launch import Launch
from supervisor.process.marks import SERVICE_MARK, START_MARK, start_mark
from supervisor.process.network_namespace import bind_resolver, enter_namespace
from supervisor.process.paths import look, moved
from supervisor.process.pids import start_time_before_exec

Main = Callable[[], int]

LARGEST_FILE = 1 << 20  # bytes; the kernel takes 2 MiB of arguments and environment with the default stack

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_BLANKS = " \t\n\r\v\f"
_EXPORT = re.compile(r"\Aexport\s+", re.A)


def prepare(launch: Launch) -> None:
    """Import what this launch needs beyond the ordinary.  To be called in spawnd, before the fork."""
    load_prctl(launch.service)


def run(launch: Launch, load: Callable[[], Main], hears: bool = True) -> NoReturn:
    """Become a worker.  To be called in the child, with all signals blocked; never comes back.

    The worker is imported by `load` once all is set up; its main function, which `load` returns, gives the exit status.
    An earlier failure goes to `launch.error_fd`, and the exit status is EXIT_CHILD_FAILED; the same holds when no
    spawnd is left that knows of this child.  Without `hears` signals stay blocked, for the worker to unblock.
    """
    pipe = ErrorPipe(launch.error_fd)
    try:
        set_up(launch, pipe, hears)
        if not pipe.is_released():
            os._exit(EXIT_CHILD_FAILED)
        main = load()
        pipe.close()
    except BaseException as error:
        with contextlib.suppress(BaseException):
            pipe.report(error)
        os._exit(EXIT_CHILD_FAILED)
    run_worker(main)


def set_up(launch: Launch, pipe: ErrorPipe, hears: bool) -> None:
    """Everything up to the worker, which then has its environment in `os.environ`.

    Owns every descriptor of the process: after it there are those of the table and `pipe`.
    Raises StepError; the process is good for nothing then but to report it through `pipe`.
    """
    service = launch.service
    gc.disable()  # a collection would copy every page that it marks
    with step("start a session"):
        os.setsid()
    default_signals() if hears else default_all()
    close_inherited_log()
    close_others(launch)
    if launch.marks and (sights := look(launch.marks)):
        raise moved(sights)
    _begin_files(launch)
    if launch.cgroup:
        _enter_cgroup(f"{launch.cgroup}/cgroup.procs")
    if service.netns:
        enter_namespace(service.netns)
        bind_resolver(service.netns)
    arrange(plan(launch), pipe)
    env = environment(launch)
    os.umask(service.umask)
    limits = with_descriptors(service.limits, launch.nofile_soft)
    set_limits(limits)
    set_scheduling(service, launch.spared)
    if launch.keyring:
        _join_keyring(pipe)
    if service.chroot:
        _change_root(service.chroot, launch.rights)
    set_privileges(service, is_root=launch.is_root)
    _change_folder(service.cwd, launch.rights)
    _go_on_as_worker(env)
    set_binding_limits(limits)


def _enter_cgroup(procs: str) -> None:
    with step("enter cgroup", procs):
        write_once(procs, "0")


def _go_on_as_worker(env: dict[str, str]) -> None:
    for name in list(os.environ):  # clear() lists them all again for each
        del os.environ[name]
    os.environ.update(env)
    gc.freeze()  # objects of spawnd are not to be looked at, and so not copied, by collections of the worker either
    gc.enable()


def _begin_files(launch: Launch) -> None:
    """Empty the files that are emptied at each start, and go to the beginning of those that are read again."""
    for slot in launch.emptied:
        with step(f"truncate the file of {slot_name(slot)}"):
            os.truncate(launch.source(slot), 0)
    for slot in launch.rewound:
        source = launch.source(slot)
        with contextlib.suppress(OSError):  # ESPIPE: a FIFO or a terminal
            if isinstance(source, int):
                os.lseek(source, 0, os.SEEK_SET)


def _join_keyring(pipe: ErrorPipe) -> None:
    """While this process is root: a keyring of the service's user would count against the 200 that a user may have."""
    try:
        join_session_keyring()
    except OSError as error:
        pipe.notice(f"cannot make a session keyring: {error.strerror}; services share one with the supervisor")


def _change_root(chroot: str, rights: Rights | None) -> None:
    with step("chroot", chroot):
        fd = open_as(chroot, FOLDER, rights, alone=True)
        try:
            os.fchdir(fd)
            os.chroot(".")
        finally:
            os.close(fd)


def _change_folder(cwd: str, rights: Rights | None) -> None:
    """After the change of user, so that the kernel judges by the rights of the service.

    A function that root runs for a service of another user goes where that user could.
    """
    try:
        _enter(cwd, rights)
    except OSError as error:
        is_closed = error.errno == errno.EACCES and not isinstance(error, ForeignFile)
        cause = "the user of the service may not enter it" if is_closed else error.strerror
        raise failed("change directory", cwd, error.errno or 0, cause or "") from error


def _enter(cwd: str, rights: Rights | None) -> None:
    fd = open_as(cwd, FOLDER, rights, alone=True)
    try:
        os.fchdir(fd)
    finally:
        os.close(fd)


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


def environment(launch: Launch) -> dict[str, str]:
    """The environment of the service, which is this process.  Raises StepError."""
    env = {**launch.service.login_env, **launch.env}
    for path in launch.env_files:
        env.update(_variables_in(path, launch.rights))
    pid = str(os.getpid())
    if launch.fds and launch.service.listen_fds:
        env["LISTEN_FDS"] = str(len(launch.fds))
        env["LISTEN_PID"] = pid
        env["LISTEN_FDNAMES"] = ":".join([name for name, _ in launch.fds])
    if launch.service.forking:
        env[START_MARK] = start_mark(os.getpid(), start_time_before_exec(os.getpid()))
    if launch.notify_socket:
        env["NOTIFY_SOCKET"] = launch.notify_socket
    if launch.mark:
        env[SERVICE_MARK] = launch.mark
    if launch.watchdog_usec:
        env["WATCHDOG_USEC"] = str(launch.watchdog_usec)
        env["WATCHDOG_PID"] = pid
    return env


def _variables_in(path: str, rights: Rights | None) -> dict[str, str]:
    """The variables of an environment file; none where it does not exist and need not, which a `-` before it says."""
    if not path.startswith("-"):
        return read_environment_file(path, rights)
    try:
        return read_environment_file(path[1:], rights)
    except StepError as error:
        if error.errno != errno.ENOENT:
            raise
        return {}


def read_environment_file(path: str, rights: Rights | None = None) -> dict[str, str]:
    """The variables in a file of `KEY=value` lines, `#` and `;` comments and empty lines.

    Blanks around key and value are dropped, and one pair of quotes around the value; nothing
    is expanded or unescaped.  `export` may stand before a key, a byte order mark before the first line.
    Beyond links of others the path is reached with `rights`, see `open_as`.  Raises StepError, which
    names a bad line by its number: what is in such a file is secret.
    """
    with step("read", path):
        data = _read(path, rights)
    variables = {}
    for number, line in enumerate(os.fsdecode(data.removeprefix(BOM_UTF8)).split("\n"), 1):
        line = line.strip(_BLANKS)
        if not line or line.startswith(("#", ";")):
            continue
        key, equals, value = _EXPORT.sub("", line).partition("=")
        key = key.rstrip(_BLANKS)
        if not equals or not _NAME.match(key) or "\0" in value:
            raise failed("read", path, errno.EINVAL, f"line {number} is not KEY=value", number)
        variables[key] = _unquote(value.lstrip(_BLANKS))
    return variables


def _read(path: str, rights: Rights | None) -> bytes:
    # a FIFO by mistake is an empty file rather than a start that hangs
    fd = open_as(path, os.O_RDONLY, rights, alone=True, both_ways=False)
    try:
        data = b""
        while chunk := os.read(fd, LARGEST_FILE):
            data += chunk
            if len(data) > LARGEST_FILE:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return data
    finally:
        os.close(fd)


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value
