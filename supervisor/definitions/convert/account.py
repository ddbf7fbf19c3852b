"""Users and groups: each as its name and its id.

Without root nothing is switched: the ids are then those of the caller, and a name that this
host does not know is only noted.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from supervisor.definitions.convert.sequence import each, items
from supervisor.definitions.convert.text import usable
from supervisor.definitions.problems import Bad
from supervisor.definitions.scope import Scope
from supervisor.definitions.values import describe, is_integer

UNKNOWN = -1

Account = tuple[str, int]


def user(value: object, scope: Scope) -> Account:
    name = _name(value)
    uid = _find(scope, "user", name, scope.host.accounts.user)
    return name, uid if scope.host.root else os.geteuid()


def group(value: object, scope: Scope) -> Account:
    name = group_name(value, scope)
    gid = _find(scope, "group", name, scope.host.accounts.group)
    return name, gid if scope.host.root else os.getegid()


def groups(value: object, scope: Scope) -> tuple[Account, ...]:
    listed = [value] if isinstance(value, str) else items(value, "groups")
    accounts = each(listed, scope, group, "groups")
    return tuple(dict.fromkeys(accounts))


def owner_id(value: object, scope: Scope) -> int | None:
    """The user that a file or socket is given to; None leaves it."""
    uid = _find(scope, "owner", _name(value), scope.host.accounts.user)
    return None if uid == UNKNOWN else uid


def group_id(value: object, scope: Scope) -> int | None:
    """The group that a file, a socket or the control socket is given to; None leaves it."""
    gid = _find(scope, "group", group_name(value, scope), scope.host.accounts.group)
    return None if gid == UNKNOWN else gid


def group_name(value: object, scope: Scope) -> str:
    """The name as this host has it: `nobody` is `nogroup` on Debian."""
    name = _name(value)
    return scope.host.accounts.nobody()[2] if name == "nobody" else name


def _name(value: object) -> str:
    if is_integer(value):
        return str(value)
    if not isinstance(value, str) or not value:
        raise Bad(f"has to be a name or a number, not {describe(value)}")
    return usable(value)


def _find(scope: Scope, key: str, name: str, look_up: Callable[[str], int]) -> int:
    try:
        return look_up(name)
    except Bad as error:
        if scope.host.root:
            raise
        scope.notice(f"{error.message}; not switched to without root", key)
        return UNKNOWN
