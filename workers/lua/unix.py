"""`unix`: users and groups of this host, from whatever its name service asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from workers.lua.accounts import group_of, user_of
from workers.lua.state import Value


class Unix:
    name = "unix"
    waiting: Mapping[str, Callable[..., Value]] = {}

    def __init__(self) -> None:
        self.functions: Mapping[str, Callable[..., Value]] = {"user": _user, "group": _group}

    def close(self) -> None:
        pass


def _user(text: bytes) -> Value:
    """In the order in which the Lua part names them; nil where there is none."""
    found = user_of(text)
    if found is None:
        return None
    return found.pw_name, found.pw_uid, found.pw_gid, found.pw_gecos, found.pw_dir, found.pw_shell


def _group(text: bytes) -> Value:
    """Name, number and members, each with a NUL behind it."""
    found = group_of(text)
    if found is None:
        return None
    return found.gr_name, found.gr_gid, "".join(f"{name}\0" for name in found.gr_mem)
