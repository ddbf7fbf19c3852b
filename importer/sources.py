"""Sources of an import: files that are read once and within limits."""

from __future__ import annotations

import os
import stat

from importer.result import SourceError

LARGEST = 1 << 20  # bytes of a source


def read_source(path: str) -> str:
    """Return the text of a file. Raises SourceError if it is missing, no regular file, too large or not UTF-8."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)  # a FIFO may have no writer
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise SourceError(path, 1, "cannot read: not a regular file")
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise SourceError(path, 1, f"cannot read: {error.strerror}") from None
    if len(data) > LARGEST:
        raise SourceError(path, 1, f"cannot read: larger than {LARGEST >> 20} MiB")
    if b"\0" in data:
        raise SourceError(path, data.count(b"\n", 0, data.index(b"\0")) + 1, "cannot read: it has a NUL byte")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SourceError(path, line, f"cannot read: its byte \\x{data[error.start]:02x} is not UTF-8") from None


def listed(folder: str, *suffixes: str) -> list[str]:
    """Return the files of a folder whose names end in one of `suffixes`, by name. Raises SourceError."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise SourceError(folder, 1, f"cannot read: {error.strerror}") from None
    return [os.path.join(folder, name) for name in names if name.endswith(suffixes) and not name.startswith(".")]
