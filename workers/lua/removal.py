"""Removing a folder with everything in it, by descriptors, so that no link and no exchanged folder leads elsewhere."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(slots=True)
class _Level:
    """A folder on the way down: its name in the one above it, which file it is, and the names still to be removed."""

    name: str
    identity: tuple[int, int]
    names: list[str]


def remove_tree(name: str, folder: int) -> None:
    """Remove the folder `name` in the open folder `folder` with all that it holds.  Raises OSError.

    One descriptor is open at a time however deep the tree is.  The way back up is by `..`, and ends with ESTALE
    where the folder was moved meanwhile.
    """
    top = os.fstat(folder)
    fd = os.open(name, _FOLDER, dir_fd=folder)
    try:
        levels = [_level(name, fd)]
        while levels:
            level = levels[-1]
            below = _next_folder(level, fd)
            if below is not None:
                fd = _replaced(fd, os.open(below, _FOLDER, dir_fd=fd))
                levels.append(_level(below, fd))
                continue
            levels.pop()
            above = levels[-1].identity if levels else (top.st_dev, top.st_ino)
            fd = _replaced(fd, _above(fd, above))
            os.rmdir(level.name, dir_fd=fd)
    finally:
        os.close(fd)


def _level(name: str, fd: int) -> _Level:
    return _Level(name, _identity(os.fstat(fd)), os.listdir(fd))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _next_folder(level: _Level, fd: int) -> str | None:
    """Remove what is no folder; the first name that is one, None after the last."""
    while level.names:
        name = level.names.pop()
        try:
            if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                return name
            os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            pass  # another process was quicker
    return None


def _above(fd: int, identity: tuple[int, int]) -> int:
    above = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    if _identity(os.fstat(above)) != identity:
        os.close(above)
        raise OSError(errno.ESTALE, "the folder was moved while it was being removed")
    return above


def _replaced(old: int, new: int) -> int:
    os.close(old)
    return new
