"""Deletion of empty cgroups.

An empty cgroup is read at once, and deleted after `delay`, because its spawner may read the statistics as
well. It is read again if it had a process meanwhile. Each cgroup has its own time, so a steady stream of
empty cgroups does not delay the deletion of others. A parent becomes empty together with its last child, and
waits for the deletion of that child.

Only a cgroup that had a process is deleted, because a new one waits for its spawner to fill it. The kernel
prevents the deletion of a populated cgroup: rmdir(2) fails with EBUSY.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from supervisor.log.logger import info_lines, log
from supervisor.printable import printable
from workers.reaper.cgroup_calls import (
    ANOTHER,
    CHANGED,
    COUNT_ALL,
    FROZEN,
    LARGEST,
    OPEN,
    OPENED,
    POPULATED,
    WITH_FOLDER,
    Opened,
    look,
)
from workers.reaper.node import Folders, Kind, Release, WatchedCgroup, groups
from workers.reaper.schedule import FAILED_PAUSE, TOGETHER, Complaints, DescriptorQueue, Schedule
from workers.reaper.statistics import (
    TABLE,
    Journal,
    Record,
    log_line,
    read_xattrs,
    shows_use,
    statistics,
)
from workers.reaper.tree import Tree

_DELETED = 0, -errno.ENOENT  # by the reaper; by another program at the same moment
BUSY_PAUSE = 1.0  # seconds until a busy cgroup is looked at again, in case no event arrives
LINES_PAUSE = 0.3  # seconds for which a line of the log may wait for others, because each write has a price
MOST_BUSY = 6  # how often this pause is doubled; the cgroup may contain a child that cannot be watched


@dataclass(slots=True)
class Counters:
    """Numbers of cgroups since the start of the reaper."""

    released: int = 0  # and reported: deleted by the reaper, or by another program after they became empty
    deleted_by_others: int = 0  # part of `released`
    unseen: int = 0  # deleted by another program before their statistics could be read
    repopulated: int = 0  # populated again after they became empty
    failed: int = 0  # attempts to delete a cgroup that the kernel refused for another reason


class Output(Protocol):
    """Receiver of the records of released cgroups."""

    def is_heard(self) -> bool:
        """Whether a record would be used now."""

    def add(self, record: Record, folder: int) -> None:
        """Report a cgroup; takes ownership of its folder's descriptor."""


class Releases:
    """Deletes the cgroups of `tree` that become empty.

    `room` returns the number of further cgroups for which there are descriptors. The folder of a cgroup is
    opened only for reports or extended attributes.
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
        self.waiting = 0  # number of pending releases
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
        self._lines: list[tuple[str, Record]] = []  # suffixes and records for the log, to be written together
        self._write_lines_by = 0.0  # time of the loop's clock

    def close(self) -> None:
        """Stop without further deletions."""
        self._schedule.close()
        self.queue.close()
        self._write_lines()

    # calls by the tree

    def changed(self, nodes: Sequence[WatchedCgroup], by_event: bool = False) -> None:
        """Look at members. Raises nothing: a cgroup that cannot be read now is read later."""
        flags = self._flags()
        if by_event:  # otherwise the cgroup may be unused; the counters are read once its use is known
            flags |= COUNT_ALL
        for group in groups([node for node in nodes if node.kind is Kind.MEMBER and not node.lost]):
            self._look(group, flags, by_event)

    def _look(self, nodes: Sequence[WatchedCgroup], flags: int, by_event: bool) -> None:
        """Look at cgroups; `flags` apply to cgroups without a release, as far as there are descriptors."""
        room = self._room()
        looked: list[WatchedCgroup] = []
        ways: list[str] = []
        asked: list[int] = []
        for node in nodes:
            try:
                way, above = self._place(node)
            except OSError as error:
                self._cannot_read(node, error)
                continue
            opens = node.release is None and room > 0
            room -= opens
            looked.append(node)
            ways.append(way)
            asked += above, node.inode & LARGEST, flags if opens else 0
        now = self._loop.time()
        for node, given, answer in zip(looked, asked[2::3], look(ways, asked, TABLE), strict=True):
            try:
                self._seen(node, answer, given, by_event, now)
            except OSError as error:
                self._cannot_read(node, error)
            except Exception as error:
                self._schedule.add(node, now + FAILED_PAUSE)
                log.error("unexpected error with cgroup %s; trying again", printable(node.path), exc_info=error)

    def _cannot_read(self, node: WatchedCgroup, error: OSError) -> None:
        self._complaints.tell("read", node.path, error)
        self._schedule.add(node, self._loop.time() + FAILED_PAUSE)

    def _seen(self, node: WatchedCgroup, answer: tuple[int, ...], flags: int, by_event: bool, now: float) -> None:
        """Handle the answer of a look. Raises OSError."""
        seen = answer[0]
        if seen <= 0:
            if seen:
                raise OSError(-seen, os.strerror(-seen), node.path)
            return  # it is gone, which an event reports
        # the kernel sends events only for processes and for freezing
        if seen & POPULATED or (by_event and not seen & FROZEN and not node.frozen):
            node.used = True
        node.frozen = bool(seen & FROZEN)
        if seen & POPULATED:
            node.busy = 0
            self._end(node)
        elif seen & OPENED:
            self._begin(node, Opened(answer), bool(flags & COUNT_ALL), now)
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
            record = self._record(node, node.release.opened, _now())
            if self._journal is not None:
                self._journal.record([record])
            os.close(node.release.opened.first)
            self._released(node, node.release, record)
            self._write_lines()

    def child_gone(self, node: WatchedCgroup) -> None:
        if node.release is None:
            self.changed([node])
        elif not node.children:
            self._schedule.add(node, node.release.ready)

    # start of a release

    def _begin(self, node: WatchedCgroup, opened: Opened, is_counted: bool, now: float) -> None:
        """Begin the release of an empty cgroup if it had a process. Raises OSError."""
        try:
            begins = node.used or self._had_process(node, opened, now)
        except OSError:
            opened.close()
            raise
        if begins and is_counted:
            node.release = Release(opened, now + self._delay)
            self.waiting += 1
            self._schedule.add(node, node.release.ready)
            return
        opened.close()
        if begins:
            node.used = True
            self._look([node], self._flags() | COUNT_ALL, by_event=False)

    def _flags(self) -> int:
        return OPEN | WITH_FOLDER if self._xattrs or self._reports.is_heard() else OPEN

    def _had_process(self, node: WatchedCgroup, opened: Opened, now: float) -> bool:
        """Whether a cgroup had a process.

        Other cgroups are left to their spawner: forever or, if they existed before the reaper, until the end
        of their grace.
        """
        if shows_use(opened.numbers[0], *self._place(node)):
            return True
        if node.grace_until is not None and node.grace_until > now:
            self._schedule.add(node, node.grace_until)
            return False
        return node.grace_until is not None

    def _end(self, node: WatchedCgroup) -> None:
        """End a release because a process moved in; nothing is reported."""
        release, node.release = node.release, None
        self._schedule.remove(node)
        self.queue.remove(node)
        if release is not None:
            release.opened.close()
            self.waiting -= 1
            self.counters.repopulated += 1

    # end of a release

    def _due(self, nodes: Sequence[WatchedCgroup]) -> None:
        if others := [node for node in nodes if node.release is None]:
            self.changed(others)
        for node in nodes:
            if node.release is not None and node.children:  # it is added again after its last child
                self._wait_for_children(node)
        for group in groups([node for node in nodes if node.release is not None and not node.children]):
            self._delete(group)

    def _wait_for_children(self, node: WatchedCgroup) -> None:
        """Give up the release if a child stays and descriptors are short; the end of the last child begins another.

        If another program deletes the cgroup right after that child, its statistics are lost.
        """
        release, above = node.release, node.parent
        if release is None or release.ready > self._loop.time() or self._room() >= TOGETHER:
            return
        if all(child.release is not None for child in node.children.values()):
            return
        node.release = None
        release.opened.close()
        self.waiting -= 1
        if above is not None:
            self._wait_for_children(above)

    def _done(self) -> None:
        self._tree.take_events()  # deletions cause events, which would otherwise wake the worker up
        if len(self._lines) >= TOGETHER or self._schedule.next_run > self._write_lines_by:
            self._write_lines()

    def _write_lines(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            info_lines([log_line(suffix, each.statistics, each.btime, each.age) for suffix, each in lines])

    def _delete(self, nodes: Sequence[WatchedCgroup]) -> None:
        """Delete cgroups whose time has come, after their records are kept."""
        doomed: list[WatchedCgroup] = []
        places: list[tuple[str, int]] = []
        for node in nodes:
            try:
                places.append(self._place(node))
                doomed.append(node)
            except OSError as error:
                self._refused(node, error)
        if not doomed:
            return
        ended = _now()
        records = [self._record(node, node.release.opened, ended) for node in doomed if node.release is not None]
        if self._journal is not None:
            self._journal.record(records)
        results = self._tree.watches.delete(doomed, places)
        if any(results) and self._journal is not None:
            self._journal.take_back([at for at, result in enumerate(results) if result not in _DELETED])
        for node, record, result in zip(doomed, records, results, strict=True):
            try:
                self._act_on_result(node, record, result)
            except Exception as error:  # the others are deleted, too, and nothing may be done with these again
                log.error("unexpected error with cgroup %s; going on", printable(node.path), exc_info=error)

    def _act_on_result(self, node: WatchedCgroup, record: Record, result: int) -> None:
        assert node.release is not None
        if result in _DELETED:
            if result:
                os.close(node.release.opened.first)
                self.counters.deleted_by_others += 1
            self._released(node, node.release, record)
            self._tree.deleted(node)
        elif result > 0:
            self._not_as_it_was(node, result)
        else:
            self._refused(node, OSError(-result, os.strerror(-result), node.path))

    def _not_as_it_was(self, node: WatchedCgroup, result: int) -> None:
        """Handle a cgroup that had a process since it was read, or is gone; another one may have its name."""
        if result == CHANGED:
            self._end(node)
            self._look([node], self._flags() | COUNT_ALL, by_event=False)
        else:
            self._schedule.add(node, self._loop.time() + BUSY_PAUSE)
            self._tree.look_again(node)

    def _refused(self, node: WatchedCgroup, error: OSError) -> None:
        assert node.release is not None
        if error.errno == errno.EBUSY:
            self._end(node)
            self._schedule.add(node, self._loop.time() + BUSY_PAUSE * 2**node.busy)
            node.busy = min(node.busy + 1, MOST_BUSY)
            self._tree.look_again(node)
            return
        self.counters.failed += 1
        if not node.release.failed:
            self._complaints.tell("delete", node.path, error)
        node.release.failed = True
        self._schedule.add(node, self._loop.time() + FAILED_PAUSE)

    def _record(self, node: WatchedCgroup, opened: Opened, ended: float) -> Record:
        xattrs = read_xattrs(opened.folder, self._xattrs) if self._xattrs else {}
        above = node.parent
        parent = above.inode if above is not None and above.kind is Kind.MEMBER else None
        btime = opened.birth / 1e9 if opened.birth >= 0 else None
        counted = statistics(opened.numbers)
        return Record(node.path, node.scope, node.inode, parent, btime, ended, counted, xattrs, node.left_out)

    def _released(self, node: WatchedCgroup, release: Release, record: Record) -> None:
        node.release = None
        self.waiting -= 1
        self.counters.released += 1
        if not self._lines:
            self._write_lines_by = self._loop.time() + LINES_PAUSE
        self._lines.append((node.suffix, record))
        if release.opened.folder >= 0:
            self._reports.add(record, release.opened.take_folder())


def _now() -> float:
    """Return the seconds since 1970 in whole microseconds, the precision of databases."""
    return time.time_ns() // 1000 / 1e6
