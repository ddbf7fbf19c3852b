"""inotify watches on folders and `cgroup.events` files, their cgroups, and the times when events are read.

Unlike EPOLLPRI, inotify needs no descriptor for each cgroup. A watch holds the inode, so the kernel sends
events even for files that no process has open. The kernel does not drop the watch when the cgroup is deleted,
so the reaper ends each watch itself.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress

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
from workers.reaper.cgroup_calls import delete_cgroups
from workers.reaper.node import NOT_WATCHED, Folders, Kind, WatchedCgroup
from workers.reaper.options import HostError
from workers.reaper.statistics import TABLE

CHUNK = 4096  # bytes per read: at most 256 events
LONGEST = 16 + 256  # bytes of an event with the longest name; less room may mean that more events wait
SOON = 0.02  # seconds from the first event until it is read together with later ones
PAUSE = 0.076  # seconds until the next read, unless the worker wakes up earlier; longer than until the next deletion

Event = tuple[int, int, str]  # returned by `Watches.read`


class Watches:
    """The watches of all cgroups. Owns the inotify descriptor. Raises HostError."""

    def __init__(self, folders: Folders) -> None:
        self._reached_by = folders
        try:
            self._fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
        except OSError as error:
            raise HostError(f"cannot watch cgroups: {error.strerror}: see fs.inotify.max_user_instances") from error
        self.folders: dict[int, WatchedCgroup] = {}  # cgroups by the watch on their folder
        self.files: dict[int, WatchedCgroup] = {}  # cgroups by the watch on their `cgroup.events`

    def __len__(self) -> int:
        return len(self.folders) + len(self.files)

    def fileno(self) -> int:
        return self._fd

    def add(self, node: WatchedCgroup) -> bool:
        """Watch a cgroup's folder and, for a member, its `cgroup.events`; return False if the user has no more watches.

        Raises FileNotFoundError if the cgroup is gone, and other OSErrors.
        """
        folder = self._path(node)
        try:
            wd = inotify_add_watch(self._fd, folder, IN_CREATE | IN_DELETE | IN_ONLYDIR)
            self.folders[wd], node.folder_watch = node, wd
            if node.kind is Kind.MEMBER:
                wd = inotify_add_watch(self._fd, f"{folder}/cgroup.events", IN_MODIFY)
                self.files[wd], node.file_watch = node, wd
        except OSError as error:
            self.remove(node)
            if error.errno == errno.ENOSPC:
                return False
            raise
        return True

    def _path(self, node: WatchedCgroup) -> str:
        """Return a path for inotify, which lacks relative paths; an absolute path is faster than one through /proc."""
        if node.base.kind is not Kind.MEMBER:
            return self._reached_by.root + node.path
        way, folder = self._reached_by.place(node)
        return f"/proc/self/fd/{folder}/{way}"

    def remove(self, node: WatchedCgroup) -> None:
        for wd in self._forget(node):
            if wd != NOT_WATCHED:
                with suppress(OSError):
                    inotify_rm_watch(self._fd, wd)

    def delete(self, nodes: Sequence[WatchedCgroup], places: Sequence[tuple[str, int]]) -> Sequence[int]:
        """Delete cgroups with a release at the given places; return the results of `delete_cgroups`.

        The first file of each deleted cgroup is closed, and its watches are ended.
        """
        doomed: list[int] = []
        for node, (_, above) in zip(nodes, places, strict=True):
            assert node.release is not None
            opened = node.release.opened
            doomed += above, opened.first, opened.numbers[0], node.folder_watch, node.file_watch
        results = delete_cgroups(self._fd, [way for way, _ in places], doomed, TABLE)
        for node, result in zip(nodes, results, strict=True):
            if not result:
                self._forget(node)
        return results

    def _forget(self, node: WatchedCgroup) -> tuple[int, int]:
        """Forget the watches of a cgroup, and return them."""
        wds = node.folder_watch, node.file_watch
        self.folders.pop(wds[0], None)
        self.files.pop(wds[1], None)
        node.folder_watch = node.file_watch = NOT_WATCHED
        return wds

    def read(self) -> tuple[list[tuple[int, int, str]], bool]:
        """Return the next events like `parse_events`, possibly none, and whether there may be more."""
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return [], False
        return parse_events(data), len(data) > CHUNK - LONGEST

    def close(self) -> None:
        os.close(self._fd)


class EventReader:
    """Reads the kernel's events whenever the worker is awake for other work, and from time to time.

    A steady stream of events therefore causes no wake-ups. `take` gets events; `work` is called afterwards,
    once it is time to handle them. Neither raises.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        watches: Watches,
        take: Callable[[Sequence[Event]], None],
        work: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._watches = watches
        self._take = take
        self._work = work
        self._next: asyncio.Handle | None = None  # the next read; None: an event wakes the worker up

    def start(self) -> None:
        self._loop.add_reader(self._watches.fileno(), self._wake_up)

    def close(self) -> None:
        self._loop.remove_reader(self._watches.fileno())
        if self._next is not None:
            self._next.cancel()

    def take_some(self) -> None:
        """Read the present events, as the worker is awake anyway."""
        heard, more = self._read()
        if (heard or more) and self._next is not None:
            self._wait(more)

    def _read(self) -> tuple[bool, bool]:
        """Read events; return whether there were any, except for ends of watches, and whether there may be more."""
        events, more = self._watches.read()
        self._take(events)
        return bool(events), more

    def _wake_up(self) -> None:
        self._loop.remove_reader(self._watches.fileno())
        self._next = self._loop.call_later(SOON, self._look)

    def _wait(self, more: bool = False) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next = self._loop.call_soon(self._look) if more else self._loop.call_later(PAUSE, self._look)

    def _look(self) -> None:
        self._wait()  # schedules the next look, even if this one fails
        heard, more = self._read()
        if more:
            self._wait(more)
        elif not heard and self._next is not None:
            self.start()
            self._next.cancel()
            self._next = None
        self._work()
