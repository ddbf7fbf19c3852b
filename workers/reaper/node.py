"""One cgroup that is watched, or that is on the way to a scope."""

from __future__ import annotations

import os
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

    `inode` is the kernel's id of the cgroup, which no other one gets in this boot.  A scope owns
    `folder`, which is where the way to its members begins: a short one, and never one into another
    cgroup that has the scope's name by now.
    """

    __slots__ = (
        "children",
        "due",
        "file_watch",
        "folder",
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
        "suffix",
        "top",
        "used",
    )

    def __init__(self, parent: Node | None, name: str, path: str, kind: Kind, inode: int) -> None:
        self.parent = parent
        self.name = name
        self.path = path
        self.kind = kind
        self.inode = inode
        self.top: Node = self if kind is Kind.SCOPE or parent is None else parent.top  # the scope of a member
        self.scope: str = self.top.path
        self.suffix = path[len(self.scope) + 1 :]  # the path below the scope
        self.folder: int | None = None  # None: there was no descriptor for it
        self.children: dict[str, Node] = {}
        self.folder_watch = self.file_watch = NOT_WATCHED
        self.lost = False  # it is gone, and nothing is to be done with it any more
        self.frozen = False  # when it was looked at last
        self.used = False  # a process is known to have been in it
        self.release: Release | None = None  # while it is empty, about to be deleted
        self.grace_until: float | None = None  # time of the clock from which it counts as used, where it is empty
        self.due: float | None = None  # when it is looked at again: see Agenda

    def place(self, root: str) -> tuple[str, int | None]:
        """A path to it, and the folder where that begins if it is a relative one; `root` is the root cgroup's."""
        folder = self.top.folder
        return (root + self.path, None) if folder is None else (self.suffix or ".", folder)

    def close(self) -> None:
        if self.folder is not None:
            os.close(self.folder)
            self.folder = None

    def subtree(self) -> Iterator[Node]:
        """All below it and itself, children before their parents."""
        nodes = [self]
        for node in nodes:
            nodes += node.children.values()
        return reversed(nodes)
