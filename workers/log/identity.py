"""The user of the log worker if spawnd is root: a user of its own, without capabilities.

The worker reads the output of every service, and needs only the descriptors that it gets for that.
"""

from __future__ import annotations

import os

from supervisor.linux.capabilities import drop_all, has_effective, set_no_new_privs
from supervisor.log.logger import notice

USER = "spawnd-log"  # if the host has this user
ID = 65525  # otherwise: Debian and systemd leave the ids from 65520 to 65533 unused
PASSWD = "/etc/passwd"  # noqa: S105  # a path; read as a file, because a name service may take any time

CAP_SYS_PTRACE = 19  # <linux/capability.h>


def leave_root() -> None:
    """Permanently give up root and all capabilities. A worker of an ordinary user keeps its user.

    After a loss, the next spawnd gets the output of all services back from this process. Without CAP_SYS_PTRACE,
    spawnd cannot inspect a process of another user; the worker then stays root, without capabilities.
    """
    if os.geteuid() != 0:
        return
    if has_effective(CAP_SYS_PTRACE):
        uid, gid = find_ids()
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        except OSError as error:
            notice("cannot run the log worker as uid %d: %s; it stays root, without capabilities", uid, error.strerror)
    drop_all()
    set_no_new_privs()


def find_ids(passwd: str = PASSWD) -> tuple[int, int]:
    """Return uid and gid of USER, or ID for both."""
    try:
        with open(passwd, encoding="utf-8", errors="replace") as file:
            for line in file:
                fields = line.split(":")
                if fields[0] == USER:
                    return int(fields[2]), int(fields[3])
    except (OSError, ValueError, IndexError) as error:
        notice("cannot look up user %s in %s: %s", USER, passwd, error)
    return ID, ID
