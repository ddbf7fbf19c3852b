"""An empty cgroup from the first look to its end, in three calls: `cgroup_calls.c`, beside this module.

A way is a path from the folder `above`; None: it is absolute.  All files are read in such a way that they are this
cgroup's and not those of another one that has its name by now.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable, Sequence

# what `look` is asked for
OPEN = 1
WITH_FOLDER = 2

# what `look` returns
THERE = 1
POPULATED = 2
FROZEN = 4
ANOTHER = 8
OPENED = 16

COUNTERS = 10
AT_FDCWD = -100
_PATH_CODEC = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()


class Counter(ctypes.Structure):
    """`struct counter`: a number is behind `key` in a file, or without a key all that is in there."""

    _fields_ = (("file", ctypes.c_char_p), ("key", ctypes.c_char_p))


class Opened(ctypes.Structure):
    """`struct opened`: the first file of an empty cgroup and, where that was asked for, its folder; it owns both.

    `numbers` are those of the last reading, -1 for what the kernel does not count; `found` is the set of those that it
    counts, bit N for counter N; `birth` is seconds since 1970, less than 0 where it is not known.
    """

    _fields_ = (
        ("numbers", ctypes.c_int64 * COUNTERS),
        ("birth", ctypes.c_double),
        ("first", ctypes.c_int32),
        ("folder", ctypes.c_int32),
        ("found", ctypes.c_int32),
    )
    numbers: Sequence[int]
    birth: float
    first: int
    folder: int
    found: int

    def take_folder(self) -> int:
        """Hand the folder over."""
        folder, self.folder = self.folder, -1
        return folder

    def close(self) -> None:
        os.close(self.first)
        if self.folder >= 0:
            os.close(self.take_folder())


_library = ctypes.CDLL(os.path.join(os.path.dirname(__file__), "libcgroup_calls.so"))
_look = _library.look
_look.argtypes = (
    ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(Opened),
)  # fmt: skip
_read_again = _library.read_again
_read_again.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.POINTER(Opened))
_delete_cgroup = _library.delete_cgroup
_delete_cgroup.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int)


def table(counters: Iterable[tuple[str, str | None]]) -> ctypes.Array[Counter]:
    """Counters as the calls take them, by file and key; those of a file are neighbours, and the first has a key."""
    rows = [Counter(file.encode(), key.encode() if key else None) for file, key in counters]
    assert len(rows) == COUNTERS
    return (Counter * COUNTERS)(*rows)


def look(
    way: str, above: int | None, flags: int, inode: int, counters: ctypes.Array[Counter], wanted: int, opened: Opened
) -> int:
    """Return what is seen of a cgroup, 0 where there is none; with OPEN, open and read it where it is empty.

    OPENED: it is `opened`, and the counters of the set `wanted` are read as far as there are such.  ANOTHER: the inode
    is not this one.  Raises OSError, EMFILE and ENFILE.
    """
    seen: int = _look(
        AT_FDCWD if above is None else above, way.encode(*_PATH_CODEC), flags, inode, counters, wanted, opened
    )
    if seen < 0:
        raise OSError(-seen, os.strerror(-seen), way)
    return seen


def read_again(way: str, above: int | None, counters: ctypes.Array[Counter], opened: Opened) -> bool:
    """Read the counters that are in the set `opened.found`; False: the cgroup is gone.

    Which ones a cgroup has does not change while it is empty.  Raises OSError, EMFILE and ENFILE.
    """
    result: int = _read_again(AT_FDCWD if above is None else above, way.encode(*_PATH_CODEC), counters, opened)
    if result < 0:
        raise OSError(-result, os.strerror(-result), way)
    return result > 0


def delete_cgroup(way: str, above: int | None, first: int, inotify: int, watches: tuple[int, int]) -> None:
    """Delete a cgroup; then close its first file, and end the watches of `inotify` on it, of which -1 is none.

    Raises OSError.
    """
    result: int = _delete_cgroup(
        AT_FDCWD if above is None else above, way.encode(*_PATH_CODEC), first, inotify, *watches
    )
    if result < 0:
        raise OSError(-result, os.strerror(-result), way)
