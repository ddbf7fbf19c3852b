"""The scope of the services: found or made before the first of them starts, kept while there are any."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from functools import partial

from supervisor.errors import StepError
from supervisor.log.logger import log, notice
from supervisor.loop.loop import Loop, Timer
from supervisor.manager.scope_request import ScopeRequest
from supervisor.process.cgroup import Subtree
from supervisor.process.cgroup_kill import kill_all
from supervisor.process.delegation import cgroup_of, folder_of, use_subtree
from supervisor.process.fork import fork
from supervisor.process.scope import be_keeper, find_scope, keeper_of, make_scope_command, settle_keeper

TIME_LIMIT = 10.0  # seconds to get the scope: longer than a busy systemd takes
AGAIN_AFTER = 0.1  # seconds: one of that name may be about to go
GONE_WITHIN = 5.0  # seconds for an emptied scope to be removed by systemd
LOOK_AGAIN = 0.01  # seconds

Opened = Callable[[Subtree | None], None]


class Scope:
    """The scope `name` of the spawnd with the run-time folder `folder`.

    Its keeper is watched by a pidfd, as it may be the child of a spawnd that is no more.  One
    that somebody kills is replaced; a scope that is gone is made again, and what starts
    meanwhile fails and backs off.  Owns the pidfd.
    """

    def __init__(self, loop: Loop, name: str, folder: str) -> None:
        self._loop = loop
        self._name = name
        self._folder = folder
        self._subtree: Subtree | None = None
        self._request: ScopeRequest | None = None
        self._timer: Timer | None = None
        self._pidfd = -1
        self._deadline = 0.0
        self._problem = ""
        self._kept = True
        self._is_new = False

    def open(self, opened: Opened) -> None:
        """Call `opened`, from here or from the loop, with the subtree, None where it cannot be had."""
        self._begin(opened)

    def resume(self, subtree: Subtree) -> None:
        """Go on keeping the scope that an earlier life of this process has opened."""
        self._subtree = subtree
        self._keep()

    def release(self) -> None:
        """Everything is about to stop: replace nothing any more."""
        self._kept = False

    def close(self, done: Callable[[], None]) -> None:
        """End all that is in there, the keeper too, and call `done` when systemd has removed it, or will not."""
        self._stop_waiting()
        if self._subtree is None:
            done()
            return
        path = self._subtree.path
        self._kill(path)
        self._subtree = None
        self._await_end(path, self._loop.clock() + GONE_WITHIN, done)

    def abandon(self) -> None:
        """There will be no services: end a scope that was made for them just now.  One that was there stays."""
        self._stop_waiting()
        if self._is_new and self._subtree is not None:
            self._kill(self._subtree.path)

    def _kill(self, path: str) -> None:
        try:
            kill_all(path)
        except StepError as error:
            log.warning("%s: %s", self._name, error)

    def _stop_waiting(self) -> None:
        self._kept = False
        if self._timer is not None:
            self._timer.cancel()
        if self._request is not None:
            self._request.cancel()
            self._request = None
        self._unwatch()

    # getting it

    def _begin(self, opened: Opened) -> None:
        self._problem = ""
        self._deadline = self._loop.clock() + TIME_LIMIT
        self._get(opened)

    def _get(self, opened: Opened) -> None:
        """Use the scope that is there, else have it made."""
        self._timer = None
        try:
            path = find_scope(self._name)
            if path is None:
                self._request = ScopeRequest(
                    self._loop, self._name, make_scope_command(self._name, self._folder), partial(self._made, opened)
                )
                self._timer = self._loop.call_at(self._deadline, partial(self._too_late, opened))
                return
            self._use(path, keeper_of(path) or fork(partial(be_keeper, path)))
        except (StepError, OSError) as error:
            self._failed(opened, str(error))
        else:
            opened(self._subtree)

    def _made(self, opened: Opened, pid: int | None, problem: str) -> None:
        """The answer to a request."""
        self._request = None
        if self._timer is not None:
            self._timer.cancel()
        path = folder_of(cgroup_of(pid) or "") if pid is not None else None
        if pid is None or path is None:
            self._failed(opened, problem or "its cgroup is out of sight")
            return
        try:
            settle_keeper(path, pid)
            self._use(path, pid)
        except (StepError, OSError) as error:
            os.kill(pid, signal.SIGKILL)
            self._failed(opened, str(error))
            return
        self._is_new = True
        opened(self._subtree)

    def _use(self, path: str, keeper: int) -> None:
        self._pidfd = os.pidfd_open(keeper)
        self._loop.watch(self._pidfd, select.EPOLLIN, lambda _events: self._keeper_ended())
        if self._subtree is None:
            self._subtree = use_subtree(path)
        else:
            self._subtree.path = use_subtree(path).path
            self._subtree.lost = False

    def _failed(self, opened: Opened, problem: str) -> None:
        """Try again while there is time: what is in the way may be about to go."""
        self._problem = problem
        if self._loop.clock() + AGAIN_AFTER < self._deadline:
            log.debug("%s: %s; trying again", self._name, problem)
            self._timer = self._loop.call_later(AGAIN_AFTER, partial(self._get, opened))
        else:
            log.error("cannot get %s: %s", self._name, problem)
            opened(None)

    def _too_late(self, opened: Opened) -> None:
        if self._request is not None:
            self._request.cancel()
            self._request = None
        self._failed(opened, self._problem or f"systemd did not make it within {TIME_LIMIT:g} s")

    # keeping it

    def _keeper_ended(self) -> None:
        self._unwatch()
        if self._kept and self._subtree is not None:
            self._subtree.lost = True
            notice("%s: its keeper has ended, there will be another", self._name)
            self._timer = self._loop.call_later(AGAIN_AFTER, self._keep)

    def _keep(self) -> None:
        self._timer = None
        if self._kept:
            self._begin(self._kept_again)

    def _kept_again(self, subtree: Subtree | None) -> None:
        if subtree is None and self._kept:
            self._timer = self._loop.call_later(TIME_LIMIT, self._keep)

    def _unwatch(self) -> None:
        if self._pidfd >= 0:
            self._loop.unwatch(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _await_end(self, path: str, deadline: float, done: Callable[[], None]) -> None:
        if not os.path.exists(path):
            done()
        elif self._loop.clock() >= deadline:
            log.warning("%s: still there %g s after its end", self._name, GONE_WITHIN)
            done()
        else:
            self._loop.call_later(LOOK_AGAIN, partial(self._await_end, path, deadline, done))
