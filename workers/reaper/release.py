"""From a cgroup that runs empty to its end.

It is read at once and, when `delay` is over, read again and deleted: whoever made it may want
its statistics, too.  Each has a time of its own, so a steady stream of empty cgroups puts off
nothing.  A parent is empty together with its last child and waits for that to be deleted.

Only what had a process is deleted: a cgroup that was just made is for its spawner to fill.
The kernel is the one who knows whether somebody moved in: rmdir(2) fails with EBUSY then.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from supervisor.linux.statx import birth_time
from supervisor.log.logger import info_line, log
from workers.reaper.counters import Counters
from workers.reaper.crowd import Crowd
from workers.reaper.line import released_line
from workers.reaper.node import Kind, Node
from workers.reaper.record import Journal, Record, read_xattrs
from workers.reaper.schedule import FAILED_PAUSE, Schedule
from workers.reaper.statistics import Reading, read, read_controllers, read_events, shows_use
from workers.reaper.tree import Tree

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
BUSY_PAUSE = 1.0  # seconds until a cgroup that the kernel calls busy is looked at again, should no event come


@dataclass(slots=True)
class Release:
    """An empty cgroup.  Owns `fd`, its folder; `ready` is the time of the loop's clock when it may be deleted."""

    fd: int
    reading: Reading
    ready: float
    failed: bool = False


class Releases:
    """Hears of cgroups from a tree, which is to be set, and deletes them.

    `report` is given the record of each and its folder's descriptor, which is its own from
    then on.  `room` says for how many more there are descriptors.
    """

    tree: Tree

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        root: str,
        delay: float,
        report: Callable[[Record, int], None],
        room: Callable[[], int],
        journal: Journal | None = None,
        xattrs: Sequence[str] = (),
    ) -> None:
        self.counters = Counters()
        self.waiting = 0  # releases under way
        self._loop = loop
        self._root = root
        self._delay = delay
        self._report = report
        self._room = room
        self._journal = journal
        self._xattrs = xattrs
        # what was deleted makes events, which would only wake us up
        self._schedule = Schedule(loop, self._due, lambda: self.tree.take_events())
        self.crowd = Crowd(loop, room, lambda node: self._schedule.add(node, loop.time()))
        self._tells_birth = True  # a kernel does, or does not
        self._asked: tuple[Node | None, int] = (None, 0)  # who was asked for controllers last, and in which turn
        self._answer: Collection[bytes] = ()

    def close(self) -> None:
        """Leave everything as it is."""
        self._schedule.close()
        self.crowd.close()

    # what the tree tells

    def changed(self, node: Node, by_event: bool = False) -> None:
        """Raises nothing: what cannot be read now is read later."""
        if node.kind is not Kind.MEMBER or node.lost:
            return
        try:
            self._look(node, by_event)
        except OSError as error:
            log.warning("cannot read cgroup %s: %s; trying again", node.path, error.strerror)
            self._schedule.add(node, self._loop.time() + FAILED_PAUSE)

    def _look(self, node: Node, by_event: bool) -> None:
        events = read_events(*node.place(self._root))
        if events is None:  # gone, of which there is an event
            return
        # the kernel tells of nothing but processes and of freezing
        if events.populated or (by_event and not events.frozen and not node.frozen):
            node.used = True
        node.frozen = events.frozen
        if events.populated:
            self._end(node)
        elif node.release is None:
            self._begin(node, by_event)

    def gone(self, node: Node) -> None:
        self._schedule.remove(node)
        self.crowd.remove(node)
        if node.release is None:
            self.counters.unseen += 1
        else:
            self.counters.deleted_by_others += 1
            record = self._record(node, node.release, node.release.reading)
            if self._journal is not None:
                self._journal.record(record)
            self._released(node, record)

    def child_gone(self, node: Node) -> None:
        if node.release is None:
            self.changed(node)
        elif not node.children:
            self._schedule.add(node, node.release.ready)

    # beginning

    def _begin(self, node: Node, by_event: bool) -> None:
        """Read an empty cgroup that had a process, and see to it when its time has come."""
        assert node.parent is not None
        now = self._loop.time()
        if self._room() <= 0:
            self.crowd.add(node)
            return
        fd = self._open(node)
        if fd is None:
            return
        try:
            reading = read(fd, self._controllers(node.parent, by_event)) if self._had_process(node, fd, now) else None
        except OSError:
            os.close(fd)
            raise
        if reading is None:
            os.close(fd)
            return
        node.used = True
        node.release = Release(fd, reading, now + self._delay)
        self.waiting += 1
        self._schedule.add(node, node.release.ready)

    def _controllers(self, parent: Node, by_event: bool) -> Collection[bytes]:
        """Those that the children of `parent` may have: asked once for all of which events have told before this turn.

        They were empty before it was asked, so one that is switched on later has counted nothing for them.
        """
        asked = parent, self.tree.turns
        if not by_event or self._asked != asked:
            self._answer = read_controllers(*parent.place(self._root))
            self._asked = asked
        return self._answer

    def _had_process(self, node: Node, fd: int, now: float) -> bool:
        """What had none is its spawner's to fill: for ever or, if it was there before us, until its grace is over."""
        if node.used or shows_use(fd):
            return True
        if node.grace_until is not None and node.grace_until > now:
            self._schedule.add(node, node.grace_until)
            return False
        return node.grace_until is not None

    def _open(self, node: Node) -> int | None:
        """The folder; None where it is gone, of which there is an event, or another one has its place."""
        try:
            path, above = node.place(self._root)
            fd = os.open(path, _FOLDER, dir_fd=above)
        except FileNotFoundError:
            return None
        if os.fstat(fd).st_ino == node.inode:
            return fd
        os.close(fd)
        self.tree.look_again(node)
        return None

    def _end(self, node: Node) -> None:
        """Somebody moved in: nothing is reported."""
        release, node.release = node.release, None
        self._schedule.remove(node)
        self.crowd.remove(node)
        if release is not None:
            os.close(release.fd)
            self.waiting -= 1
            self.counters.repopulated += 1

    # the end

    def _due(self, node: Node) -> None:
        if node.release is None:
            self.changed(node)
        elif not node.children:  # else the last of them brings it back
            self._delete(node, node.release)

    def _delete(self, node: Node, release: Release) -> None:
        reading = release.reading.again(release.fd)
        if reading is None:  # deleted: what has its name now, if anything, is not to be touched
            self._schedule.add(node, self._loop.time() + BUSY_PAUSE)
            self.tree.look_again(node)
            return
        record = self._record(node, release, reading)
        if self._journal is not None:
            self._journal.record(record)
        try:
            path, above = node.place(self._root)
            os.rmdir(path, dir_fd=above)
        except FileNotFoundError:
            self.counters.deleted_by_others += 1
        except OSError as error:
            if self._journal is not None:
                self._journal.take_back()
            self._refused(node, release, error)
            return
        self._released(node, record)
        self.tree.deleted(node)

    def _refused(self, node: Node, release: Release, error: OSError) -> None:
        if error.errno == errno.EBUSY:
            self._end(node)
            self._schedule.add(node, self._loop.time() + BUSY_PAUSE)
            self.tree.look_again(node)
            return
        self.counters.failed += 1
        if not release.failed:
            log.warning("cannot delete cgroup %s: %s; trying again", node.path, error.strerror)
        release.failed = True
        self._schedule.add(node, self._loop.time() + FAILED_PAUSE)

    def _record(self, node: Node, release: Release, reading: Reading) -> Record:
        btime = birth_time(release.fd) if self._tells_birth else None
        self._tells_birth = btime is not None
        xattrs = read_xattrs(release.fd, self._xattrs) if self._xattrs else {}
        above = node.parent
        parent = above.inode if above is not None and above.kind is Kind.MEMBER else None
        ended = time.time_ns() // 1000 / 1e6  # to the microsecond, as databases keep it
        return Record(node.path, node.scope, node.inode, parent, btime, ended, reading.statistics(), xattrs)

    def _released(self, node: Node, record: Record) -> None:
        release, node.release = node.release, None
        assert release is not None
        self.waiting -= 1
        self.counters.released += 1
        info_line(released_line(node.suffix, record.statistics, record.btime, record.age))
        self._report(record, release.fd)
