"""Cgroups that are watched: those below the scopes, the scopes, and those on the way to a scope; the ways to them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from workers.lua.released import LEFT_OUT
from workers.reaper.cgroup_calls import HERE, Opened

NOT_WATCHED = -1
MOST_FOLDERS = 32  # open folders on the way to deep cgroups; those of scopes are not counted
LONGEST_WAY = 800  # characters of a path from a folder: with 4 bytes for each, and a file, the kernel still takes it
LONGEST_PATH = 4095  # bytes: what /proc/PID/cgroup shows at most
_PATH = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Kind(Enum):
    """Kinds of cgroups, for the reaper."""

    ANCESTOR = 1  # a scope is, or will be, below it; nothing else in there matters
    SCOPE = 2  # never deleted itself
    MEMBER = 3  # below a scope


@dataclass(slots=True)
class Release:
    """An empty cgroup that is about to be deleted: at `ready`, a time of the loop's clock.  Owns `opened`."""

    opened: Opened
    ready: float
    failed: bool = False


class WatchedCgroup:
    """`path` is that of /proc/self/cgroup, '' for the root; `scope` the path of the scope above a member.

    `inode` is the kernel's id of the cgroup, which no other one gets in this boot.  `way` leads to it from the
    folder of `base`: its scope, so that it never leads into another cgroup that has the scope's name by now, or a
    member on the way, where it would be too long for the kernel otherwise.  It owns its `folder`.
    """

    __slots__ = (
        "base",
        "busy",
        "children",
        "due",
        "file_watch",
        "folder",
        "folder_watch",
        "frozen",
        "grace_until",
        "inode",
        "is_deep",
        "kind",
        "left_out",
        "lost",
        "name",
        "parent",
        "path",
        "release",
        "scope",
        "suffix",
        "top",
        "used",
        "way",
    )

    def __init__(self, parent: WatchedCgroup | None, name: str, path: str, kind: Kind, inode: int) -> None:
        self.parent = parent
        self.name = name
        self.path = path
        self.kind = kind
        self.inode = inode
        self.base: WatchedCgroup = self
        self.top: WatchedCgroup = self  # the scope of a member
        self.way = "."
        if parent is not None and kind is not Kind.SCOPE:
            self.top = parent.top
            self.base, self.way = parent.base, name if parent.way == "." else f"{parent.way}/{name}"
            if len(self.way) > LONGEST_WAY:
                self.base, self.way = parent, name
        self.is_deep = self.base.kind is Kind.MEMBER  # the way is too long from the scope
        # how many names above its own its path leaves out; None: it leaves out nothing
        self.left_out: int | None = None
        if parent is not None and path != f"{parent.path}/{name}":
            self.left_out = 0 if parent.left_out is None else parent.left_out + 1
        self.scope: str = self.top.path
        self.suffix = path[len(self.scope) + 1 :]  # the path below the scope
        self.folder: int | None = None  # of a scope, None: there was no descriptor for it
        self.children: dict[str, WatchedCgroup] = {}
        self.folder_watch = self.file_watch = NOT_WATCHED
        self.lost = False  # it is gone, and nothing is to be done with it any more
        self.frozen = False  # when it was looked at last
        self.busy = 0  # how often in a row the kernel refused to delete it because a process was in it
        self.used = False  # a process is known to have been in it
        self.release: Release | None = None  # while it is empty, about to be deleted
        self.grace_until: float | None = None  # time of the clock from which it counts as used, where it is empty
        self.due: float | None = None  # when it is looked at again: see DueHeap

    def path_of(self, name: str) -> str:
        """The path of a child; a node below the longest path has a part left out, lest each level costs all above."""
        path = f"{self.path}/{name}"
        if len(path) <= LONGEST_PATH // 4 or len(os.fsencode(path)) <= LONGEST_PATH:
            return path
        start = self.path if self.left_out is None else self.path.rpartition(f"{LEFT_OUT}/")[0]
        return f"{start}{LEFT_OUT}/{name}"

    def close(self) -> None:
        if self.folder is not None:
            os.close(self.folder)
            self.folder = None

    def subtree(self) -> Iterator[WatchedCgroup]:
        """Return the cgroup and all below it, children before their parents."""
        nodes = [self]
        for node in nodes:
            nodes += node.children.values()
        return reversed(nodes)


def groups(nodes: Sequence[WatchedCgroup]) -> Iterator[Sequence[WatchedCgroup]]:
    """Return cgroups in groups whose places are good at the same time: `Folders.place` opens folders for deep ones."""
    deep = [node for node in nodes if node.is_deep]
    yield [node for node in nodes if not node.is_deep] if deep else nodes
    for node in deep:
        yield [node]


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

    def kind(self, parent: WatchedCgroup, path: str) -> Kind | None:
        """Return the kind of the cgroup at `path` below `parent`; None: the reaper has nothing to do with it."""
        if path in self.paths:
            return Kind.SCOPE
        if parent.kind is not Kind.ANCESTOR:
            return Kind.MEMBER
        return Kind.ANCESTOR if path in self._on_the_way else None

    def on_the_way(self, node: WatchedCgroup) -> Iterable[str]:
        """Return the names below an ancestor that lead to a scope."""
        return self._on_the_way[node.path]


class Folders:
    """Opens and closes the folders of cgroups, which own them.  `root` is where the root cgroup is to be seen.

    A path has fewer than PATH_MAX (4096) bytes, and a cgroup may be deeper than that.  So the way to a cgroup begins at
    the folder of its scope or, further down, at that of a cgroup on the way.  Only the folders that were used last stay
    open.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._on_the_way: dict[WatchedCgroup, None] = {}  # in the order in which they were opened

    def place(self, node: WatchedCgroup) -> tuple[str, int]:
        """Return a path to a cgroup, and the folder where it begins, HERE where it is absolute.

        The folder of a deep cgroup is open until the next call.  Raises OSError.
        """
        base = node.base
        if base.folder is not None:
            return node.way, base.folder
        if base.kind is not Kind.MEMBER:
            return self.root + node.path, HERE
        return node.way, self._reach(base)

    def open_scope(self, node: WatchedCgroup) -> None:
        """Raises OSError."""
        node.folder = os.open(self.root + node.path, _PATH)

    def close(self, node: WatchedCgroup) -> None:
        self._on_the_way.pop(node, None)
        node.close()

    def _reach(self, node: WatchedCgroup) -> int:
        nodes = [node]
        while (above := nodes[-1].base).kind is Kind.MEMBER and above.folder is None:
            nodes.append(above)
        folder = -1
        for each in reversed(nodes):
            folder = self._open(each)
        return folder

    def _open(self, node: WatchedCgroup) -> int:
        path, above = self.place(node)
        folder = os.open(path, _PATH, dir_fd=above)
        if os.fstat(folder).st_ino != node.inode:  # it was deleted, and made anew
            os.close(folder)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), node.path)
        node.folder = folder
        self._on_the_way[node] = None
        if len(self._on_the_way) > MOST_FOLDERS:
            self.close(next(iter(self._on_the_way)))
        return folder
