"""From released cgroups to rows in the database, by way of the spool."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from supervisor.log.logger import log, notice
from workers.reaper.accounting.database import Database
from workers.reaper.accounting.row import Row, decode, encode, make_row
from workers.reaper.accounting.spool import Spool
from workers.reaper.errors import DatabaseError, SpoolError
from workers.reaper.record import Record

BATCH_PAUSE = 1.0  # seconds in which rows are gathered: one commit, and so one wait for the disk
FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0  # seconds until the database is tried again, twice as long each time
STOP_PATIENCE = 3.0  # seconds for the last batch; it is in the spool anyway
BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Keeper:
    """A journal of released cgroups.  Owns `spool` and `database`; `root` is where the root cgroup is to be seen."""

    def __init__(self, host: str, root: str, spool: Spool, database: Database) -> None:
        self.spool = spool
        self.database = database
        self.kept = 0  # rows that the database has taken
        self.refused = 0  # rows that it will never take
        self.trouble = ""  # why the database has not taken the last batch
        self._host = host
        self._root = root
        with open(BOOT_ID, encoding="ascii") as file:
            self._boot = file.read().strip()
        self._lost_told = 0
        self._come = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Go on with what an earlier process left.  Before anything is deleted.  Raises SpoolError."""
        try:
            self._drop_unfinished()
        except OSError as error:
            raise SpoolError(f"cannot use the spool: {error.filename}: {error.strerror}") from error
        if self.spool.batches:
            self._come.set()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Give the database what there is, if it takes it soon."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        try:
            await asyncio.wait_for(self._hand_over(), STOP_PATIENCE)
        except (DatabaseError, TimeoutError, OSError) as error:
            notice("rows of the accounting stay in the spool: %s", error)
        self.spool.close()
        await self.database.close()

    # the journal

    def record(self, record: Record) -> None:
        self.spool.append(encode(make_row(self._host, self._boot, record)))
        self._come.set()

    def take_back(self) -> None:
        self.spool.take_back()

    def _drop_unfinished(self) -> None:
        """The last row is of a cgroup that lives, if the process was killed before it had deleted it."""
        line = self.spool.last_line()
        if line is None:
            return
        try:
            row = decode(line)
            status = os.stat(self._root + row.path)
        except (ValueError, OSError):
            return
        if row.boot == self._boot and status.st_ino == row.cgroup:
            self.spool.drop_last_line()

    # the database

    async def _run(self) -> None:
        """Hand batches over, one after the other; nothing wakes up while there is none."""
        pause = FIRST_RETRY
        while True:
            await self._come.wait()
            self._come.clear()
            await asyncio.sleep(BATCH_PAUSE)
            try:
                await self._hand_over()
            except (DatabaseError, OSError) as error:
                self._tell_trouble(str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_RETRY)
                self._come.set()
            except Exception as error:
                log.error("unexpected error in the accounting; going on", exc_info=error)
                await asyncio.sleep(LONGEST_RETRY)
                self._come.set()
            else:
                pause = FIRST_RETRY
                self._tell_no_trouble()
            self._tell_lost()

    async def _hand_over(self) -> None:
        """All batches that there are.  Raises DatabaseError, OSError."""
        for batch in self.spool.batches:
            await self._hand_over_batch(batch)
        self.spool.close_batch()
        for batch in self.spool.batches:
            await self._hand_over_batch(batch)
        if waiting := self.spool.in_memory[:]:
            await self._insert(self._decode(waiting))
            del self.spool.in_memory[: len(waiting)]

    async def _hand_over_batch(self, batch: str) -> None:
        await self._insert(self._decode(self.spool.read(batch)))
        self.spool.remove(batch)

    async def _insert(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        refused = await self.database.insert(rows)
        self.kept += len(rows) - refused
        if refused:
            self.refused += refused
            log.error("the database refuses %d rows of the accounting for what is in them", refused)

    def _decode(self, lines: Sequence[bytes]) -> list[Row]:
        rows = []
        for line in lines:
            try:
                rows.append(decode(line))
            except ValueError:
                self.refused += 1
                log.error("not a row of the accounting, in the spool: %r", line[:200])
        return rows

    # what is said about it

    def _tell_trouble(self, trouble: str) -> None:
        if trouble != self.trouble:
            log.warning("accounting waits in the spool: %s", trouble)
        self.trouble = trouble

    def _tell_no_trouble(self) -> None:
        if self.trouble:
            notice("accounting goes on: the database has everything")
        self.trouble = ""

    def _tell_lost(self) -> None:
        if self.spool.lost > self._lost_told:
            log.error("no room for %d rows of the accounting: they are lost", self.spool.lost - self._lost_told)
            self._lost_told = self.spool.lost
