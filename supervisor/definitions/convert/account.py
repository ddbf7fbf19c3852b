"""Users and groups, each as name and id.

Without root no user is switched: the ids are those of the caller, and a name that this host does not know is
only noted.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from supervisor.definitions.checking import Checking
from supervisor.definitions.convert.plain import usable
from supervisor.definitions.convert.tables import one_or_more
from supervisor.definitions.problems import InvalidValue
from supervisor.definitions.values import describe, is_integer

UNKNOWN = -1

Account = tuple[str, int]


def user(value: object, checking: Checking) -> Account:
    name = _name(value)
    uid = _find(checking, "user", name, checking.databases.accounts.user)
    return name, uid if checking.databases.root else os.geteuid()


def group(value: object, checking: Checking) -> Account:
    name = group_name(value, checking)
    gid = _find(checking, "group", name, checking.databases.accounts.group)
    return name, gid if checking.databases.root else os.getegid()


def groups(value: object, checking: Checking) -> tuple[Account, ...]:
    return tuple(dict.fromkeys(one_or_more(value, checking, group, "groups")))


def owner_id(value: object, checking: Checking) -> int | None:
    """Return the user who gets a file or socket; None leaves it unchanged."""
    uid = _find(checking, "owner", _name(value), checking.databases.accounts.user)
    return None if uid == UNKNOWN else uid


def group_id(value: object, checking: Checking) -> int | None:
    """Return the group that gets a file, a socket or the control socket; None leaves it unchanged."""
    gid = _find(checking, "group", group_name(value, checking), checking.databases.accounts.group)
    return None if gid == UNKNOWN else gid


def group_name(value: object, checking: Checking) -> str:
    """Return the name on this host: `nobody` is `nogroup` on Debian."""
    name = _name(value)
    return checking.databases.accounts.nobody()[2] if name == "nobody" else name


def _name(value: object) -> str:
    if is_integer(value):
        return str(value)
    if not isinstance(value, str) or not value:
        raise InvalidValue(f"has to be a name or a number, not {describe(value)}")
    return usable(value)


def _find(checking: Checking, key: str, name: str, look_up: Callable[[str], int]) -> int:
    try:
        return look_up(name)
    except InvalidValue as error:
        if checking.databases.root:
            raise
        checking.notice(f"{error.message}; not switched to without root", key)
        return UNKNOWN
