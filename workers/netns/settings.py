"""Settings of the kernel that a network namespace has for itself: `/proc/sys/net` of whoever opens it."""

from __future__ import annotations

import os

from workers.netns.errors import SetUpError

FOLDER = "/proc/sys"


def check(path: str, inside: str) -> None:
    """Raises SetUpError for a setting that this kernel does not have.

    One of the interface `inside` is looked up as that of `default`, as there is no such interface here.
    """
    parts = ["default" if part == inside else part for part in path.split("/")]
    if not os.path.isfile("/".join((FOLDER, *parts))):
        raise SetUpError(f"cannot set {path}: the kernel has no such setting; is its module loaded?")


def apply(path: str, value: str) -> bool:
    """Make it so, in the namespace that the calling thread is in; whether it was otherwise.  Raises SetUpError."""
    try:
        with open(f"{FOLDER}/{path}", "r+", encoding="ascii") as file:
            if file.read().split() == value.split():
                return False
            file.seek(0)
            file.write(value)
    except OSError as error:
        raise SetUpError(f"cannot set {path} to {value!r}: {error.strerror}") from error
    return True
