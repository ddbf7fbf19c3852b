"""The reaper: its parts, and how they are connected."""

from __future__ import annotations

import asyncio
import resource

from supervisor.log.logger import notice
from supervisor.printable import count
from workers.lua.serial_call import SerialCall
from workers.reaper.accounting.database import open_database
from workers.reaper.accounting.spool import Spool
from workers.reaper.accounting.writer import AccountingWriter
from workers.reaper.node import Folders, Scopes
from workers.reaper.options import Options
from workers.reaper.release import Releases
from workers.reaper.reports import RELOAD, Reports, Script
from workers.reaper.tree import Tree

SPARE_DESCRIPTORS = 128  # descriptors left for databases, sockets and files
MAX_CALLS = 1024  # maximal number of concurrent calls of the script
PARENTS = 4  # descriptors of parents that a call may open
MAX_HELD = 32768  # descriptors of released cgroups; further cgroups wait in the kernel without cost
HELD = 2  # descriptors of an empty cgroup, one of them for the script's handler
STOP_PATIENCE = 5.0  # seconds to wait for running handlers at the end of the worker


class Reaper:
    """The worker without its loop and its `script`. Owns everything else. Raises ReaperError."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: Options, script: Script | None = None) -> None:
        self.options = options
        available = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS - len(options.scopes)
        max_calls = min(MAX_CALLS, max(1, available // (2 * PARENTS)))
        self._limit = max(1, min(MAX_HELD, available - PARENTS * max_calls))
        self.reports = Reports(script, max_calls)
        self.accounting: AccountingWriter | None = None
        root = options.cgroup_root
        if options.database:
            spool = Spool(options.spool, options.spool_max)
            self.accounting = AccountingWriter(options.host, root, spool, open_database(options.database), options.keep)
        self._script = script
        self._reload = None if script is None else SerialCall(lambda: script.call(RELOAD))
        folders = Folders(root)
        self.tree = Tree(loop, folders, Scopes(options.scopes))
        self.releases = Releases(
            loop, folders, self.tree, options.delete_delay, self.reports, self._room, self.accounting, options.xattrs
        )

    def start(self) -> None:
        """Start watching, after what an earlier process left is handed over. Raises ReaperError."""
        if self.accounting is not None:
            self.accounting.start()
        self.tree.start(self.releases)
        notice("watching %s in %s", count(len(self.tree.members()), "cgroup"), ", ".join(self.options.scopes))

    def reload(self) -> None:
        """Call the script's function `reload`, one call at a time; the script decides what to reload."""
        if self._script is not None and self._reload is not None and self._script.has(RELOAD):
            self._script.end_lost()
            self._reload.request()

    async def stop(self) -> None:
        """Stop after the running handlers; the next reaper handles cgroups that are still empty."""
        self.tree.close()
        self.releases.close()
        if self._script is not None:
            self._script.end_lost()
        await self.reports.wait_done(STOP_PATIENCE)
        if self.accounting is not None:
            await self.accounting.stop()

    def _room(self) -> int:
        return -((HELD * self.releases.waiting + self.reports.held - self._limit) // HELD)
