"""The queries between two synchronisations with the server: one, or INSERTs that share a transaction.

A commit waits for the server's disk, some hundred times a second.  INSERTs that wait at the same time
therefore share one, and each still has a result of its own: where one of them fails, or the commit, the
server has undone them all, and each is sent again by itself.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from workers.lua.pg_query import Query

MOST = 256  # queries in a group: the first one waits for the last


@dataclass(slots=True, eq=False)
class Group:
    """`alone`: nothing else is under way, and its end has no mark of its own."""

    queries: list[Query]
    answered: int = 0

    @property
    def alone(self) -> bool:
        return self.queries[0].params is None

    @property
    def shares(self) -> bool:
        return self.queries[0].shares

    def take(self, result: PGresult | None) -> bool:
        """The next result of the connection, None: those of a query are complete.  True: with that the group ends."""
        if result is None:
            self.answered += 1
            return self.alone
        if result.status == ExecStatus.PIPELINE_SYNC:
            return True
        # after the last one it is that of the commit
        self.queries[min(self.answered, len(self.queries) - 1)].result = result
        return False

    def finish(self) -> list[Query]:
        """Tell all queries of their results; those that are to be sent again, each by itself."""
        if len(self.queries) > 1 and not all(query.is_fine for query in self.queries):
            for query in self.queries:
                query.result = None
                query.by_itself = True
            return self.queries
        for query in self.queries:
            query.finish()
        return []


def next_group(queue: deque[Query]) -> Group:
    """Take the first query from the queue, and those behind it that may share its transaction."""
    queries = [queue.popleft()]
    if queries[0].shares:
        while queue and queue[0].shares and len(queries) < MOST:
            queries.append(queue.popleft())
    return Group(queries)
