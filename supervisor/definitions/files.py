"""Reading definition files: their names, their text, and a check who can write to them."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from supervisor.definitions.problems import Problems

MAX_FILE = 1024 * 1024
MAX_ALL = 8 * 1024 * 1024
TRIES = 5
SETTLE_S = 0.02  # an editor finishes a file within milliseconds

Read = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Source:
    """A definition file with its text."""

    path: str
    text: str


class _Unusable(Exception):
    """A file cannot be used; the message says why."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


class Files:
    """Reads definition files one after the other; adds problems to `problems`."""

    def __init__(self, problems: Problems, *, root: bool, read: Read = os.read) -> None:
        self._problems = problems
        self._root = root
        self._read_fd = read
        self._total = 0
        self._seen: dict[tuple[int, int], str] = {}

    def expand(self, paths: Sequence[str]) -> list[str]:
        """Return the files in `paths`, those of a folder in the order of their names."""
        found: list[str] = []
        for path in paths:
            try:
                if stat.S_ISDIR(os.stat(path).st_mode):
                    found += self._folder(path)
                else:
                    found.append(path)
            except OSError as error:
                self._problems.add(path, 0, f"cannot read: {error.strerror}")
        return found

    def _folder(self, path: str) -> list[str]:
        names = sorted(name for name in os.listdir(path) if name.endswith(".lua") and not name.startswith("."))
        self._warn(path, os.stat(path))
        return [os.path.join(path, name) for name in names]

    def read(self, path: str) -> Source | None:
        """Return the text of a file; None after a problem."""
        try:
            return Source(path, _decode(self._read(path)))
        except _Unusable as error:
            self._problems.add(path, error.line, str(error))
        except OSError as error:
            self._problems.add(path, 0, f"cannot read: {error.strerror}")
        return None

    def _read(self, path: str) -> bytes:
        for attempt in range(TRIES):
            if attempt:
                time.sleep(SETTLE_S)
            # non-blocking, because a FIFO may never get a writer
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
            try:
                data = self._read_unchanged(fd)
                if data is not None:
                    self._account(path, os.fstat(fd), len(data))
                    return data
            finally:
                os.close(fd)
        raise _Unusable(f"cannot read: it changed while it was read, {TRIES} times in a row")

    def _read_unchanged(self, fd: int) -> bytes | None:
        """Return the content of a file; None if it changed meanwhile."""
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise _Unusable("cannot read: not a regular file")
        chunks: list[bytes] = []
        size = 0
        while chunk := self._read_fd(fd, 1 << 18):
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_FILE:
                raise _Unusable(f"cannot use: larger than {MAX_FILE >> 20} MiB")
        after = os.fstat(fd)
        return b"".join(chunks) if _state(before) == _state(after) and size == after.st_size else None

    def _account(self, path: str, status: os.stat_result, size: int) -> None:
        known = self._seen.setdefault((status.st_dev, status.st_ino), path)
        if known is not path:
            raise _Unusable("given twice" if known == path else f"cannot use: the same file as {known}")
        self._total += size
        if self._total > MAX_ALL:
            raise _Unusable(f"cannot use: all definitions together are larger than {MAX_ALL >> 20} MiB")
        self._warn(path, status)

    def _warn(self, path: str, status: os.stat_result) -> None:
        """Report a file or folder that other users can write to, who could become root that way."""
        if not self._root:
            return
        if status.st_uid not in (0, os.geteuid()):
            self._problems.notice(path, 0, f"belongs to user {status.st_uid}, who becomes root through it")
        if status.st_mode & 0o022 and not (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX):
            who = "others" if status.st_mode & 0o002 else "its group"
            self._problems.notice(path, 0, f"can be written by {who}, who become root through it")


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _Unusable(f"cannot use: its byte \\x{data[error.start]:02x} is not UTF-8", line) from None
