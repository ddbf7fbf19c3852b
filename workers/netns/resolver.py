"""`/etc/netns/NAME/resolv.conf`, which ip-netns(8) and spawnd bind over `/etc/resolv.conf` for those inside."""

from __future__ import annotations

import os
from contextlib import suppress

from workers.netns.errors import ForeignError
from workers.netns.plan import written_by

FOLDER = "/etc/netns"
MODE = 0o644


def path_of(name: str) -> str:
    return f"{FOLDER}/{name}/resolv.conf"


def read_own(name: str) -> str | None:
    """What is in the file if this worker has written it; None where there is none.  Raises OSError, ForeignError."""
    path = path_of(name)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except FileNotFoundError:
        return None
    if not text.startswith(written_by(name)):
        raise ForeignError(f"cannot write {path}: it is there already, and not written by spawnd")
    return text


def write(name: str, text: str) -> None:
    """Put the file in place, whole; one that is there stays the same file, as those inside have it mounted.

    Raises OSError.
    """
    path = path_of(name)
    data = text.encode()
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        _create(path, data)
        return
    try:
        # at once: who reads it in between finds empty lines behind what is new, and nothing of what was there
        os.pwrite(fd, data.ljust(os.fstat(fd).st_size, b"\n"), 0)
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)


def _create(path: str, data: bytes) -> None:
    folder, new = os.path.dirname(path), f"{path}.new"
    os.makedirs(folder, 0o755, exist_ok=True)
    try:
        with open(new, "wb") as file:
            os.fchmod(file.fileno(), MODE)
            file.write(data)
        os.replace(new, path)
    except OSError:
        with suppress(OSError):
            os.unlink(new)
        with suppress(OSError):
            os.rmdir(folder)
        raise


def remove(name: str) -> None:
    """Remove the file if it is our own, and the folder if nothing else is in it.  Raises OSError."""
    path = path_of(name)
    with suppress(ForeignError):
        if read_own(name) is not None:
            os.unlink(path)
            with suppress(OSError):
                os.rmdir(os.path.dirname(path))
