"""`unix`: users and groups of this host, from its name service; also for `fsys`."""

from __future__ import annotations

import errno
import grp
import os
import pwd
from collections.abc import Callable, Mapping

from workers.lua.state import Value

MAX_ID = 2**32 - 2  # -1 means unchanged: chown(2)


class Unix:
    name = "unix"
    waiting: Mapping[str, Callable[..., Value]] = {}

    def __init__(self) -> None:
        self.functions: Mapping[str, Callable[..., Value]] = {"user": _user, "group": _group}

    def close(self) -> None:
        pass


def _user(text: bytes) -> Value:
    """Return the fields in the order in which the Lua part names them; nil if there is no such user."""
    found = user_of(text)
    if found is None:
        return None
    return found.pw_name, found.pw_uid, found.pw_gid, found.pw_gecos, found.pw_dir, found.pw_shell


def _group(text: bytes) -> Value:
    """Return name, number and members, each member followed by a NUL."""
    found = group_of(text)
    if found is None:
        return None
    return found.gr_name, found.gr_gid, "".join(f"{name}\0" for name in found.gr_mem)


# by name or number


def user_of(text: bytes) -> pwd.struct_passwd | None:
    """Return a user by name or, in digits, by number."""
    name = os.fsdecode(text)
    try:
        return pwd.getpwuid(int(name)) if is_number(name) else pwd.getpwnam(name)
    except (KeyError, OverflowError, ValueError):  # ValueError: NUL in the name
        return None


def group_of(text: bytes) -> grp.struct_group | None:
    """Return a group by name or, in digits, by number."""
    name = os.fsdecode(text)
    try:
        return grp.getgrgid(int(name)) if is_number(name) else grp.getgrnam(name)
    except (KeyError, OverflowError, ValueError):  # ValueError: NUL in the name
        return None


def uid_of(text: bytes) -> int:
    """Return the number of a user; a number stands for itself, even if there is no such user. Raises OSError."""
    found = None if is_number(os.fsdecode(text)) else user_of(text)
    return _number(text, "user") if found is None else found.pw_uid


def gid_of(text: bytes) -> int:
    """Return the number of a group, like `uid_of`."""
    found = None if is_number(os.fsdecode(text)) else group_of(text)
    return _number(text, "group") if found is None else found.gr_gid


def _number(text: bytes, kind: str) -> int:
    """Return the number that stands for itself; raise OSError for a name, which nobody has then."""
    digits = os.fsdecode(text)
    if not is_number(digits):
        raise OSError(errno.ENOENT, f"no such {kind}: {digits!r}")
    if len(digits) > len(str(MAX_ID)) or int(digits) > MAX_ID:
        raise OSError(errno.EINVAL, f"no such {kind}: {digits} is not from 0 to {MAX_ID}")
    return int(digits)


def is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()
