"""Watched cgroups: scopes, those below them, and those that lead to a scope; and the ways to them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from workers.lua.released import LEFT_OUT
from workers.reaper.cgroup_calls import HERE, Opened

NOT_WATCHED = -1
MOST_FOLDERS = 32  # open folders on the ways to deep cgroups, without those of scopes
# characters of a relative path; even with 4 bytes per character and a file name, the kernel accepts it
LONGEST_WAY = 800
LONGEST_PATH = 4095  # bytes: the maximum in /proc/PID/cgroup
_PATH = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Kind(Enum):
    """Kinds of cgroups for the reaper."""

    ANCESTOR = 1  # above a present or future scope; the rest of its content is irrelevant
    SCOPE = 2  # never deleted
    MEMBER = 3  # below a scope


@dataclass(slots=True)
class Release:
    """An empty cgroup that is to be deleted at `ready`, a time of the loop's clock. Owns `opened`."""

    opened: Opened
    ready: float
    failed: bool = False


class WatchedCgroup:
    """A watched cgroup; `path` is that of /proc/self/cgroup, '' for the root; `scope` is the path of a member's scope.

    `inode` is the kernel's id of the cgroup, which is unique since boot. `way` leads to the cgroup from the
    folder of `base`. That is its scope, so that the way never leads into another cgroup with the name of the
    scope, or a member in between, if the way would otherwise be too long for the kernel. Owns `folder`.
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
        # number of names above its own that its path omits, or None if it omits nothing
        self.left_out: int | None = None
        if parent is not None and path != f"{parent.path}/{name}":
            self.left_out = 0 if parent.left_out is None else parent.left_out + 1
        self.scope: str = self.top.path
        self.suffix = path[len(self.scope) + 1 :]  # the path below the scope
        self.folder: int | None = None  # of a scope; None without a free descriptor
        self.children: dict[str, WatchedCgroup] = {}
        self.folder_watch = self.file_watch = NOT_WATCHED
        self.lost = False  # it is gone, and further work on it is pointless
        self.frozen = False  # state at the last look
        self.busy = 0  # number of consecutive refused deletions because of a process in it
        self.used = False  # a process is known to have been in it
        self.release: Release | None = None  # set while it is empty and to be deleted
        self.grace_until: float | None = None  # time of the clock from which on it counts as used if empty
        self.due: float | None = None  # time of the next look: see DueHeap

    def path_of(self, name: str) -> str:
        """Return the path of a child; below the longest path, it omits a part, which bounds the cost of a level."""
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
    """Yield groups of cgroups whose places are valid together: `Folders.place` opens folders for deep cgroups."""
    deep = [node for node in nodes if node.is_deep]
    yield [node for node in nodes if not node.is_deep] if deep else nodes
    for node in deep:
        yield [node]


class Scopes:
    """The paths of the scopes, such as `/a/b.scope`, whether they exist or not."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.paths = tuple(dict.fromkeys(paths))
        self._on_the_way: dict[str, set[str]] = {}
        for path in self.paths:
            names = path.split("/")[1:]
            for depth, name in enumerate(names):
                above = "".join(f"/{part}" for part in names[:depth])
                self._on_the_way.setdefault(above, set()).add(name)

    def kind(self, parent: WatchedCgroup, path: str) -> Kind | None:
        """Return the kind of the cgroup at `path` below `parent`, or None if it is irrelevant for the reaper."""
        if path in self.paths:
            return Kind.SCOPE
        if parent.kind is not Kind.ANCESTOR:
            return Kind.MEMBER
        return Kind.ANCESTOR if path in self._on_the_way else None

    def on_the_way(self, node: WatchedCgroup) -> Iterable[str]:
        """Return the names below an ancestor that lead to a scope."""
        return self._on_the_way[node.path]


class Folders:
    """Opens and closes the folders of cgroups, which own them. `root` is the mount point of the root cgroup.

    A path has fewer than PATH_MAX (4096) bytes, but a cgroup may be deeper. Therefore the way to a cgroup
    begins at the folder of its scope or, further down, at the folder of a cgroup in between. Only the folders
    last opened remain open.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._on_the_way: dict[WatchedCgroup, None] = {}  # in the order of opening

    def place(self, node: WatchedCgroup) -> tuple[str, int]:
        """Return a way to a cgroup, and the folder where it begins, or HERE for an absolute way.

        The folder for a deep cgroup is open until the next call. Raises OSError.
        """
        base = node.base
        if base.folder is not None:
            return node.way, base.folder
        if base.kind is not Kind.MEMBER:
            return self.root + node.path, HERE
        return node.way, self._reach(base)

    def open_scope(self, node: WatchedCgroup) -> None:
        """Open the folder of a scope. Raises OSError."""
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
        if os.fstat(folder).st_ino != node.inode:  # it was deleted and created anew
            os.close(folder)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), node.path)
        node.folder = folder
        self._on_the_way[node] = None
        if len(self._on_the_way) > MOST_FOLDERS:
            self.close(next(iter(self._on_the_way)))
        return folder
