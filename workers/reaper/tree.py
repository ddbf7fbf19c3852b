"""The cgroups below the scopes, as far as the kernel has told of them.

A folder is watched first and looked into then, so that what is made in between is found twice
rather than never.  A cgroup is known by its inode: one that was deleted and made anew under
its name is another one.  What events say is taken as a hint where to look, so they may come
late, twice or, where the queue was too short for them, not at all: then everything is looked
at again.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

from supervisor.linux.inotify import IN_CREATE, IN_ISDIR, IN_MODIFY, IN_Q_OVERFLOW
from supervisor.log.logger import log
from workers.reaper.hearing import Event, Hearing
from workers.reaper.node import Kind, Node
from workers.reaper.schedule import SLICE
from workers.reaper.scopes import Scopes
from workers.reaper.watches import Watches

GRACE = 10.0  # seconds that an empty cgroup that was there before us is left to its spawner
POLL_PAUSE = 1.0  # seconds between two looks at what cannot be watched
FEW = 32  # looks: 3 ms
WITHOUT_CHILDREN = 2  # the link count of a folder in cgroup2 is its `.`, `..` and folders


class Listener(Protocol):
    def changed(self, node: Node, by_event: bool = False) -> None:
        """A member may have changed: it is new or, with `by_event`, its `cgroup.events` has.  Raises nothing."""

    def gone(self, node: Node) -> None:
        """Somebody else has deleted a member."""

    def child_gone(self, node: Node) -> None:
        """A child of this one is there no more."""


class Tree:
    """Owns `watches` and all nodes.  `root` is where the root cgroup is to be seen."""

    def __init__(self, loop: asyncio.AbstractEventLoop, root: str, scopes: Scopes, listener: Listener) -> None:
        self.scopes = scopes
        self.overflows = 0
        self.watches = Watches(root)
        self._loop = loop
        self._path = root
        self._listener = listener
        self._root = Node(None, "", "", Kind.ANCESTOR, os.stat(root).st_ino)
        self._to_do: deque[Callable[[], None]] = deque()  # visits, discoveries and looks
        self._changed: set[Node] = set()  # those that an event has told of, and that are to be looked at
        self._working: asyncio.Handle | None = None
        self._at_work = False
        self.turns = 0  # of work, each on what was heard before it
        self._unwatched: set[Node] = set()
        self._polling: asyncio.TimerHandle | None = None
        self._hearing = Hearing(loop, self.watches, self._take, self._work)
        self._starting = True

    def start(self) -> None:
        """Find what is there."""
        self._watch(self._root)
        self._visit_soon(self._root)
        self._at_work = True
        while self._to_do:
            self._guard(self._to_do.popleft())
        self._at_work = self._starting = False
        self._hearing.start()

    def close(self) -> None:
        self._hearing.close()
        for handle in (self._working, self._polling):
            if handle is not None:
                handle.cancel()
        self.watches.close()
        for node in self._root.subtree():
            node.close()

    def members(self) -> list[Node]:
        """All that are below a scope, parents before their children."""
        return [node for node in reversed(list(self._root.subtree())) if node.kind is Kind.MEMBER]

    def present(self) -> set[str]:
        """The scopes that there are."""
        return {node.path for node in self._root.subtree() if node.kind is Kind.SCOPE}

    @property
    def unwatched(self) -> int:
        """How many can only be polled."""
        return len(self._unwatched)

    def deleted(self, node: Node) -> None:
        """The listener has deleted a node itself."""
        self._forget(node)
        assert node.parent is not None
        self._listener.child_gone(node.parent)

    def look_again(self, node: Node) -> None:
        """Have a node visited, and what has to be done before it."""
        self._visit_soon(node)
        self._work()

    # events

    def take_events(self) -> None:
        """See to some of those that there are: at once where they are few, as another turn of the loop costs more."""
        self._hearing.take_some()
        if len(self._to_do) <= FEW:
            self._work()
        elif self._working is None:
            self._working = self._loop.call_soon(self._work)

    def _take(self, events: Sequence[Event]) -> None:
        for wd, mask, name in events:
            if mask & IN_Q_OVERFLOW:
                self._visit_all()
            elif (node := self.watches.file(wd)) is not None:
                if mask & IN_MODIFY and node not in self._changed:
                    self._changed.add(node)
                    self._to_do.append(partial(self._look, node))
            elif mask & IN_ISDIR and (parent := self.watches.folder(wd)) is not None:
                # of one that we have deleted there is nothing to find; if it was made anew, there is an event of that
                if mask & IN_CREATE or name in parent.children:
                    self._to_do.append(partial(self._discover, parent, name))

    def _look(self, node: Node) -> None:
        self._changed.discard(node)
        self._listener.changed(node, by_event=True)

    def _visit_all(self) -> None:
        self.overflows += 1
        log.warning("the kernel lost events of cgroups: looking at all of them; see fs.inotify.max_queued_events")
        for node in reversed(list(self._root.subtree())):
            self._visit_soon(node)

    def _visit_soon(self, node: Node) -> None:
        self._to_do.append(partial(self._visit, node))

    def _work(self) -> None:
        """Do what there is to do, and let others have their turn from time to time."""
        if self._at_work:  # what is being done has found more to do
            return
        if self._working is not None:
            self._working.cancel()
            self._working = None
        end = self._loop.time() + SLICE
        self.turns += 1
        self._at_work = True
        while self._to_do:
            self._guard(self._to_do.popleft())
            if self._loop.time() > end:
                self._working = self._loop.call_soon(self._work)
                break
        self._at_work = False

    def _guard(self, do: Callable[[], None]) -> None:
        """One that cannot be looked at must not cost the others their turn, nor us our ears."""
        try:
            do()
        except OSError as error:
            log.error("cannot watch cgroups: %s: %s", error.filename, error.strerror)
        except Exception as error:
            log.error("unexpected error with a cgroup; going on", exc_info=error)

    # nodes

    def _discover(self, parent: Node, name: str) -> None:
        """See what there is by this name now, and take it in where it is not known."""
        if parent.lost:
            return
        path = f"{parent.path}/{name}"
        kind = self.scopes.kind(parent, path)
        if kind is None:
            return
        inode = self._inode(path)
        known = parent.children.get(name)
        if known is not None:
            if known.inode == inode:
                return
            self._lose(known)
        if inode is not None:
            self._take_in(Node(parent, name, path, kind, inode))

    def _take_in(self, node: Node) -> None:
        assert node.parent is not None
        try:
            self._watch(node)
        except FileNotFoundError:
            return  # there is an event of that, too
        node.parent.children[node.name] = node
        if node.kind is Kind.SCOPE:
            with suppress(OSError):
                node.folder = os.open(self._path + node.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if self._starting:
            node.grace_until = self._loop.time() + GRACE
        self._visit_soon(node)

    def _visit(self, node: Node) -> None:
        """Find what is new in a node, and see how it is itself."""
        if node.lost:
            return
        try:
            status = os.stat(self._path + node.path)
        except FileNotFoundError:
            if node.parent is not None:
                self._lose(node)
            return
        if status.st_ino != node.inode and node.parent is not None:
            self._discover(node.parent, node.name)
            return
        if status.st_nlink > WITHOUT_CHILDREN or node.children:
            # thousands, maybe: each has a turn of its own
            self._to_do.extend(partial(self._discover, node, name) for name in self._names_in(node))
        if node.kind is Kind.MEMBER:
            self._listener.changed(node)

    def _names_in(self, node: Node) -> set[str]:
        """The children that there are or were."""
        if node.kind is Kind.ANCESTOR:
            return set(self.scopes.on_the_way(node))
        names = set(node.children)
        with suppress(FileNotFoundError), os.scandir(self._path + node.path) as entries:
            names |= {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
        return names

    def _lose(self, node: Node) -> None:
        """Somebody else has deleted it, and so all that was in it."""
        for one in list(node.subtree()):
            self._forget(one)
            if one.kind is Kind.MEMBER:
                self._listener.gone(one)
        assert node.parent is not None
        self._listener.child_gone(node.parent)

    def _forget(self, node: Node) -> None:
        node.lost = True
        node.close()
        self.watches.remove(node)
        self._unwatched.discard(node)
        if node.parent is not None:
            del node.parent.children[node.name]

    def _inode(self, path: str) -> int | None:
        try:
            return os.stat(self._path + path).st_ino
        except FileNotFoundError:
            return None

    # without a watch

    def _watch(self, node: Node) -> None:
        """Watch it or, where the user has no more watches, poll it.  Raises OSError."""
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
