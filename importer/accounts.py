"""Users and groups of sources: a definition names both, while elsewhere the group comes with the user."""

from __future__ import annotations

import grp
import pwd

from importer.ledger import Directive, Ledger
from importer.result import Definition

ANYBODY = "nobody"  # user and group of a definition without these keys


def set_user(ledger: Ledger, definition: Definition, directive: Directive, user: str, group: str = "") -> None:
    """Set `user` and `group`; without a group it is the user's own one.

    A user whom this host does not know is taken to have a group of the same name, and a comment says so.
    """
    if not group and user != ANYBODY:
        own = _own_group(user)
        if own is None:
            ledger.approximate(
                directive, f"{user!r} is unknown on this host: its group may have another name", definition
            )
        group = own or user
    definition.set("user", user)
    if group:
        definition.set("group", group)


def _own_group(user: str) -> str | None:
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        return None
    try:
        return grp.getgrgid(entry.pw_gid).gr_name
    except KeyError:
        return str(entry.pw_gid)
