"""The way to the command, in the child: its session, namespaces, user, environment and exec.

The kernel dictates the order. IPC and PID namespaces belong to the host's root, so the user namespace comes
last: inside it, a process has no rights over them any more. A PID namespace takes in children only.
"""

from __future__ import annotations

import os
import pwd
import signal
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

import prctl

from supervisor.linux.capabilities import raise_effective
from supervisor.linux.credentials import join_session_keyring, set_dumpable
from supervisor.linux.descriptors import LAST_DESCRIPTOR, close_range
from supervisor.linux.namespaces import (
    CLONE_NEWIPC,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_REC,
    MS_SLAVE,
    mount,
    setns,
    unshare,
)
from workers.accessory.client import Namespaces
from workers.accessory.enter.arguments import Arguments, Maps
from workers.accessory.enter.running import end_like, wait_child
from workers.accessory.enter.terminal import STANDARD, Terminal, become_terminal

CANNOT_ENTER = 125
CANNOT_RUN = 126
NOT_FOUND = 127
FIRST_OTHER = len(STANDARD)
UMASK = 0o022
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSED_ON = ("TERM", "LANG", "LANGUAGE", "COLORTERM", "TZ")
LOCALE = "LC_"


class JoinError(Exception):
    """A namespace cannot be joined; the text says which, and which privilege is missing."""


@dataclass(frozen=True, slots=True)
class Start:
    """The input for the start of the command; `mask` is the caller's signal mask."""

    arguments: Arguments
    program: str
    namespaces: Namespaces
    terminal: Terminal | None
    mask: set[signal.Signals]


def join_before_fork(namespaces: Namespaces) -> None:
    """Join the IPC and PID namespaces, in the parent. Raises JoinError."""
    if namespaces.ipc >= 0:
        _join(namespaces.ipc, CLONE_NEWIPC, "IPC")
    if namespaces.pid >= 0:
        _join(namespaces.pid, CLONE_NEWPID, "PID")


def begin(start: Start) -> NoReturn:
    """Begin the session of the command, in the child, and lead it or execute the command."""
    status = CANNOT_ENTER
    terminal, user = start.terminal, start.namespaces.user
    try:
        os.setsid()
        if terminal is not None:
            terminal.give_to(_host_uid(start.arguments))
            become_terminal(terminal.slave, terminal.stand_ins)
        _close_all_but({user} if terminal is None else {user, terminal.begins})
        _leave_keyring()
        _mount_proc(start.namespaces)
        os.chdir("/")
        os.umask(UMASK)
        pid = os.fork() if terminal is not None else 0
        if terminal is None or pid == 0:
            _run(start)
        _close_all_but(set())
        status = end_like(wait_child(pid, terminal.stand_ins[0]))
    except JoinError as error:
        say(str(error), status)
    except OSError as error:
        say(f"cannot start a process in the namespaces: {error.strerror}", status)
    finally:
        os._exit(status)


def _run(start: Start) -> NoReturn:
    """Execute the command."""
    status = CANNOT_ENTER
    arguments = start.arguments
    try:
        if start.terminal is not None:
            os.setpgid(0, 0)
            if not start.terminal.asks:
                os.tcsetpgrp(start.terminal.stand_ins[0], os.getpid())
        if start.namespaces.user >= 0 and arguments.maps is not None:
            _enter_user_namespace(start.namespaces.user, arguments.maps)
        for signum in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
            signal.signal(signum, signal.SIG_DFL)
        environment = environment_of(os.getuid(), arguments.env, os.environ)
        signal.pthread_sigmask(signal.SIG_SETMASK, start.mask)  # from here on the file system may block
        _enter_folder(arguments.cwd)
        os.execvpe(start.program, arguments.command, environment)  # noqa: S606  # no shell is the point
    except JoinError as error:
        say(str(error), status)
    except OSError as error:
        status = NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
        say(f"cannot run {arguments.command[0]!r}: {error.strerror}", status)
    finally:
        os._exit(status)


def _host_uid(arguments: Arguments) -> int:
    """Return the user of the command on the host."""
    return os.getuid() if arguments.maps is None else arguments.maps.uids[0].outside


def _close_all_but(kept: set[int]) -> None:
    """Close all other descriptors of the caller, which are not for the command. The exec closes the kept ones."""
    first = FIRST_OTHER
    for fd in sorted(fd for fd in kept if fd >= FIRST_OTHER):
        if fd > first:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first, LAST_DESCRIPTOR)


def _leave_keyring() -> None:
    """Join a new session keyring for the command: a process that has a key's keyring may read the key."""
    try:
        join_session_keyring()
    except OSError as error:
        say(f"cannot make a session keyring: {error.strerror}; the command has the caller's", 0)


def _enter_folder(path: str) -> None:
    try:
        os.chdir(path)
    except OSError as error:
        raise JoinError(f"cannot change to the directory {path!r}: {error.strerror}") from error


def _mount_proc(namespaces: Namespaces) -> None:
    """Mount a private /proc of the PID namespace, in the child. Raises JoinError."""
    if namespaces.pid < 0:
        return
    try:
        unshare(CLONE_NEWNS)
        mount("none", "/", "", MS_REC | MS_SLAVE)  # mounts do not propagate to the outside
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except OSError as error:
        raise JoinError(f"cannot mount /proc: {error.strerror}") from error


def _enter_user_namespace(fd: int, maps: Maps) -> None:
    """Become the first user of the maps, in the command's process. Raises JoinError.

    The namespace's owner may trace a dumpable process in it, which must not be root of the host by then. So
    the user changes first.
    """
    with suppress(PermissionError):  # without root, a process can change its user only inside
        _leave_root(maps.uids[0].outside, maps.gids[0].outside)
    set_dumpable(False)  # a change of user sets it to fs.suid_dumpable
    _join(fd, CLONE_NEWUSER, "user")
    _become(maps.uids[0].inside, maps.gids[0].inside)


def _leave_root(uid: int, gid: int) -> None:
    """Become this user of the host, with the capabilities to join its namespace. Raises PermissionError."""
    prctl.set_keepcaps(True)
    try:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        raise_effective()
    except PermissionError:
        raise
    except OSError as error:
        raise JoinError(f"cannot become uid {uid}, gid {gid} of the host: {error.strerror}") from error


def _become(uid: int, gid: int) -> None:
    try:
        with suppress(PermissionError):  # if it is denied, the groups stay, and are unmapped inside
            os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise JoinError(f"cannot become uid {uid}, gid {gid} of the user namespace: {error.strerror}") from error


def _join(fd: int, kind: int, what: str) -> None:
    try:
        setns(fd, kind)
    except OSError as error:
        hint = ": it takes CAP_SYS_ADMIN" if isinstance(error, PermissionError) and kind != CLONE_NEWUSER else ""
        raise JoinError(f"cannot join the {what} namespace: {error.strerror}{hint}") from error


def environment_of(uid: int, wanted: Iterable[str], ours: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a command that runs as `uid`; `wanted` has NAME=VALUE, or NAME for our own value."""
    found = {"PATH": PATH}
    found |= {name: value for name, value in ours.items() if name in PASSED_ON or name.startswith(LOCALE)}
    found |= _login(uid)
    for text in wanted:
        name, has_value, value = text.partition("=")
        if has_value:
            found[name] = value
        elif name in ours:
            found[name] = ours[name]
    return found


def _login(uid: int) -> dict[str, str]:
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return {"HOME": "/"}
    shell = user.pw_shell or "/bin/sh"
    return {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name, "SHELL": shell}


def say(message: str, status: int) -> int:
    """Print an error and return the exit status."""
    with suppress(OSError):
        print(f"spawn-enter: {message}", file=sys.stderr, flush=True)
    return status
