"""The kernel's watches on folders and `cgroup.events` files, whose they are, and when their events are read.

inotify rather than EPOLLPRI: it needs no descriptor for each cgroup.  A watch keeps the inode of
what it is on, so the kernel sends events also of files that no process has open, and goes on
keeping it when the cgroup is deleted: so the reaper ends each watch itself.
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
from workers.reaper.errors import HostError
from workers.reaper.node import NOT_WATCHED, Folders, Kind, WatchedCgroup
from workers.reaper.statistics import TABLE

CHUNK = 4096  # bytes read at once: 256 events at most
LONGEST = 16 + 256  # bytes of an event with the longest name: it would not have had room
SOON = 0.02  # seconds from the first event until it is read, with those that came after it
PAUSE = 0.076  # seconds until the next look, unless the worker is awake before: longer than until the next deletion

Event = tuple[int, int, str]  # of `Watches.read`


class Watches:
    """Owns the inotify descriptor.  Raises HostError."""

    def __init__(self, folders: Folders) -> None:
        self._reached_by = folders
        try:
            self._fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
        except OSError as error:
            raise HostError(f"cannot watch cgroups: {error.strerror}: see fs.inotify.max_user_instances") from error
        self.folders: dict[int, WatchedCgroup] = {}  # whose folder a watch is on
        self.files: dict[int, WatchedCgroup] = {}  # whose `cgroup.events` it is on

    def __len__(self) -> int:
        return len(self.folders) + len(self.files)

    def fileno(self) -> int:
        return self._fd

    def add(self, node: WatchedCgroup) -> bool:
        """Watch a cgroup's folder and, of a member, its `cgroup.events`; False: the user has no more watches.

        Raises FileNotFoundError where it has gone, and other OSErrors.
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
        """inotify takes no folder to begin at; the absolute path is quicker than that by way of /proc."""
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
        """Delete cgroups with a release, which are at these places; return the results of `delete_cgroups`.

        The first file of each that is deleted is closed, and there are no watches on it.
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
        """The next events, as of `parse_events`, none where there are none now, and whether there may be more."""
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return [], False
        return parse_events(data), len(data) > CHUNK - LONGEST

    def close(self) -> None:
        os.close(self._fd)


class EventReader:
    """Reads the kernel's events whenever the worker is awake for other work, and from time to time.

    As long as events keep coming, none of them wakes the worker up.  `take` is given events; `work` is
    called after that, when it is time to see to them.  Neither raises.
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
        self._next: asyncio.Handle | None = None  # when events are read; None: the kernel wakes the worker up

    def start(self) -> None:
        self._loop.add_reader(self._watches.fileno(), self._wake_up)

    def close(self) -> None:
        self._loop.remove_reader(self._watches.fileno())
        if self._next is not None:
            self._next.cancel()

    def take_some(self) -> None:
        """Read the events that there are by now, as the worker is awake."""
        heard, more = self._read()
        if (heard or more) and self._next is not None:
            self._wait(more)

    def _read(self) -> tuple[bool, bool]:
        """Read events; return whether there were any, but for ends of watches, and whether there may be more."""
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
        self._wait()  # whatever becomes of this look, there is another one
        heard, more = self._read()
        if more:
            self._wait(more)
        elif not heard and self._next is not None:
            self.start()
            self._next.cancel()
            self._next = None
        self._work()
