from __future__ import annotations

from workers.accessory.entry import Entry
from workers.accessory.rights import SHARED, Rights
from workers.accessory.tenant import LONGEST, MOST_ANSWERS, Answer, Tenant


def answer(entry: Entry) -> Answer:
    return entry, [b"reply"], []


def entry(name: str = "a") -> Entry:
    return Entry(1, SHARED, 0, name, 0.0, 0.0)


def test_what_is_remembered_is_forgotten_with_the_entry() -> None:
    one, other = Tenant(Rights(0, 0, SHARED)), Tenant(Rights(5, 5, SHARED))
    about = entry()
    for tenant in (one, other):
        tenant.remember(b"request", answer(about))
        assert tenant.answers[b"request"][0] is about
    about.forget_answers()
    assert (one.answers, other.answers, about.answers) == ({}, {}, ())


def test_the_oldest_makes_room_and_leaves_nothing() -> None:
    tenant, about = Tenant(Rights(0, 0, SHARED)), entry()
    for number in range(MOST_ANSWERS * 3):
        tenant.remember(b"%d" % number, answer(about))
    assert len(tenant.answers) == len(about.answers) == MOST_ANSWERS
    assert b"0" not in tenant.answers


def test_what_is_long_is_not_remembered() -> None:
    tenant, about = Tenant(Rights(0, 0, SHARED)), entry()
    tenant.remember(b"x" * (LONGEST + 1), answer(about))
    assert (tenant.answers, about.answers) == ({}, ())
