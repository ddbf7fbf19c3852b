"""The rows of `spawnctl call accessory List` fit into replies, whatever names and maps there are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from supervisor.loop.loop import Loop
from tests.unit.process.forked import open_numbers
from tests.unit.waiting import checked_loop
from tests.unit.workers.accessory.entries import entry as make_entry
from workers.accessory.entry import Accounts, Entry, UserNamespace
from workers.accessory.ledger import Journal, Ledger
from workers.accessory.main import PAGE, Report
from workers.accessory.options import Quota
from workers.accessory.registry import Registry
from workers.accessory.rights import SHARED

MOST = 1 << 20  # bytes of a reply
MAP = b"\0".join([b"".join(b"%d %d 1\n" % (number, number) for number in range(300))] * 2)


@pytest.fixture
def loop() -> Iterator[Loop]:
    before = open_numbers()
    with checked_loop() as loop:
        yield loop
    assert open_numbers() == before


def pages(loop: Loop, entries: list[Entry]) -> list[list[dict[str, Any]]]:
    """All that is listed, reply for reply."""
    accounts, journal = Accounts(Quota(), 10_000), Journal.create()
    realms = {SHARED: {entry.name: entry for entry in entries}}
    ledger = Ledger(journal, realms, loop, "")
    registry = Registry(loop, ledger, realms, 60.0)
    try:
        return list(replies(Report(registry, None, accounts, ledger)))  # type: ignore[arg-type]  # nobody asks for counters
    finally:
        registry._maker.close()
        registry.hangups._epoll.close()
        journal.close()


def replies(report: Report) -> Iterator[list[dict[str, Any]]]:
    offset: Any = 0
    while offset is not None:
        reply: Any = report._list({"prefix": "", "offset": offset, "limit": None})
        assert len(json.dumps(reply)) < MOST
        assert reply["names"]
        yield reply["names"]
        offset = reply["next"]


def name(id: int, text: str, maps: int = 0, payload: bytes = MAP) -> Entry:
    entry = make_entry(id, text)
    entry.users = tuple(UserNamespace(-1, number, 0, payload) for number in range(maps))
    return entry


def test_one_name_with_more_maps_than_a_reply_has_room_for(loop: Loop) -> None:
    ((row,), *others) = pages(loop, [name(1, '"' * 65_000, 500)])
    assert others == []
    assert len(row["users"]) > 20
    assert len(row["users"]) + row["users_left_out"] == 500


def test_many_short_maps(loop: Loop) -> None:
    ((row,),) = pages(loop, [name(1, "a", 50_000, b"")])
    assert len(row["users"]) + row["users_left_out"] == 50_000


def test_many_names_with_long_maps(loop: Loop) -> None:
    found = pages(loop, [name(id, f"n{id}" + '"' * 30_000, 30) for id in range(20)])
    assert [row["name"].strip('"') for rows in found for row in rows] == [f"n{id}" for id in range(20)]
    assert {row["users_left_out"] for rows in found for row in rows} == {0}


def test_many_short_names(loop: Loop) -> None:
    found = pages(loop, [name(id, f"n{id}") for id in range(PAGE + 5)])
    assert [len(rows) for rows in found] == [PAGE, 5]
