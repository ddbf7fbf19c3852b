"""One cgroup that is watched, or that is on the way to a scope."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workers.reaper.release import Release

NOT_WATCHED = -1


class Kind(Enum):
    """What a cgroup is to the reaper."""

    ANCESTOR = 1  # a scope is, or will be, below it; nothing else in there matters
    SCOPE = 2  # never deleted itself
    MEMBER = 3  # below a scope


class Node:
    """`path` is that of /proc/self/cgroup, '' for the root; `scope` the path of the scope above a member.

    `inode` is the kernel's id of the cgroup, which no other one gets in this boot.
    """

    __slots__ = (
        "children",
        "due",
        "file_watch",
        "folder_watch",
        "frozen",
        "grace_until",
        "inode",
        "kind",
        "lost",
        "name",
        "parent",
        "path",
        "release",
        "scope",
        "used",
    )

    def __init__(self, parent: Node | None, name: str, path: str, kind: Kind, inode: int) -> None:
        self.parent = parent
        self.name = name
        self.path = path
        self.kind = kind
        self.inode = inode
        self.scope: str = path if kind is Kind.SCOPE or parent is None else parent.scope
        self.children: dict[str, Node] = {}
        self.folder_watch = self.file_watch = NOT_WATCHED
        self.lost = False  # it is gone, and nothing is to be done with it any more
        self.frozen = False  # when it was looked at last
        self.used = False  # a process is known to have been in it
        self.release: Release | None = None  # while it is empty, about to be deleted
        self.grace_until: float | None = None  # time of the clock from which it counts as used, where it is empty
        self.due: float | None = None  # when it is looked at again: see Agenda

    @property
    def suffix(self) -> str:
        """The path below the scope."""
        return self.path[len(self.scope) + 1 :]

    def subtree(self) -> Iterator[Node]:
        """All below it and itself, children before their parents."""
        nodes = [self]
        for node in nodes:
            nodes += node.children.values()
        return reversed(nodes)
