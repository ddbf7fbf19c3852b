"""Users and groups of sources: a definition names both, while elsewhere the group comes with the user."""

from __future__ import annotations

import grp
import os
import pwd

from importer.ledger import Directive, Ledger
from importer.result import Definition

ANYBODY = "nobody"  # user and group of a definition without these keys


def set_user(
    ledger: Ledger, definition: Definition, directive: Directive, user: str, group: str = "", others: bool = True
) -> None:
    """Set `user`, `group`, which is the user's own one if it is '', and with `others` the groups of the user.

    A user whom this host does not know is taken to have a group of the same name, and a comment says so.
    """
    if not group and user != ANYBODY:
        own = own_group(user)
        if own is None:
            text = f"{user!r} is unknown on this host: its group may have another name"
            ledger.approximate(directive, text, definition)
        group = own or user
    definition.set("user", user)
    if group:
        definition.set("group", group)
    if others and user not in (ANYBODY, "root") and (groups := other_groups(user, group)):
        definition.set("groups", groups)


def own_group(user: str) -> str | None:
    """Return the group of a user, by name or number; None where this host does not know the user."""
    account = _account(user)
    return None if account is None else _group_name(account.pw_gid)


def other_groups(user: str, group: str) -> list[str]:
    """Return the supplementary groups of a user of this host, without `group`."""
    account = _account(user)
    if account is None:
        return []
    gids = os.getgrouplist(account.pw_name, account.pw_gid)
    return sorted({_group_name(gid) for gid in gids} - {group})


def _account(user: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        return None


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
