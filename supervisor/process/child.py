"""From the fork to the service: everything that a child does to itself, in a fixed order.

The order is a rule, not a habit.  Steps that need root or a path of the host come before chroot and the user; the user
comes before the kept capabilities and the working directory; no_new_privs is last.  spawnd's memory is shared here
until it is written to, and a thousand children may start in a row: so nothing is imported, and little is computed, that
could have been before the fork.

The environment of a service has its definition's variables, those of its environment files, and those of the
protocols: sd_listen_fds(3), sd_notify(3) and sd_watchdog_enabled(3).  Variables in arguments are expanded as systemd
does it: systemd.service(5), "Command lines".
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
from collections.abc import Callable, Iterator, Mapping
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

FIRST_LINE = 256  # bytes of it that the kernel looks at: BINPRM_BUF_SIZE

Main = Callable[[], int]

LARGEST_FILE = 1 << 20  # bytes; the kernel takes 2 MiB of arguments and environment with the default stack

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_EXPORT = re.compile(r"\Aexport\s+")

_WHOLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_PART = re.compile(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_WORD = re.compile(r"(?:\"[^\"]*\"|'[^']*'|\S)+")
_QUOTED = re.compile(r"\"([^\"]*)\"|'([^']*)'")


def prepare(launch: Launch) -> None:
    """Import what this launch needs beyond the ordinary.  To be called in spawnd, before the fork."""
    load_prctl(launch.service)


def run(launch: Launch, load: Callable[[], Main] | None = None, hears: bool = True) -> NoReturn:
    """Become the service.  To be called in the child, with all signals blocked; never comes back.

    A worker is imported by `load` once all is set up; its main function, which `load` returns, gives the exit status.
    An earlier failure goes to `launch.error_fd`, and the exit status is EXIT_CHILD_FAILED; the same holds when no
    spawnd is left that knows of this child.  Without `hears` signals stay blocked, for the worker to unblock.
    """
    pipe = ErrorPipe(launch.error_fd)
    try:
        env = set_up(launch, pipe, hears)
        if not pipe.is_released():
            os._exit(EXIT_CHILD_FAILED)
        if load is None:
            _execute(_command(launch, env), env)
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
    if launch.worker:
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
    if launch.worker:
        _go_on_as_worker(env)
    else:
        pipe.expect_no_memory("exec", launch.argv[0], "the limits leave no memory for it")
    set_binding_limits(limits)
    return env


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


def _command(launch: Launch, env: dict[str, str]) -> tuple[str, ...]:
    program, *arguments = launch.argv
    return (program, *expand(tuple(arguments), env)) if launch.service.expand_env else launch.argv


def _execute(argv: tuple[str, ...], env: dict[str, str]) -> NoReturn:
    path = argv[0]
    try:
        os.execve(path, argv, env)  # noqa: S606  # no shell is the point
    except OSError as error:
        raise failed("exec", path, error.errno or 0, _why_not(path, error)) from error


def _why_not(path: str, error: OSError) -> str:
    """Say what the kernel does not about a program that it did not execute; '' where there is nothing to say."""
    if error.errno == errno.ENOEXEC:
        begin = _begin_of(path)
        is_text = begin.isascii() and not any(mark in begin for mark in (b"\0", b"\x7f")) and begin[:2] != b"#!"
        return f"{error.strerror}: its first line has to be like #!/bin/sh" if begin and is_text else ""
    if error.errno != errno.ENOENT:
        return ""
    if os.path.exists(path):
        return f"the interpreter that it names{_interpreter_of(_begin_of(path))}"
    program, space, _ = path.partition(" ")
    is_command = space and os.path.isfile(program)
    return f"{error.strerror}, but {program!r} exists: arguments go into `arg`" if is_command else ""


def _interpreter_of(begin: bytes) -> str:
    """Say which interpreter does not exist, where it is a script that names one."""
    first = begin.partition(b"\n")[0].removeprefix(b"#!").strip(b" \t")
    if not begin.startswith(b"#!") or not first:
        return " does not exist"
    name = os.fsdecode(first).replace("\t", " ").split(" ")[0]
    advice = ": its lines end with carriage returns, which have to be removed" if name.endswith("\r") else ""
    return f", {name!r}, does not exist{advice}"


def _begin_of(path: str) -> bytes:
    """The beginning of a regular file, as far as the kernel looks; empty where it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return b""
    with contextlib.suppress(OSError), open(fd, "rb", buffering=0) as file:
        return file.read(FIRST_LINE) or b""
    return b""


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
        line = line.strip()
        if not line or line.startswith(("#", ";")):
            continue
        key, equals, value = _EXPORT.sub("", line).partition("=")
        key = key.rstrip()
        if not equals or not _NAME.match(key) or "\0" in value:
            raise failed("read", path, errno.EINVAL, f"line {number} is not KEY=value", number)
        variables[key] = _unquote(value.lstrip())
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


def expand(arguments: tuple[str, ...], env: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(_expanded(arguments, env))


def _expanded(arguments: tuple[str, ...], env: Mapping[str, str]) -> Iterator[str]:
    for argument in arguments:
        whole = _WHOLE.fullmatch(argument)
        if whole is not None:
            for word in _WORD.findall(env.get(whole[1], "")):
                yield _QUOTED.sub(lambda match: match[1] or match[2] or "", word)
        else:
            yield _PART.sub(lambda match: env.get(match[1], "") if match[1] else "$", argument)
