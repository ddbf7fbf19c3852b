"""Deletion of cgroups that run empty.

An empty cgroup is read at once and, when `delay` is over, read again and deleted: its spawner may want the
statistics, too.  Each cgroup has a time of its own, so a steady stream of empty ones puts off nothing.  A parent is
empty together with its last child and waits for that to be deleted.

Only a cgroup that had a process is deleted: a new one is for its spawner to fill.  The kernel knows whether a process
moved in: rmdir(2) fails with EBUSY then.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from supervisor.log.logger import info_lines
from workers.reaper.cgroup_calls import (
    ANOTHER,
    FROZEN,
    OPEN,
    OPENED,
    POPULATED,
    WITH_FOLDER,
    Opened,
    look,
    read_again,
    table,
)
from workers.reaper.node import Folders, Kind, Release, WatchedCgroup
from workers.reaper.schedule import FAILED_PAUSE, Complaints, DescriptorQueue, Schedule
from workers.reaper.statistics import (
    COUNTERS,
    Journal,
    Record,
    counters_of,
    log_line,
    read_controllers,
    read_xattrs,
    shows_use,
    statistics,
)
from workers.reaper.tree import Tree

TABLE = table((counter.file, counter.key) for counter in COUNTERS)
BUSY_PAUSE = 1.0  # seconds until a cgroup that the kernel calls busy is looked at again, should no event come
MOST_BUSY = 6  # times that this pause is doubled: what is in a cgroup may be a child that cannot be watched


@dataclass(slots=True)
class Counters:
    """Numbers of cgroups since the reaper was started."""

    released: int = 0  # and reported: deleted by the reaper, or by another program after they ran empty
    deleted_by_others: int = 0  # of those
    unseen: int = 0  # deleted by another program before their statistics could be read
    repopulated: int = 0  # a process moved in after they ran empty
    failed: int = 0  # attempts to delete one that the kernel refused for any other reason


class Output(Protocol):
    """Receiver of the records of released cgroups."""

    def is_heard(self) -> bool:
        """Whether a record would be used now."""

    def add(self, record: Record, folder: int) -> None:
        """Tell of a cgroup; takes its folder's descriptor over."""


class Releases:
    """Deletes the cgroups of `tree` that run empty.

    `room` returns for how many more there are descriptors.  The folder of a cgroup is opened only where the reports
    or extended attributes take it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        folders: Folders,
        tree: Tree,
        delay: float,
        reports: Output,
        room: Callable[[], int],
        journal: Journal | None = None,
        xattrs: Sequence[str] = (),
    ) -> None:
        self.counters = Counters()
        self.waiting = 0  # releases under way
        self._loop = loop
        self._tree = tree
        self._place = folders.place
        self._complaints = Complaints(loop.time)
        self._delay = delay
        self._reports = reports
        self._room = room
        self._journal = journal
        self._xattrs = xattrs
        self._schedule = Schedule(loop, self._due, self._done)
        self.queue = DescriptorQueue(loop, room, lambda node: self._schedule.add(node, loop.time()))
        self._lines: list[str] = []  # of the log, which are written together
        self._asked: WatchedCgroup | None = None  # for controllers, last
        self._turn = 0  # in which it was asked
        self._answer = 0, 0

    def close(self) -> None:
        """Leave everything as it is."""
        self._schedule.close()
        self.queue.close()

    # what the tree tells

    def changed(self, node: WatchedCgroup, by_event: bool = False) -> None:
        """Look at a member.  Raises nothing: a cgroup that cannot be read now is read later."""
        if node.kind is not Kind.MEMBER or node.lost:
            return
        try:
            self._look(node, by_event)
        except OSError as error:
            self._complaints.tell("read", node.path, error)
            self._schedule.add(node, self._loop.time() + FAILED_PAUSE)

    def _look(self, node: WatchedCgroup, by_event: bool) -> None:
        opened = Opened()
        flags = wanted = 0
        if node.release is None and self._room() > 0:
            if by_event:
                flags, wanted = self._asked_of_parent(node)
            else:
                flags = self._flags()  # it may never have been used: the counters are read when that is known
        way, above = self._place(node)
        seen = look(way, above, flags, node.inode, TABLE, wanted, opened)
        if not seen:  # gone, of which there is an event
            return
        # the kernel sends events of nothing but processes and freezing
        if seen & POPULATED or (by_event and not seen & FROZEN and not node.frozen):
            node.used = True
        node.frozen = bool(seen & FROZEN)
        if seen & POPULATED:
            node.busy = 0
            self._end(node)
        elif seen & OPENED:
            self._begin(node, opened, by_event)
        elif seen & ANOTHER:
            self._tree.look_again(node)
        elif not flags and node.release is None:
            self.queue.add(node)

    def gone(self, node: WatchedCgroup) -> None:
        self._schedule.remove(node)
        self.queue.remove(node)
        if node.release is None:
            self.counters.unseen += 1
        else:
            self.counters.deleted_by_others += 1
            record = self._record(node, node.release.opened)
            if self._journal is not None:
                self._journal.record(record)
            os.close(node.release.opened.first)
            self._released(node, node.release, record)
            self._write_lines()

    def child_gone(self, node: WatchedCgroup) -> None:
        if node.release is None:
            self.changed(node)
        elif not node.children:
            self._schedule.add(node, node.release.ready)

    # beginning

    def _begin(self, node: WatchedCgroup, opened: Opened, by_event: bool) -> None:
        """See to an empty cgroup when its time has come, if it had a process."""
        now = self._loop.time()
        try:
            begins = node.used or self._had_process(node, opened, now)
            if begins and not by_event:
                begins = self._read_all(node, opened)
        except OSError:
            opened.close()
            raise
        if not begins:
            opened.close()
            return
        node.used = True
        node.release = Release(opened, now + self._delay)
        self.waiting += 1
        self._schedule.add(node, node.release.ready)

    def _flags(self) -> int:
        return OPEN | WITH_FOLDER if self._xattrs or self._reports.is_heard() else OPEN

    def _asked_of_parent(self, node: WatchedCgroup) -> tuple[int, int]:
        """Return the flags for a look at a cgroup, and the counters that it may have.

        The parent is asked for these once for all cgroups with an event before this turn.  They were empty before
        that, so a controller that is switched on later has counted nothing for them.
        """
        if self._asked is not node.parent or self._turn != self._tree.turns:
            assert node.parent is not None
            self._answer = self._flags(), counters_of(read_controllers(*self._place(node.parent)))
            self._asked, self._turn = node.parent, self._tree.turns
        return self._answer

    def _read_all(self, node: WatchedCgroup, opened: Opened) -> bool:
        """Read all that the kernel counts for a cgroup by now; False: it is gone."""
        assert node.parent is not None
        opened.found = counters_of(read_controllers(*self._place(node.parent)))
        return read_again(*self._place(node), TABLE, opened)

    def _had_process(self, node: WatchedCgroup, opened: Opened, now: float) -> bool:
        """Whether a cgroup had a process.

        Others are for their spawner to fill: for ever or, if they were there before the reaper, until the end of
        their grace.
        """
        if shows_use(opened.numbers[0], *self._place(node)):
            return True
        if node.grace_until is not None and node.grace_until > now:
            self._schedule.add(node, node.grace_until)
            return False
        return node.grace_until is not None

    def _end(self, node: WatchedCgroup) -> None:
        """Forget that a cgroup was empty: a process moved in, so nothing is reported."""
        release, node.release = node.release, None
        self._schedule.remove(node)
        self.queue.remove(node)
        if release is not None:
            release.opened.close()
            self.waiting -= 1
            self.counters.repopulated += 1

    # the end

    def _due(self, node: WatchedCgroup) -> None:
        if node.release is None:
            self.changed(node)
        elif not node.children:  # else the last of them brings it back
            self._delete(node, node.release)

    def _done(self) -> None:
        self._write_lines()
        self._tree.take_events()  # deletions make events, which would only wake the worker up

    def _write_lines(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            info_lines(lines)

    def _delete(self, node: WatchedCgroup, release: Release) -> None:
        way, above = self._place(node)
        if not read_again(way, above, TABLE, release.opened):
            # it is deleted; another cgroup that has its name now is not to be touched
            self._schedule.add(node, self._loop.time() + BUSY_PAUSE)
            self._tree.look_again(node)
            return
        record = self._record(node, release.opened)
        if self._journal is not None:
            self._journal.record(record)
        try:
            self._tree.watches.delete(node, release, way, above)
        except FileNotFoundError:
            os.close(release.opened.first)
            self.counters.deleted_by_others += 1
        except OSError as error:
            if self._journal is not None:
                self._journal.take_back()
            self._refused(node, release, error)
            return
        self._released(node, release, record)
        self._tree.deleted(node)

    def _refused(self, node: WatchedCgroup, release: Release, error: OSError) -> None:
        if error.errno == errno.EBUSY:
            self._end(node)
            self._schedule.add(node, self._loop.time() + BUSY_PAUSE * 2**node.busy)
            node.busy = min(node.busy + 1, MOST_BUSY)
            self._tree.look_again(node)
            return
        self.counters.failed += 1
        if not release.failed:
            self._complaints.tell("delete", node.path, error)
        release.failed = True
        self._schedule.add(node, self._loop.time() + FAILED_PAUSE)

    def _record(self, node: WatchedCgroup, opened: Opened) -> Record:
        xattrs = read_xattrs(opened.folder, self._xattrs) if self._xattrs else {}
        above = node.parent
        parent = above.inode if above is not None and above.kind is Kind.MEMBER else None
        btime = opened.birth if opened.birth >= 0 else None
        ended = time.time_ns() // 1000 / 1e6  # to the microsecond, as databases keep it
        counted = statistics(opened.numbers)
        return Record(node.path, node.scope, node.inode, parent, btime, ended, counted, xattrs, node.left_out)

    def _released(self, node: WatchedCgroup, release: Release, record: Record) -> None:
        node.release = None
        self.waiting -= 1
        self.counters.released += 1
        self._lines.append(log_line(node.suffix, record.statistics, record.btime, record.age))
        if release.opened.folder >= 0:
            self._reports.add(record, release.opened.take_folder())
