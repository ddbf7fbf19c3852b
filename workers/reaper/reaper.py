"""The parts of the reaper, put together."""

from __future__ import annotations

import asyncio
import resource

from supervisor.log.logger import notice
from workers.reaper.accounting.database import open_database
from workers.reaper.accounting.keeper import Keeper
from workers.reaper.accounting.spool import Spool
from workers.reaper.options import Options
from workers.reaper.release import Releases
from workers.reaper.reports import Host, Reports
from workers.reaper.scopes import Scopes
from workers.reaper.tree import Tree

SPARE_DESCRIPTORS = 128  # that cgroups leave to databases, sockets and files
MAX_CALLS = 1024  # of the script, under way
PARENTS = 4  # descriptors that a call may take: scripts look at parents
MAX_EMPTY = 32768  # cgroups on their way, each with a descriptor: the others wait in the kernel, which costs us nothing
STOP_PATIENCE = 5.0  # seconds for handlers that run when the worker is to end
RELOAD = "reload"  # the script's function


class Reaper:
    """Owns everything but the loop and `host`, the script.  Raises ReaperError."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: Options, host: Host | None = None) -> None:
        self.options = options
        available = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS - len(options.scopes)
        max_calls = min(MAX_CALLS, max(1, available // (2 * PARENTS)))
        self._limit = max(1, min(MAX_EMPTY, available - PARENTS * max_calls))
        self.reports = Reports(host, max_calls)
        self.keeper: Keeper | None = None
        root = options.cgroup_root
        if options.database:
            spool = Spool(options.spool, options.spool_max)
            self.keeper = Keeper(options.host, root, spool, open_database(options.database), options.keep)
        self._host = host
        self.releases = Releases(
            loop, root, options.delete_delay, self.reports.add, self._room, self.keeper, options.xattrs
        )
        self.tree = Tree(loop, root, Scopes(options.scopes), self.releases)
        self.releases.tree = self.tree

    def start(self) -> None:
        """Raises ReaperError."""
        if self.keeper is not None:
            self.keeper.start()
        self.tree.start()
        notice("watching %d cgroups in %s", len(self.tree.members()), ", ".join(self.options.scopes))

    def reload(self) -> None:
        """What that means is the script's to say."""
        if self._host is not None and self._host.has(RELOAD):
            self._host.call(RELOAD)

    async def stop(self) -> None:
        """Handlers that run are waited for; what is empty is the next one's."""
        self.tree.close()
        self.releases.close()
        await self.reports.wait_done(STOP_PATIENCE)
        if self.keeper is not None:
            await self.keeper.stop()

    def _room(self) -> int:
        return self._limit - (self.releases.waiting + self.reports.running + self.reports.waiting)
