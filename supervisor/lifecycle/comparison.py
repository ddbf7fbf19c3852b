"""Two sets of definitions side by side, and the services as they stand."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from supervisor.definitions.service import Service
from supervisor.lifecycle.change import Change, changed_keys, greatest
from supervisor.lifecycle.dependencies import conflicts
from supervisor.lifecycle.life import Life


class Comparison:
    """`keys` are those that differ of each service that stays, `kinds` what they ask for together.

    `lives` has one for every service of both; `leaving` are those that are in neither, or only in
    the new ones, and not gone yet.  `conflicts` are those of both, the new definition first.
    """

    def __init__(
        self,
        old: Mapping[str, Service],
        new: Mapping[str, Service],
        lives: Mapping[str, Life],
        stopping: Collection[str],
    ) -> None:
        self.old = old
        self.new = new
        self.stopping = stopping
        self.lives = {name: lives.get(name, Life()) for name in (*new, *old)}
        self.leaving = {name for name in lives if name not in old}
        self.conflicts = conflicts({**old, **new})
        self.keys = {name: tuple(changed_keys(old[name], new[name])) for name in new if name in old}
        self.kinds: dict[str, Change] = {name: greatest(keys) for name, keys in self.keys.items()}
