"""The steps of a worker's process from the fork to the worker, in a fixed order.

The order is a rule. Steps that need root or a path of the host come before chroot and the change of user. The
change of user comes before the kept capabilities and the working directory; no_new_privs is last. The process
shares spawnd's memory until it writes to it, and a thousand children may start in a row. Therefore imports
and computations that are possible before the fork are done there.

The environment of a service has the variables of its definition, of its environment files, and of the
protocols sd_listen_fds(3), sd_notify(3) and sd_watchdog_enabled(3).
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

LARGEST_FILE = 1 << 20  # bytes; the kernel accepts 2 MiB of arguments and environment with the default stack

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_BLANKS = " \t\n\r\v\f"
_EXPORT = re.compile(r"\Aexport\s+", re.A)


def prepare(launch: Launch) -> None:
    """Import rarely needed modules for this launch. Called in spawnd before the fork."""
    load_prctl(launch.service)


def become_worker(launch: Launch, load: Callable[[], Main], hears: bool = True) -> NoReturn:
    """Become a worker. Called in the child with all signals blocked; never returns.

    After the set-up, `load` imports the worker and returns its main function, which returns the exit status. An
    earlier failure is reported on `launch.error_fd`, and the exit status is EXIT_CHILD_FAILED. The same holds if no
    spawnd that knows this child is left. Without `hears`, signals stay blocked, and the worker unblocks them.
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
    """Set up the process for the worker, whose environment then is in `os.environ`.

    Owns all descriptors of the process; afterwards, only those of the table and `pipe` are left. Raises
    StepError; the process then can only report it through `pipe`.
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
    for name in list(os.environ):  # clear() would list all variables again for each
        del os.environ[name]
    os.environ.update(env)
    gc.freeze()  # collections of the worker must not visit, and thus copy, objects of spawnd
    gc.enable()


def _begin_files(launch: Launch) -> None:
    """Truncate files that each start empties, and rewind files that are read again."""
    for slot in launch.emptied:
        with step(f"truncate the file of {slot_name(slot)}"):
            os.truncate(launch.source(slot), 0)
    for slot in launch.rewound:
        source = launch.source(slot)
        with contextlib.suppress(OSError):  # ESPIPE: a FIFO or a terminal
            if isinstance(source, int):
                os.lseek(source, 0, os.SEEK_SET)


def _join_keyring(pipe: ErrorPipe) -> None:
    """Join a new keyring while this process is root, because users may have only 200 keyrings."""
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
    """Change the directory after the change of user, so that the kernel checks the rights of the service.

    A function that root runs for a service of another user is limited to the rights of that user.
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
    """Run a worker in a forked child after its set-up; the result of its main function is the exit status."""
    status = EXIT_CHILD_FAILED
    try:
        # as in every Python process: a write without a reader is an error and not the end
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
    """Return the environment of the service, which is this process. Raises StepError."""
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
    """Return the variables of an environment file; empty for a missing file whose path begins with `-`."""
    if not path.startswith("-"):
        return read_environment_file(path, rights)
    try:
        return read_environment_file(path[1:], rights)
    except StepError as error:
        if error.errno != errno.ENOENT:
            raise
        return {}


def read_environment_file(path: str, rights: Rights | None = None) -> dict[str, str]:
    """Return the variables of a file with `KEY=value` lines, `#` and `;` comments, and empty lines.

    Blanks around key and value are dropped, and a pair of quotes around the value; there are no expansions
    and escapes. `export` may precede a key, a byte order mark the first line. Beyond links of other users,
    the path is accessed with `rights`, see `open_as`. Raises StepError, which names a bad line by number,
    because the content of the file is secret.
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
    # a FIFO there by mistake is an empty file, and does not block the start
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
