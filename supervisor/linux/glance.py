"""Reads of `/proc` entries of other processes with a time limit, with `glance.c` beside this module.

The kernel shows `stat`, `environ`, links and other entries of a process only if it gets the process's locks:
that of execve and that of the mappings. A process may hold a lock forever, for example because its exec
closes a file whose FUSE server does not answer. Only SIGKILL ends a wait for such a lock, so a child does the
wait. This costs the caller about 0.1 ms.

Reads that never wait need no child: `status`, `statm`, `cgroup`, `task/*/children`, the names in `fd`,
getsid(2), pidfd_open(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time
from collections.abc import Sequence
from typing import NamedTuple

CONTENT, LINK, OPEN_FILE = "c", "l", "f"  # kinds of requests
ROOM = 65536  # bytes of answers from one child
PATIENCE_MS = 100  # for the first process that blocks a child; halved for each further one
LEAST_MS = 2
REMEMBERED = 1.0  # seconds until such a process is tried again
AT_ONCE = 1024  # maximal number of requests to a child

_OPEN_FILE = struct.Struct("=QQIi")

_library = ctypes.CDLL(os.path.join(os.path.dirname(__file__), "libglance.so"))
_glance = _library.glance
_glance.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.c_char_p, ctypes.c_int)
_answers = ctypes.create_string_buffer(ROOM)
_waited: dict[str, float] = {}  # by the folder of a process: the time until which it is not tried again


class OpenFile(NamedTuple):
    """A link in `/proc/PID/fd`: its text ('' if too long), its own mode, and inode and mount of the file."""

    link: str
    mode: int
    inode: int
    mount: int


def glance(requests: Sequence[str]) -> list[bytes | int]:
    """Return for each request, a kind and a path of `/proc/PID`, at most 16 KiB, or an errno.

    ETIMEDOUT: the process does not show the entry now. EBUSY: it timed out a moment ago, and was not tried
    again. Raises OSError if no child can be started.
    """
    now = time.monotonic()
    for folder in [folder for folder, until in _waited.items() if until <= now]:
        del _waited[folder]
    answers: list[bytes | int] = [errno.EBUSY] * len(requests)
    todo = [at for at, request in enumerate(requests) if _folder(request) not in _waited]
    patience = PATIENCE_MS
    while todo:
        some = todo[:AT_ONCE]
        found = _ask([requests[at] for at in some], patience)
        for at, answer in zip(some, found, strict=False):
            answers[at] = answer
        todo = todo[len(found) :]
        if found[-1] == errno.ETIMEDOUT:
            folder = _folder(requests[some[len(found) - 1]])
            _waited[folder] = time.monotonic() + REMEMBERED
            todo = [at for at in todo if _folder(requests[at]) != folder]
            patience = max(LEAST_MS, patience // 2)
    return answers


def read_file(path: str) -> bytes:
    """Return the content of a small file of `/proc/PID`. Raises OSError, TimeoutError."""
    return _checked(CONTENT, path)


def read_link(path: str) -> str:
    """Return the text of a link in `/proc/PID`. Raises OSError, TimeoutError."""
    return os.fsdecode(_checked(LINK, path))


def parse_open_file(answer: bytes) -> OpenFile:
    """Decode the answer to an `OPEN_FILE` request."""
    inode, mount, mode, size = _OPEN_FILE.unpack_from(answer)
    return OpenFile(os.fsdecode(answer[_OPEN_FILE.size :]) if size >= 0 else "", mode, inode, mount)


def _checked(kind: str, path: str) -> bytes:
    answer = glance([f"{kind}{path}"])[0]
    if isinstance(answer, int):
        raise OSError(answer, os.strerror(answer), path)
    return answer


def _folder(request: str) -> str:
    return "/".join(request[1:].split("/", 3)[:3])


def _ask(requests: Sequence[str], patience: int) -> list[bytes | int]:
    """Return the answers of one child, at least one; the last one is ETIMEDOUT if the child waited too long."""
    text = b"".join(os.fsencode(request) + b"\0" for request in requests)
    sizes = (ctypes.c_int * len(requests))()
    done = _glance(text, len(requests), sizes, _answers, patience)
    if done < 0:
        raise OSError(-done, os.strerror(-done))
    found: list[bytes | int] = []
    content = memoryview(_answers)
    at = 0
    for size in sizes[:done]:
        if size < 0:
            found.append(-size)
        else:
            found.append(content[at : at + size].tobytes())
            at += size
    return found
