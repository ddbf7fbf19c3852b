"""The kernel's watches on folders and `cgroup.events` files, and whose they are.

inotify rather than EPOLLPRI: it needs no descriptor for each cgroup.  A watch keeps the inode of
what it is on, so the kernel sends the events of a file that nobody has open, and goes on
keeping it when the cgroup is deleted: each watch is ended by us, always.
"""

from __future__ import annotations

import errno
import os

from supervisor.linux.inotify import (
    IN_CLOEXEC,
    IN_CREATE,
    IN_DELETE,
    IN_MODIFY,
    IN_NONBLOCK,
    IN_ONLYDIR,
    inotify_add_watch,
    inotify_init1,
    inotify_rm_watch,
    parse_events,
)
from workers.reaper.errors import HostError
from workers.reaper.node import NOT_WATCHED, Kind, Node

CHUNK = 4096  # bytes read at once: 256 events at most
LONGEST = 16 + 256  # bytes of an event with the longest name: it would not have had room


class Watches:
    """Owns the inotify descriptor.  `root` is where the root cgroup is to be seen.  Raises HostError."""

    def __init__(self, root: str) -> None:
        self._root = root
        try:
            self._fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
        except OSError as error:
            raise HostError(f"cannot watch cgroups: {error.strerror}: see fs.inotify.max_user_instances") from error
        self._folders: dict[int, Node] = {}
        self._files: dict[int, Node] = {}

    def __len__(self) -> int:
        return len(self._folders) + len(self._files)

    def fileno(self) -> int:
        return self._fd

    def add(self, node: Node) -> bool:
        """Watch a node's folder and, of a member, its `cgroup.events`; False: the user has no more watches.

        Raises FileNotFoundError where it has gone, OSError for what nobody expects.
        """
        folder = self._root + node.path
        try:
            wd = inotify_add_watch(self._fd, folder, IN_CREATE | IN_DELETE | IN_ONLYDIR)
            self._folders[wd], node.folder_watch = node, wd
            if node.kind is Kind.MEMBER:
                wd = inotify_add_watch(self._fd, f"{folder}/cgroup.events", IN_MODIFY)
                self._files[wd], node.file_watch = node, wd
        except OSError as error:
            self.remove(node)
            if error.errno == errno.ENOSPC:
                return False
            raise
        return True

    def remove(self, node: Node) -> None:
        for wd, nodes in ((node.folder_watch, self._folders), (node.file_watch, self._files)):
            if wd != NOT_WATCHED:
                nodes.pop(wd, None)
                try:
                    inotify_rm_watch(self._fd, wd)
                except OSError:
                    pass
        node.folder_watch = node.file_watch = NOT_WATCHED

    def read(self) -> tuple[list[tuple[int, int, str]], bool]:
        """The next events, as of `parse_events`, none where there are none now, and whether there may be more."""
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return [], False
        return parse_events(data), len(data) > CHUNK - LONGEST

    def folder(self, wd: int) -> Node | None:
        """Whose folder it is that the watch is on."""
        return self._folders.get(wd)

    def file(self, wd: int) -> Node | None:
        """Whose `cgroup.events` it is that the watch is on."""
        return self._files.get(wd)

    def close(self) -> None:
        os.close(self._fd)
