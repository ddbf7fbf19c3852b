"""Joining namespaces, in the order in which the kernel lets one.

IPC and PID namespaces belong to the host's root, so the user namespace comes last: in it one has
no rights over them any more.  A PID namespace takes in children only.
"""

from __future__ import annotations

import os
from contextlib import suppress

from supervisor.linux.mount import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_REC, MS_SLAVE, mount
from supervisor.linux.namespaces import CLONE_NEWIPC, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, setns, unshare
from workers.accessory.client import Namespaces
from workers.accessory.enter.arguments import Maps


class JoinError(Exception):
    """A namespace cannot be joined; the text says which, and what it takes."""


def join_before_fork(namespaces: Namespaces) -> None:
    """In the parent.  Raises JoinError."""
    if namespaces.ipc >= 0:
        _join(namespaces.ipc, CLONE_NEWIPC, "IPC")
    if namespaces.pid >= 0:
        _join(namespaces.pid, CLONE_NEWPID, "PID")


def join_after_fork(namespaces: Namespaces, maps: Maps | None) -> None:
    """In the child.  Raises JoinError."""
    if namespaces.pid >= 0:
        try:
            unshare(CLONE_NEWNS)
            mount("none", "/", "", MS_REC | MS_SLAVE)  # nothing of ours is seen outside
            mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        except OSError as error:
            raise JoinError(f"cannot mount /proc: {error.strerror}") from error
    if namespaces.user >= 0 and maps is not None:
        _join(namespaces.user, CLONE_NEWUSER, "user")
        _become(maps)


def _become(maps: Maps) -> None:
    uid, gid = maps.uids[0].inside, maps.gids[0].inside
    try:
        with suppress(PermissionError):  # it may be denied: then they stay, and are nobody's inside
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
