"""The part of the log that is read back: no process, nothing in the store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.workers.accessory.entries import entry as make_entry
from workers.accessory.entry import NAME_UNIT, Accounts
from workers.accessory.ledger import LoggedName, read_lines, recover
from workers.accessory.options import Quota

ACCOUNTS = Accounts(Quota(), 10_000)


def test_clocks_go_on_over_any_number_of_crashes() -> None:
    """A rewritten record has the same content."""
    known = LoggedName(1, -1, 0, 5_000, "a")
    for now in (4.2, 4.3, 6.0, 9.0):
        ((entry,), _) = recover({1: known}, {}, ACCOUNTS, now)
        assert entry.touched == min(5.0, now)
        known = replace(known, until=round(entry.noted_until * 1000))
        assert known.until == 5_000


def test_a_lease_that_ended_meanwhile_ended_now() -> None:
    ((entry,), _) = recover({1: LoggedName(1, -1, 0, 5_000, "a", leased=True)}, {}, ACCOUNTS, 7.0)
    assert (entry.touched, entry.noted_until) == (7.0, 7.0)


@pytest.mark.parametrize("number", [1, 2, 3, 1000])
def test_leases_come_and_go(number: int) -> None:
    entry = make_entry()
    for fd in range(number):
        entry.add_lease(fd)
    assert sorted(entry.leases) == list(range(number))
    for fd in reversed(range(number)):
        assert entry.is_leased
        entry.end_lease(fd)
    assert not entry.is_leased


def test_a_long_name_counts_as_several() -> None:
    assert [make_entry(name="n" * size).weight for size in (1, NAME_UNIT - 1, NAME_UNIT, 60_000)] == [
        1, 1, 2, 235,
    ]  # fmt: skip


def test_an_id_that_was_given_again_is_the_last_ones() -> None:
    lines = [b"N 2 -1 0 5 undone", b"P 2 70 80", b"N 2 -1 0 6 given", b"L 2", b"N 2 -1 0 7 given"]
    known, damaged = read_lines(lines)
    assert damaged == 0
    assert known == {2: LoggedName(2, -1, 0, 6, "given", leased=True)}


def test_what_the_store_has_of_nobody_is_told() -> None:
    entries, unknown = recover({1: LoggedName(1, -1, 0, 5_000, "a")}, {"n1": [0], "n2": [0], "x": []}, ACCOUNTS, 7.0)
    assert [entry.descriptors() for entry in entries] == [[]], "it is no namespace and no lease"
    assert unknown == ["n2", "x"]
