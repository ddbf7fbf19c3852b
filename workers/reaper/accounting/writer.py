"""Transfer of released cgroups to the database, by way of the spool."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence

from supervisor.log.logger import log, notice
from workers.reaper.accounting.database import Database
from workers.reaper.accounting.row import Row, decode, line_start, make_line
from workers.reaper.accounting.spool import Spool, sync
from workers.reaper.options import DatabaseError, SpoolError
from workers.reaper.schedule import TOGETHER
from workers.reaper.statistics import Record

BATCH_PAUSE = 4.0  # seconds to collect rows for a single commit, and thus a single wait for the disk
FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0  # seconds until the database is tried again, doubled each time
SYNC_PAUSE = 5.0  # seconds; rows that are not in the database by then are flushed to the disk; more than BATCH_PAUSE
DAY = 86400.0  # seconds
FORGET_PAUSE = 3600.0  # seconds between two searches for old rows
FORGOTTEN_AT_ONCE = 5000  # rows: a fraction of a second
DECODED_AT_ONCE = 100  # rows, which block other callbacks for a millisecond
STOP_PATIENCE = 3.0  # seconds for the last batch, which is in the spool anyway
BOOT_ID = "/proc/sys/kernel/random/boot_id"


class AccountingWriter:
    """A journal of released cgroups. Owns `spool` and `database`; `root` is the mount point of the root cgroup.

    Rows are dropped from the database `keep` seconds after the end of their cgroups; None: never.
    """

    def __init__(self, host: str, root: str, spool: Spool, database: Database, keep: float | None = None) -> None:
        self.spool = spool
        self.database = database
        self.kept = 0  # rows accepted by the database
        self.refused = 0  # rows that the database will never accept
        self.trouble = ""  # why the database has not accepted the last batch
        self.changed: Callable[[], None] = lambda: None  # called when `status` may have changed
        self._status = ""  # as of the last attempt
        self._trouble_began = 0.0  # seconds since 1970
        self._host = host
        self._root = root
        with open(BOOT_ID, encoding="ascii") as file:
            self._boot = file.read().strip()
        self._line_start = line_start(host, self._boot)
        self._lost_told = 0
        self._unwritten_told = False
        self._keep = keep
        self._unforgotten = ""  # why old rows are still there
        self._forget_next = 0.0  # time of the loop's clock
        self._come = asyncio.Event()
        self._written = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Continue the work of an earlier process; called before any deletion. Raises SpoolError."""
        try:
            self._drop_unfinished()
        except OSError as error:
            raise SpoolError(f"cannot use the spool: {error.filename}: {error.strerror}") from error
        if self.spool.batches:
            self._come.set()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._keep_handing_over()), loop.create_task(self._bring_to_disk())]

    async def stop(self) -> None:
        """Hand over the remaining rows, if the database accepts them soon."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await asyncio.wait_for(self._hand_over(), STOP_PATIENCE)
        except (DatabaseError, TimeoutError, OSError) as error:
            notice("rows of the accounting stay in the spool: %s", error)
        self.spool.close()
        await self._sync()
        await self.database.close()

    def status(self) -> str:
        """Return how many rows wait for the database and why, or are refused or lost; '' if all is well."""
        if self.trouble:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._trouble_began))
            return f"accounting waits since {since}, {rows_text(self.spool.rows)}: {self.trouble}"
        lost = [f"{rows_text(number)} {how}" for number, how in ((self.refused, "refused"), (self.spool.lost, "lost"))
                if number]  # fmt: skip
        return f"accounting: {', '.join(lost)}" if lost else ""

    # the journal

    def record(self, records: Sequence[Record]) -> None:
        self.spool.append([make_line(self._line_start, record) for record in records])
        if self.spool.trouble and not self._unwritten_told:
            self._unwritten_told = True
            log.warning("cannot write to the spool: %s: rows of the accounting wait in memory", self.spool.trouble)
        self._come.set()
        self._written.set()
        if self.trouble:
            self.changed()

    def take_back(self, places: Sequence[int]) -> None:
        try:
            self.spool.take_back(places)
        except OSError as error:
            log.warning("cannot drop a row of the accounting, whose cgroup counts twice: %s", error.strerror)

    def _drop_unfinished(self) -> None:
        """Drop the last rows of a killed process whose cgroups live, because it had not deleted them."""
        for line in self.spool.last_lines(TOGETHER):
            try:
                row = decode(line)
                status = os.stat(self._root + row.path)
            except (ValueError, OSError):
                continue
            if row.boot == self._boot and status.st_ino == row.cgroup:
                self.spool.drop_line(line)

    # the database

    async def _keep_handing_over(self) -> None:
        """Hand over batches one after the other; without batches, the task sleeps."""
        pause = FIRST_RETRY
        while True:
            await self._come.wait()
            self._come.clear()
            await asyncio.sleep(BATCH_PAUSE)
            try:
                await self._hand_over()
                await self._forget()
            except (DatabaseError, OSError) as error:
                self._tell_trouble(" ".join(str(error).split()))  # errors of libpq have several lines
                self.changed()
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
            if (status := self.status()) != self._status:
                self._status = status
                self.changed()  # causes a wake-up
            self._unwritten_told = bool(self.spool.trouble)

    async def _hand_over(self) -> None:
        """Hand over all rows. Raises DatabaseError, OSError."""
        await self._hand_over_batches()
        self.spool.close_batch()
        problem = await self._hand_over_batches()
        if waiting := self.spool.in_memory:
            taken = len(waiting)
            await self._insert(await self._decode(waiting[:taken]))
            # of the same list, as a new list may have replaced it meanwhile, whose rows are not in the database
            del waiting[:taken]
        if problem is not None:
            raise problem

    async def _hand_over_batches(self) -> OSError | None:
        """Hand over all closed batches except those that cannot be read or removed; return their last error.

        Raises DatabaseError.
        """
        problem: OSError | None = None
        for batch in self.spool.batches:
            try:
                await self._hand_over_batch(batch)
            except OSError as error:
                problem = error
        return problem

    async def _hand_over_batch(self, batch: str) -> None:
        try:
            lines = self.spool.read(batch)
        except FileNotFoundError as error:
            rows = self.spool.lose(batch)
            log.error("%s was removed, and with it %s of the accounting", error.filename, rows_text(rows))
            self._lost_told += rows
            return
        await self._insert(await self._decode(lines))
        self.spool.remove(batch)

    async def _insert(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        refused = await self.database.insert(rows)
        self.kept += len(rows) - refused
        if refused:
            self.refused += refused
            log.error("the database refuses %s of the accounting because of their content", rows_text(refused))

    async def _decode(self, lines: Sequence[bytes]) -> list[Row]:
        rows: list[Row] = []
        for number, line in enumerate(lines, 1):
            if number % DECODED_AT_ONCE == 0:
                await asyncio.sleep(0)
            try:
                rows.append(decode(line))
            except ValueError:
                self.refused += 1
                log.error("not a row of the accounting, in the spool: %r", line[:200])
        return rows

    async def _forget(self) -> None:
        """Drop some old rows, if it is time."""
        now = asyncio.get_running_loop().time()
        if self._keep is None or now < self._forget_next:
            return
        try:
            gone = await self.database.forget(self._host, self._keep, FORGOTTEN_AT_ONCE)
        except DatabaseError as error:
            self._tell_unforgotten(str(error))
            gone = 0
        else:
            self._tell_unforgotten("")
            if gone:
                notice("dropped %s of the accounting, older than %g days", rows_text(gone), self._keep / DAY)
        if gone < FORGOTTEN_AT_ONCE:
            self._forget_next = now + FORGET_PAUSE

    # the disk

    async def _bring_to_disk(self) -> None:
        """Flush the spool from time to time; rows that a working database has taken by then need no flush."""
        while True:
            await self._written.wait()
            self._written.clear()
            await asyncio.sleep(SYNC_PAUSE)
            await self._sync()

    async def _sync(self) -> None:
        try:
            await asyncio.to_thread(sync, self.spool.take_unsynced())
        except OSError as error:
            log.warning("cannot bring the spool to the disk: %s", error)

    # messages

    def _tell_trouble(self, trouble: str) -> None:
        if trouble != self.trouble:
            log.warning("accounting waits in the spool: %s", trouble)
        if not self.trouble:
            self._trouble_began = time.time()
        self.trouble = trouble

    def _tell_no_trouble(self) -> None:
        if self.trouble:
            notice("accounting goes on: the database has everything")
        self.trouble = ""

    def _tell_unforgotten(self, problem: str) -> None:
        if problem and problem != self._unforgotten:
            log.warning("cannot drop old rows of the accounting: %s", problem)
        self._unforgotten = problem

    def _tell_lost(self) -> None:
        if self.spool.lost > self._lost_told:
            lost = rows_text(self.spool.lost - self._lost_told)
            log.error("cannot keep %s of the accounting: there was no room", lost)
            self._lost_told = self.spool.lost


def rows_text(number: int) -> str:
    return f"{number} row" if number == 1 else f"{number} rows"
