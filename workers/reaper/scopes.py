"""Which cgroups the reaper sees to: those below its scopes."""

from __future__ import annotations

from collections.abc import Iterable

from workers.reaper.node import Kind, Node


class Scopes:
    """The scopes by their paths, `/a/b.scope`, whether they exist or not."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.paths = tuple(dict.fromkeys(paths))
        self._on_the_way: dict[str, set[str]] = {}
        for path in self.paths:
            names = path.split("/")[1:]
            for depth, name in enumerate(names):
                above = "".join(f"/{part}" for part in names[:depth])
                self._on_the_way.setdefault(above, set()).add(name)

    def kind(self, parent: Node, path: str) -> Kind | None:
        """What the cgroup at `path` below `parent` is; None: nothing of ours."""
        if path in self.paths:
            return Kind.SCOPE
        if parent.kind is not Kind.ANCESTOR:
            return Kind.MEMBER
        return Kind.ANCESTOR if path in self._on_the_way else None

    def on_the_way(self, node: Node) -> Iterable[str]:
        """Names below an ancestor that lead to a scope."""
        return self._on_the_way[node.path]
