"""Users and groups of this host, by name or number.  Look-ups go through NSS: in the child alone."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable

from supervisor.definitions.near import hint
from supervisor.definitions.problems import Bad
from supervisor.definitions.values import describe, is_digits

OVERFLOW_ID = 65534  # what a user and group nobody are where no database knows them
MAX_ID = 2**32 - 2  # -1 means "leave it" to chown(2) and setuid(2)


class Accounts:
    """Remembers what it looked up."""

    def __init__(self) -> None:
        self._users: dict[str, int | None] = {}
        self._groups: dict[str, int | None] = {}
        self._nobody: tuple[str, int, str, int] | None = None

    def user(self, name: str) -> int:
        """The id of a user.  Raises Bad."""
        if name not in self._users:
            self._users[name] = _number(name) if is_digits(name) else _user(name)
        found = self._users[name]
        if found is None:
            raise Bad(f"unknown user {describe(name)}" + hint(name, _names("/etc/passwd")))
        return found

    def group(self, name: str) -> int:
        """The id of a group.  Raises Bad."""
        if name not in self._groups:
            self._groups[name] = _number(name) if is_digits(name) else _group(name)
        found = self._groups[name]
        if found is None:
            raise Bad(f"unknown group {describe(name)}" + hint(name, _names("/etc/group")))
        return found

    def nobody(self) -> tuple[str, int, str, int]:
        """User and group that services have by default, with their ids."""
        if self._nobody is None:
            self._nobody = *_first(_user, "nobody"), *_first(_group, "nobody", "nogroup")
        return self._nobody


def _first(find: Callable[[str], int | None], *names: str) -> tuple[str, int]:
    for name in names:
        found = find(name)
        if found is not None:
            return name, found
    return names[0], OVERFLOW_ID


def _number(name: str) -> int | None:
    return int(name) if len(name) <= 10 and int(name) <= MAX_ID else None


def _user(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        return None


def _group(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        return None


def _names(file: str) -> list[str]:
    """The local names alone: a directory service may know a hundred thousand."""
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            return [line.partition(":")[0] for line in lines]
    except OSError:
        return []
