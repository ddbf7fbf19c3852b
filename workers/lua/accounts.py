"""Users and groups by name or number, for the libraries that take them."""

from __future__ import annotations

import grp
import os
import pwd

from workers.lua.errors import Failure


def user_of(text: bytes) -> pwd.struct_passwd | None:
    """A user by name or, in digits, by number."""
    name = os.fsdecode(text)
    try:
        return pwd.getpwuid(int(name)) if is_number(name) else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        return None


def group_of(text: bytes) -> grp.struct_group | None:
    """A group by name or, in digits, by number."""
    name = os.fsdecode(text)
    try:
        return grp.getgrgid(int(name)) if is_number(name) else grp.getgrnam(name)
    except (KeyError, OverflowError):
        return None


def uid_of(text: bytes) -> int:
    """A number stands for itself, whether somebody has it or not.  Raises Failure."""
    name = os.fsdecode(text)
    if is_number(name):
        return int(name)
    found = user_of(text)
    if found is None:
        raise Failure(f"no such user: {name!r}")
    return found.pw_uid


def gid_of(text: bytes) -> int:
    """As `uid_of`."""
    name = os.fsdecode(text)
    if is_number(name):
        return int(name)
    found = group_of(text)
    if found is None:
        raise Failure(f"no such group: {name!r}")
    return found.gr_gid


def is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()
