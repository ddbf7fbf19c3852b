"""Empty cgroups from the first look to their end, many of them with a call: `cgroup_calls.c`, beside this module.

A way is a path from a folder, HERE where it is absolute.  All files are read in such a way that they are this
cgroup's and not those of another one that has its name by now.
"""

from __future__ import annotations

import ctypes
import os
import sys
from array import array
from collections.abc import Iterable, Sequence

# what `look` is asked for
OPEN = 1
WITH_FOLDER = 2
COUNT_ALL = 4

# what `look` finds
THERE = 1
POPULATED = 2
FROZEN = 4
ANOTHER = 8
OPENED = 16

# why `delete_cgroups` has not deleted one
GONE = 1
CHANGED = 2

COUNTERS = 10
HERE = -100  # AT_FDCWD: the working folder, where an absolute path begins as well as anywhere else
LARGEST = (1 << 63) - 1  # of an inode, the highest bit does not count
_PATH_CODEC = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()


class Counter(ctypes.Structure):
    """`struct counter`: a number is behind `key` in a file, or without a key all that is in there."""

    _fields_ = (("file", ctypes.c_char_p), ("key", ctypes.c_char_p), ("controller", ctypes.c_char_p))


# `struct opened`: what is seen, birth, first file, folder; then the numbers
_OPENED = array("q", bytes(8 * (4 + COUNTERS)))


class Opened:
    """The first file of an empty cgroup and, where that was asked for, its folder, else -1; it owns both.

    `numbers` are those of the counters, -1 for what the kernel does not count; `birth` is nanoseconds since 1970, less
    than 0 where it is not known.
    """

    __slots__ = ("birth", "first", "folder", "numbers")

    def __init__(self, answer: tuple[int, ...]) -> None:
        """`answer` is that of `look`."""
        _, self.birth, self.first, self.folder, *self.numbers = answer

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
_look.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_look.restype = None
_delete_cgroups = _library.delete_cgroups
_delete_cgroups.argtypes = (
    ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p,
)  # fmt: skip
_delete_cgroups.restype = None


def table(counters: Iterable[tuple[str, str | None, bytes | None]]) -> ctypes.Array[Counter]:
    """Counters as the calls take them, by file, key and controller.

    Those of a file are neighbours; the first one has a key, and no cgroup is without its file.
    """
    rows = [Counter(file.encode(), key.encode() if key else None, controller) for file, key, controller in counters]
    assert len(rows) == COUNTERS
    return (Counter * COUNTERS)(*rows)


def look(ways: Sequence[str], asked: Sequence[int], counters: ctypes.Array[Counter]) -> Iterable[tuple[int, ...]]:
    """Look at cgroups and, with OPEN, open those that are empty and read their first file.

    COUNT_ALL: also all that the controllers of its parent count for it, for which the parent is asked once for all
    that are behind one another.  `asked` are three numbers for each: the folder of the way, the inode up to LARGEST,
    and flags.  The first number of an answer is what is seen, 0 where there is no such cgroup.  OPENED: the answer is
    that of an `Opened`.  ANOTHER: the inode is not this one.  Less than 0: an errno, EMFILE and ENFILE.
    """
    questions, answers = array("q", asked), _OPENED * len(ways)
    _look(_joined(ways), len(ways), questions.buffer_info()[0], counters, answers.buffer_info()[0])
    numbers = iter(answers)
    return zip(*[numbers] * len(_OPENED), strict=True)


def delete_cgroups(
    inotify: int, ways: Sequence[str], doomed: Sequence[int], counters: ctypes.Array[Counter]
) -> Sequence[int]:
    """Delete cgroups; then close the first file of each, and end the watches of `inotify` on it.

    `doomed` are five numbers for each: the folder of the way, the first file, the first number of its last reading, and
    two watches, of which -1 is none.  A result is 0, GONE, CHANGED where the first number is another one by now, or an
    errno with a minus sign.
    """
    questions, results = array("q", doomed), array("i", bytes(4 * len(ways)))
    _delete_cgroups(inotify, _joined(ways), len(ways), questions.buffer_info()[0], counters, results.buffer_info()[0])
    return results


def _joined(ways: Sequence[str]) -> bytes:
    return "\0".join(ways).encode(*_PATH_CODEC)
