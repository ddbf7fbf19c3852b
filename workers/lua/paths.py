"""The paths of `fsys`: where they lead, whose errors name them, and where root's trust in them ends.

`follow` is what the script has said: every link is followed then, else only links that root alone can have set, and
what another user can have put into a folder that everybody may write to is not used.  `looks`: nothing is used of what
is there, so whose it is does not matter.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from supervisor.linux.place import ForeignFile, Place, UntrustedLink

HINTS: dict[type[OSError], str] = {
    UntrustedLink: "; { follow = true } follows it",
    ForeignFile: "; { follow = true } takes it",
}


def stripped(path: bytes) -> str:
    """Return the path without slashes at its end, which would have the kernel follow a link there."""
    text = os.fsdecode(path)
    return text.rstrip("/") or "/"


def by_number(fd: int) -> str:
    """Return a path of an open descriptor, for system calls that take no O_PATH descriptor."""
    return f"/proc/self/fd/{fd}"


def is_folder(place: Place) -> bool:
    return stat.S_ISDIR(os.stat(place.name, dir_fd=place.folder, follow_symlinks=False).st_mode)


@contextlib.contextmanager
def about(path: bytes) -> Iterator[None]:
    """Name the path in an OSError, whatever the system call was given."""
    try:
        yield
    except OSError as error:
        text = error.strerror or str(error)
        raise OSError(error.errno, text + HINTS.get(type(error), ""), path) from error


@contextlib.contextmanager
def place_for(follow: bool, *, looks: bool = False) -> Iterator[Place]:
    """Begin a walk where a relative path does."""
    with Place(".", follows_all=follow, owners=None if follow or looks else ()) as place:
        yield place


@contextlib.contextmanager
def named(path: bytes, follow: bool, *, exists: bool = True, looks: bool = False) -> Iterator[Place]:
    """Yield the folder of a name that is not followed, and the name.

    A slash behind it says that a folder is meant; a link is none, where the name `exists` already.
    """
    with about(path), place_for(follow, looks=looks) as place:
        place.enter(stripped(path))
        if exists and path.endswith(b"/") and not is_folder(place):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        yield place


@contextlib.contextmanager
def held(path: bytes, follow: bool, *, looks: bool = False) -> Iterator[tuple[int, Place]]:
    """Yield an O_PATH descriptor of the end of a path, links at its end followed, and the place of that."""
    with about(path), place_for(follow, looks=looks) as place:
        place.enter(os.fsdecode(path))
        with held_again(place) as fd:
            yield fd, place


@contextlib.contextmanager
def held_again(place: Place) -> Iterator[int]:
    """Yield an O_PATH descriptor of the file that is at a place now."""
    fd = place.hold()
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def opened(path: bytes, flags: int, follow: bool, mode: int = 0o600) -> Iterator[int]:
    """Yield a descriptor that does not block, not even of a FIFO."""
    with about(path), place_for(follow) as place:
        fd, _ = place.open(os.fsdecode(path), flags, mode, both_ways=False)
        try:
            yield fd
        finally:
            os.close(fd)
