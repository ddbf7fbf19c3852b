"""`_SUPERVISOR`: the settings of spawnd itself, from whichever file has them."""

from __future__ import annotations

from typing import Any

from supervisor.definitions.convert import account, text
from supervisor.definitions.near import hint
from supervisor.definitions.problems import Bad, place
from supervisor.definitions.scope import Scope
from supervisor.definitions.service import Settings


def _cgroup(value: object, scope: Scope) -> str:
    folder = text.absolute(value, scope)
    if ".." in folder.split("/"):
        raise Bad(f"{folder!r} leads out of the cgroup file system")
    return folder


KEYS = {
    "control_group": account.group_id,
    "log_level": text.choice("debug", "info", "notice", "warning", "err"),
    "cgroup": _cgroup,
}


class SettingsReader:
    """Collects `_SUPERVISOR` of all files."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[Any, str]] = {}

    def add(self, values: dict[str, Any], scope: Scope) -> None:
        """The settings of one file; the bad ones are reported."""
        for key, value in values.items():
            try:
                self._set(key, value, scope)
            except Bad as error:
                scope.bad(error, key)

    def _set(self, key: str, value: object, scope: Scope) -> None:
        if key not in KEYS:
            raise Bad("unknown setting" + hint(key, KEYS))
        converted = KEYS[key](value, scope)
        here = place(scope.file, scope.line_of((key,)))
        before, there = self._found.setdefault(key, (converted, here))
        if before != converted:
            raise Bad(f"has another value at {there}")

    def settings(self) -> Settings:
        places = {key: place for key, (_, place) in self._found.items()}
        return Settings(**{key: value for key, (value, _) in self._found.items()}, places=places)
