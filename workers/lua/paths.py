"""The paths of `fsys`: how they are walked, how errors name them, and how far root trusts them.

With `follow`, the script's choice, every link is followed. Without it, only links that root alone can have
set are followed, and files that another user can have put into a world-writable folder are refused. `looks`:
the file is not used, so its owner does not matter.
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
    """Return the path without slashes at its end, which would make the kernel follow a link there."""
    text = os.fsdecode(path)
    return text.rstrip("/") or "/"


def by_number(fd: int) -> str:
    """Return a path of an open descriptor, for system calls that accept no O_PATH descriptor."""
    return f"/proc/self/fd/{fd}"


def is_folder(place: Place) -> bool:
    return stat.S_ISDIR(os.stat(place.name, dir_fd=place.folder, follow_symlinks=False).st_mode)


@contextlib.contextmanager
def about(path: bytes) -> Iterator[None]:
    """Name the path in an OSError, whatever argument the system call had."""
    try:
        yield
    except OSError as error:
        text = error.strerror or str(error)
        raise OSError(error.errno, text + HINTS.get(type(error), ""), path) from error


@contextlib.contextmanager
def place_for(follow: bool, *, looks: bool = False) -> Iterator[Place]:
    """Begin a walk at the start of a relative path."""
    with Place(".", follows_all=follow, owners=None if follow or looks else ()) as place:
        yield place


@contextlib.contextmanager
def named(path: bytes, follow: bool, *, exists: bool = True, looks: bool = False) -> Iterator[Place]:
    """Yield the folder of a name, and the name, which is not followed.

    A trailing slash requires a folder rather than a link, if the name `exists` already.
    """
    with about(path), place_for(follow, looks=looks) as place:
        place.enter(stripped(path))
        if exists and path.endswith(b"/") and not is_folder(place):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        yield place


@contextlib.contextmanager
def held(path: bytes, follow: bool, *, looks: bool = False) -> Iterator[tuple[int, Place]]:
    """Yield an O_PATH descriptor of the end of a path, following links there, and its place."""
    with about(path), place_for(follow, looks=looks) as place:
        place.enter(os.fsdecode(path))
        with held_again(place) as fd:
            yield fd, place


@contextlib.contextmanager
def held_again(place: Place) -> Iterator[int]:
    """Yield an O_PATH descriptor of the file that is now at a place."""
    fd = place.hold()
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def opened(path: bytes, flags: int, follow: bool, mode: int = 0o600) -> Iterator[int]:
    """Yield a descriptor that does not block, even of a FIFO."""
    with about(path), place_for(follow) as place:
        fd, _ = place.open(os.fsdecode(path), flags, mode, both_ways=False)
        try:
            yield fd
        finally:
            os.close(fd)
