from __future__ import annotations

from tests.unit.workers.accessory.entries import entry as make_entry
from workers.accessory.entry import LONGEST, MOST_ANSWERS, Answer, AnswerCache, Entry
from workers.accessory.rights import SHARED, Rights


def answer(entry: Entry) -> Answer:
    return entry, [b"reply"], []


def entry(name: str = "a") -> Entry:
    return make_entry(1, name)


def test_what_is_remembered_is_forgotten_with_the_entry() -> None:
    one, other = AnswerCache(Rights(0, 0, SHARED)), AnswerCache(Rights(5, 5, SHARED))
    about = entry()
    for cache in (one, other):
        cache.remember(b"request", answer(about))
        assert cache.answers[b"request"][0] is about
    about.forget_answers()
    assert (one.answers, other.answers, about.answers) == ({}, {}, ())


def test_the_oldest_makes_room_and_leaves_nothing() -> None:
    cache, about = AnswerCache(Rights(0, 0, SHARED)), entry()
    for number in range(MOST_ANSWERS * 3):
        cache.remember(b"%d" % number, answer(about))
    assert len(cache.answers) == len(about.answers) == MOST_ANSWERS
    assert b"0" not in cache.answers


def test_what_is_long_is_not_remembered() -> None:
    cache, about = AnswerCache(Rights(0, 0, SHARED)), entry()
    cache.remember(b"x" * (LONGEST + 1), answer(about))
    assert (cache.answers, about.answers) == ({}, ())
