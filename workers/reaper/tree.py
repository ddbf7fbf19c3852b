"""The cgroups below the scopes, as known from events.

A folder is first watched and then scanned, so a cgroup that is created in between is found twice rather than
never. A cgroup is identified by its inode: a cgroup created anew under the same name is another one. Events
only tell where to look, so they may arrive late or twice. If the queue overflows, they are lost, and all
cgroups are looked at again.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from time import monotonic
from typing import Protocol

from supervisor.linux.inotify import IN_CREATE, IN_ISDIR, IN_MODIFY, IN_Q_OVERFLOW
from supervisor.log.logger import log
from workers.reaper.node import NOT_WATCHED, Folders, Kind, Scopes, WatchedCgroup
from workers.reaper.schedule import FAILED_PAUSE, SLICE, TOGETHER, Complaints
from workers.reaper.watches import Event, EventReader, Watches

GRACE = 10.0  # seconds for which an older empty cgroup is left to its spawner
POLL_PAUSE = 1.0  # seconds between two looks at cgroups that cannot be watched
WITHOUT_CHILDREN = 2  # link count of an empty folder: in cgroup2, it counts `.`, `..` and folders


class Listener(Protocol):
    def changed(self, nodes: Sequence[WatchedCgroup], by_event: bool = False) -> None:
        """Members may have changed: they are new or, if `by_event`, their `cgroup.events` changed. Raises nothing."""

    def gone(self, node: WatchedCgroup) -> None:
        """Another program has deleted a member."""

    def child_gone(self, node: WatchedCgroup) -> None:
        """A child of this cgroup is gone."""


class Tree:
    """The known cgroups. Owns `watches` and all cgroups."""

    _listener: Listener

    def __init__(self, loop: asyncio.AbstractEventLoop, folders: Folders, scopes: Scopes) -> None:
        self.scopes = scopes
        self.overflows = 0
        self.watches = Watches(folders)
        self._loop = loop
        self._folders = folders
        self._root = WatchedCgroup(None, "", "", Kind.ANCESTOR, os.stat(folders.root).st_ino)
        self._to_do: deque[Callable[[], None]] = deque()  # visits and discoveries
        self._changed: dict[WatchedCgroup, None] = {}  # in the order of their events
        self._working: asyncio.Handle | None = None
        self._at_work = False
        self._unwatched: set[WatchedCgroup] = set()
        self._polling: asyncio.TimerHandle | None = None
        self._failed: set[tuple[WatchedCgroup, str]] = set()  # children that could not be added, by parent and name
        self._trying: asyncio.TimerHandle | None = None
        self._complaints = Complaints(loop.time)
        self._reader = EventReader(loop, self.watches, self._take, self._work)
        self._starting = True

    def start(self, listener: Listener) -> None:
        """Find the present cgroups; the listener is informed of them, and of all later changes."""
        self._listener = listener
        self._watch(self._root)
        self._visit_soon(self._root)
        self._at_work = True
        while self._to_do:
            self._guard(self._to_do.popleft())
        self._at_work = self._starting = False
        self._reader.start()

    def close(self) -> None:
        self._reader.close()
        for handle in (self._working, self._polling, self._trying):
            if handle is not None:
                handle.cancel()
        self.watches.close()
        for node in self._root.subtree():
            node.close()

    def members(self) -> list[WatchedCgroup]:
        """Return all cgroups below a scope, parents before their children."""
        return [node for node in reversed(list(self._root.subtree())) if node.kind is Kind.MEMBER]

    def present(self) -> set[str]:
        """Return the paths of the present scopes."""
        return {node.path for node in self._root.subtree() if node.kind is Kind.SCOPE}

    @property
    def unwatched(self) -> int:
        """Number of cgroups that can only be polled."""
        return len(self._unwatched)

    def deleted(self, node: WatchedCgroup) -> None:
        """Note that the listener has deleted a cgroup itself."""
        self._forget(node)
        assert node.parent is not None
        if node.parent.kind is Kind.MEMBER:
            self._listener.child_gone(node.parent)

    def look_again(self, node: WatchedCgroup) -> None:
        """Visit a cgroup after the pending work."""
        self._visit_soon(node)
        # in a turn of its own, because the listener may be handling others
        if not self._at_work and self._working is None:
            self._working = self._loop.call_soon(self._work)

    # events

    def take_events(self) -> None:
        """Read some events and handle them: at once if they are few, because another turn of the loop costs more."""
        self._reader.take_some()
        if len(self._to_do) + len(self._changed) <= TOGETHER:
            self._work()
        elif self._working is None:
            self._working = self._loop.call_soon(self._work)

    def _take(self, events: Sequence[Event]) -> None:
        files, folders = self.watches.files, self.watches.folders
        for wd, mask, name in events:
            if mask & IN_Q_OVERFLOW:
                self._visit_all()
            elif mask & IN_MODIFY:
                if (node := files.get(wd)) is not None:
                    self._changed[node] = None
            elif mask & IN_ISDIR and (parent := folders.get(wd)) is not None:
                # a cgroup deleted by the reaper need not be looked at; its re-creation causes another event
                if mask & IN_CREATE or name in parent.children:
                    self._to_do.append(partial(self._discover, parent, name))

    def _visit_all(self) -> None:
        self.overflows += 1
        log.warning("the kernel lost events of cgroups: looking at all of them; see fs.inotify.max_queued_events")
        for node in reversed(list(self._root.subtree())):
            self._visit_soon(node)

    def _visit_soon(self, node: WatchedCgroup) -> None:
        self._to_do.append(partial(self._visit, node))

    def _work(self) -> None:
        """Do all pending work in slices, so that other callbacks have their turn."""
        if self._at_work:  # a running call has found more work, and will do it
            return
        if self._working is not None:
            self._working.cancel()
            self._working = None
        end = monotonic() + SLICE
        self._at_work = True
        while self._changed or self._to_do:
            self._guard(self._tell_changed if self._changed else self._to_do.popleft())
            if monotonic() > end:
                self._working = self._loop.call_soon(self._work)
                break
        self._at_work = False

    def _guard(self, do: Callable[[], None]) -> None:
        """Do a piece of work; after an error in it, the work on other cgroups continues."""
        try:
            do()
        except OSError as error:
            self._complaints.tell("look at", str(error.filename or "?"), error)
        except Exception as error:
            log.error("unexpected error with a cgroup; going on", exc_info=error)

    def _tell_changed(self) -> None:
        nodes = list(islice(self._changed, TOGETHER))
        for node in nodes:
            del self._changed[node]
        self._listener.changed(nodes, by_event=True)

    # nodes

    def _discover(self, parent: WatchedCgroup, name: str) -> None:
        """Look at the present cgroup of this name, and add it if it is new."""
        if parent.lost:
            return
        path = parent.path_of(name)
        kind = self.scopes.kind(parent, path)
        if kind is None:
            return
        inode = self._inode(parent, name)
        known = parent.children.get(name)
        if known is not None:
            if known.inode == inode:
                return
            self._lose(known)
        if inode is not None:
            self._take_in(WatchedCgroup(parent, name, path, kind, inode))

    def _take_in(self, node: WatchedCgroup) -> None:
        assert node.parent is not None
        try:
            self._watch(node)
        except FileNotFoundError:
            return  # an event reports that as well
        except OSError as error:
            self._complaints.tell("watch", node.path, error)
            self._try_later(node.parent, node.name)
            return
        node.parent.children[node.name] = node
        if node.kind is Kind.SCOPE:
            with suppress(OSError):
                self._folders.open_scope(node)
        if self._starting:
            node.grace_until = self._loop.time() + GRACE
        self._visit_soon(node)

    def _visit(self, node: WatchedCgroup) -> None:
        """Find new children of a cgroup, and look at the cgroup itself."""
        if node.lost:
            return
        try:
            way, folder = self._folders.place(node)
            status = os.stat(way, dir_fd=folder)
        except FileNotFoundError:
            if node.parent is not None:
                self._lose(node)
            return
        if status.st_ino != node.inode and node.parent is not None:
            self._discover(node.parent, node.name)
            return
        if status.st_nlink > WITHOUT_CHILDREN or node.children:
            # possibly thousands, so each is a piece of work of its own
            self._to_do.extend(partial(self._discover, node, name) for name in self._names_in(node))
        if node.kind is Kind.MEMBER:
            self._listener.changed([node])

    def _names_in(self, node: WatchedCgroup) -> set[str]:
        """Return the names of present and former children."""
        if node.kind is Kind.ANCESTOR:
            return set(self.scopes.on_the_way(node))
        names = set(node.children)
        with suppress(FileNotFoundError):
            way, above = self._folders.place(node)
            folder = os.open(way, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=above)
            try:
                with os.scandir(folder) as entries:
                    names |= {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
            finally:
                os.close(folder)
        return names

    def _lose(self, node: WatchedCgroup) -> None:
        """Forget a cgroup that another program has deleted, with all its descendants."""
        for one in list(node.subtree()):
            self._forget(one)
            if one.kind is Kind.MEMBER:
                self._listener.gone(one)
        assert node.parent is not None
        self._listener.child_gone(node.parent)

    def _forget(self, node: WatchedCgroup) -> None:
        node.lost = True
        if node.folder is not None:
            self._folders.close(node)
        if node.folder_watch != NOT_WATCHED:
            self.watches.remove(node)
        self._unwatched.discard(node)
        if node.parent is not None:
            del node.parent.children[node.name]

    def _inode(self, parent: WatchedCgroup, name: str) -> int | None:
        try:
            way, folder = self._folders.place(parent)
            return os.stat(f"{way}/{name}", dir_fd=folder).st_ino
        except FileNotFoundError:
            return None

    def _try_later(self, parent: WatchedCgroup, name: str) -> None:
        self._failed.add((parent, name))
        if self._trying is None:
            self._trying = self._loop.call_later(FAILED_PAUSE, self._try_again)

    def _try_again(self) -> None:
        self._trying = None
        failed, self._failed = self._failed, set()
        self._to_do.extend(partial(self._discover, parent, name) for parent, name in failed)
        self._work()

    # without watches

    def _watch(self, node: WatchedCgroup) -> None:
        """Watch a cgroup or, if the user has no more watches, poll it. Raises OSError."""
        if self.watches.add(node):
            self._unwatched.discard(node)
            return
        if not self._unwatched:
            log.warning("no more watches for cgroups: looking each second; raise fs.inotify.max_user_watches")
        self._unwatched.add(node)
        if self._polling is None:
            self._polling = self._loop.call_later(POLL_PAUSE, self._poll)

    def _poll(self) -> None:
        self._polling = None
        for node in list(self._unwatched):
            with suppress(OSError):
                self._watch(node)
            self._visit_soon(node)
        self._work()
