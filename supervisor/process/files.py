"""Files that root opens for services, in folders where the service's user can redirect a path: modes of fopen(3).

Root's own rights end at a link that another user could have set (`Place`). Beyond such a link, a file that is
only read is opened with the rights of the service's user (`open_as`). So a link such as `/srv/app/current`
works, but gives no access to files that only root may read. Links in `/proc` to the open files of a process
are not followed for other users.

The folder of a file may belong to the service's user. So a file to be written is reached step by step,
through symbolic links only where root alone can have made them, and never through a link to a missing file. A
hard link that such a user can have made to a foreign file is refused, and so is another user's file in a
world-writable folder. Owner and mode are set on the descriptor of a file that was created here, never by path
and never on an existing file. A spawnd that is not root has no rights to protect, and follows every link.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from supervisor.definitions.service import Descriptor, Service
from supervisor.errors import ServedFileError
from supervisor.linux.capabilities import capget, capset, limit_effective
from supervisor.linux.credentials import is_dumpable, set_dumpable, setfsgid, setfsuid, setgroups
from supervisor.linux.file_status import PROC_SUPER_MAGIC, SYSFS_MAGIC, file_system_of
from supervisor.linux.place import Place, UntrustedLink
from supervisor.process.failure import step
from supervisor.process.fork import in_thread

IsLocal = Callable[[int, str], bool]
"""Whether a name in an open folder, or with no name the open file itself, is on a file system that answers at once.

An access to others may wait for ever.
"""

DEFAULT_MODE = 0o640  # of a created file; spawnd's umask has no effect
EMPTIED = frozenset({"w", "w+"})  # fopen(3): the file is truncated when it is opened

_ACCESS = {
    "r": os.O_RDONLY,
    "r+": os.O_RDWR,
    "w": os.O_WRONLY | os.O_TRUNC,
    "w+": os.O_RDWR | os.O_TRUNC,
    "a": os.O_WRONLY | os.O_APPEND,
    "a+": os.O_RDWR | os.O_APPEND,
}


class Rights(NamedTuple):
    """Ids of a user for the kernel's checks of access to files."""

    uid: int
    gid: int
    gids: tuple[int, ...] = ()


def rights_of(service: Service) -> Rights:
    return Rights(service.uid, service.gid, service.gids)


def place_for(
    rights: Rights | None,
    *,
    follows_all: bool = False,
    owner: int | None = None,
    is_local: IsLocal | None = None,
    path: str = "",
) -> Place:
    """Return a walk to a file for a user with `rights`; `owner` is the uid that spawnd gives to a file it creates.

    The walk ends with a ServedFileError, which names `path`, before it asks a file system that is not `is_local`.
    """
    owners = {-1 if rights is None else rights.uid, -1 if owner is None else owner}
    return Place(follows_all=follows_all, owners=owners, enters=refusal(path, is_local))


def open_as(
    path: str, flags: int, rights: Rights | None, *, both_ways: bool = True, is_local: IsLocal | None = None
) -> int:
    """Open the existing file at `path`, with `rights` beyond links of other users; the caller owns the descriptor.

    Never blocks. Without `rights` such a link is an error. A file that another user can have put into a
    world-writable folder is an error even with `rights`. See `Place.open` for `both_ways`. Raises OSError, and
    ServedFileError for a path that is not `is_local`.
    """
    follows_all = rights is not None and rights.uid == 0
    with place_for(rights, follows_all=follows_all, is_local=is_local, path=path) as place:
        try:
            return place.open(path, flags, both_ways=both_ways)[0]
        except UntrustedLink as link:
            if rights is None:
                raise
            wanted, rest = rights, link.rest

        def beyond() -> int:
            with _lent(wanted):
                place.follow_all()
                return place.open(rest, flags, both_ways=both_ways)[0]

        return in_thread(beyond, "open")


def refusal(path: str, is_local: IsLocal | None) -> Callable[[int, str], None]:
    """Return the function for `Place` that refuses to enter file systems that are not `is_local`."""

    def enter(fd: int, name: str) -> None:
        if is_local is not None and not is_local(fd, name):
            raise ServedFileError(path)

    return enter


@contextmanager
def _lent(rights: Rights) -> Iterator[None]:
    """Give the calling thread only `rights` for access to files, and no capabilities.

    Its real and effective ids stay root's, so that the user cannot signal it. The kernel makes a process that
    changes such an id undumpable for good, and a successor of spawnd could not get the descriptors of its
    workers.
    """
    groups, capabilities, dumpable = os.getgroups(), capget(), is_dumpable()
    try:
        setgroups(rights.gids)
        setfsgid(rights.gid)
        setfsuid(rights.uid)
        limit_effective(())
        yield
    finally:
        capset(capabilities)
        setfsuid(0)
        setfsgid(os.getegid())
        setgroups(groups)
        set_dumpable(dumpable)


def inode_of(fd: int) -> tuple[int, int] | None:
    """Return device and inode of a regular file, None for anything else.

    Files of /proc and /sys have no stable inode and return None.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or file_system_of(fd) in (PROC_SUPER_MAGIC, SYSFS_MAGIC):
        return None
    return status.st_dev, status.st_ino


def open_file(spec: Descriptor, rights: Rights | None = None, is_local: IsLocal | None = None) -> int:
    """Open a file; the caller owns the descriptor. `rights` are those of the service's user.

    Raises StepError: ServedFileError, before any access, where a folder of the path or the file is not `is_local`.
    """
    with step("open", spec.path):
        if spec.access == "r":
            return _open_to_read(spec.path, rights, is_local)
        return _open_to_write(spec, rights, is_local)


def _open_to_read(path: str, rights: Rights | None, is_local: IsLocal | None) -> int:
    fd = open_as(path, os.O_RDONLY, rights, is_local=is_local)
    try:
        os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_to_write(spec: Descriptor, rights: Rights | None, is_local: IsLocal | None) -> int:
    with place_for(rights, owner=spec.owner, is_local=is_local, path=spec.path) as place:
        flags = _ACCESS[spec.access] | (os.O_CREAT if spec.access.startswith(("w", "a")) else 0)
        fd, created = place.open(spec.path, flags)
        try:
            if created:
                _set_owner_and_mode(fd, spec)
            os.set_blocking(fd, True)
        except BaseException:
            if created:
                with contextlib.suppress(OSError):
                    os.unlink(place.name, dir_fd=place.folder)
            os.close(fd)
            raise
    return fd


def _set_owner_and_mode(fd: int, spec: Descriptor) -> None:
    if spec.owner is not None or spec.group is not None:
        with step("change owner", spec.path):
            os.fchown(fd, -1 if spec.owner is None else spec.owner, -1 if spec.group is None else spec.group)
    with step("change mode", spec.path):
        os.fchmod(fd, DEFAULT_MODE if spec.mode is None else spec.mode)
