"""Bulk calls on empty cgroups, from the first look to the deletion, with `cgroup_calls.c` beside this module.

A way is a path relative to a folder, or absolute with HERE. Files are read in such a way that they belong to
this cgroup, and not to another one that has its name now.
"""

from __future__ import annotations

import ctypes
import os
import sys
from array import array
from collections.abc import Iterable, Sequence

# flags for `look`
OPEN = 1
WITH_FOLDER = 2
COUNT_ALL = 4

# results of `look`
THERE = 1
POPULATED = 2
FROZEN = 4
ANOTHER = 8
OPENED = 16

# reasons why `delete_cgroups` has not deleted a cgroup
GONE = 1
CHANGED = 2

COUNTERS = 10
HERE = -100  # AT_FDCWD: the working folder, which serves for absolute paths as well
LARGEST = (1 << 63) - 1  # of an inode, whose highest bit is ignored
_PATH_CODEC = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()


class Counter(ctypes.Structure):
    """`struct counter`: a number behind `key` in a file or, without a key, the whole content of the file."""

    _fields_ = (("file", ctypes.c_char_p), ("key", ctypes.c_char_p), ("controller", ctypes.c_char_p))


# `struct opened`: the result flags, birth, first file and folder; then the numbers
_OPENED = array("q", bytes(8 * (4 + COUNTERS)))


class Opened:
    """The first file of an empty cgroup and its folder, -1 if that was not requested; owns both.

    `numbers` are the values of the counters, -1 for those that the kernel does not count. `birth` is in
    nanoseconds since 1970, negative if unknown.
    """

    __slots__ = ("birth", "first", "folder", "numbers")

    def __init__(self, answer: tuple[int, ...]) -> None:
        """Take an answer of `look`."""
        _, self.birth, self.first, self.folder, *self.numbers = answer

    def take_folder(self) -> int:
        """Return the folder; the caller owns it."""
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
    """Return counters in the format of the calls, from files, keys and controllers.

    Counters of one file are neighbours. The first counter has a key, and its file exists in every cgroup.
    """
    rows = [Counter(file.encode(), key.encode() if key else None, controller) for file, key, controller in counters]
    assert len(rows) == COUNTERS
    return (Counter * COUNTERS)(*rows)


def look(ways: Sequence[str], asked: Sequence[int], counters: ctypes.Array[Counter]) -> Iterable[tuple[int, ...]]:
    """Look at cgroups and, with OPEN, open empty ones and read their first file.

    COUNT_ALL: also read all numbers that the controllers of the parent count for the cgroup; siblings in
    sequence share one look at the parent. `asked` has three numbers for each cgroup: the folder of the way,
    the inode up to LARGEST, and flags. The first number of an answer has the results, 0 for a missing cgroup.
    OPENED: the answer is that of an `Opened`. ANOTHER: the inode is different. A negative number is an errno,
    including EMFILE and ENFILE.
    """
    questions, answers = array("q", asked), _OPENED * len(ways)
    _look(_joined(ways), len(ways), questions.buffer_info()[0], counters, answers.buffer_info()[0])
    numbers = iter(answers)
    return zip(*[numbers] * len(_OPENED), strict=True)


def delete_cgroups(
    inotify: int, ways: Sequence[str], doomed: Sequence[int], counters: ctypes.Array[Counter]
) -> Sequence[int]:
    """Delete cgroups; then close the first file of each, and end the watches of `inotify` on it.

    `doomed` has five numbers for each cgroup: the folder of the way, the first file, the first number of its
    last reading, and two watches, -1 for none. A result is 0, GONE, CHANGED if the first number has changed
    since, or a negative errno.
    """
    questions, results = array("q", doomed), array("i", bytes(4 * len(ways)))
    _delete_cgroups(inotify, _joined(ways), len(ways), questions.buffer_info()[0], counters, results.buffer_info()[0])
    return results


def _joined(ways: Sequence[str]) -> bytes:
    return "\0".join(ways).encode(*_PATH_CODEC)
