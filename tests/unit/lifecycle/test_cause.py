"""From a service that does not run to the root of that."""

from __future__ import annotations

import errno
from itertools import product

import pytest

from supervisor.lifecycle.cause import Kind, last_restart
from supervisor.lifecycle.dependencies import Hold, Obstacle
from supervisor.lifecycle.life import Cause, Ended, State, Step, Then
from tests.unit.lifecycle.world import Subject, links_of, subject

RUNNING, WAITING, FAILED, STOPPED = State.RUNNING, State.WAITING, State.FAILED, State.STOPPED
KILLED = Ended(signum=9, signal="KILL")


def path(*subjects: Subject) -> list[tuple[str, Kind, str]]:
    return [(link.name, link.kind, link.other) for link in links_of(*subjects)]


def kind(subject: Subject) -> Kind:
    (link,) = links_of(subject)
    return link.kind


# one that nothing holds back


@pytest.mark.parametrize(
    ("state", "cause", "expected"),
    [
        (State.RUNNING, Cause.EXIT, Kind.RUNNING),
        (State.RELOADING, Cause.START, Kind.RUNNING),
        (State.DONE, Cause.EXIT, Kind.DONE),
        (State.WAITING, Cause.START, Kind.STARTING),
        (State.WAITING, Cause.EXIT, Kind.STARTING),
        (State.STARTING, Cause.START, Kind.STARTING),
        (State.STOPPED, Cause.NEW, Kind.NOT_STARTED),
        (State.STOPPED, Cause.STOP, Kind.STOPPED),
        (State.STOPPED, Cause.RESET, Kind.RESET),
        (State.STOPPED, Cause.CONFLICT, Kind.CONFLICT),
        (State.STOPPED, Cause.DEFINITION, Kind.DEFINITION),
        (State.STOPPED, Cause.REMOVED, Kind.REMOVED),
        (State.STOPPED, Cause.SHUTDOWN, Kind.SHUTDOWN),
        (State.STOPPED, Cause.EXIT, Kind.ENDED),
        (State.BACKOFF, Cause.CHECK, Kind.CHECK),
        (State.FAILED, Cause.CHECK_LATE, Kind.CHECK),
        (State.BACKOFF, Cause.NOT_READY, Kind.NOT_READY),
        (State.FAILED, Cause.WATCHDOG, Kind.WATCHDOG),
    ],
)
def test_by_state_and_cause(state: State, cause: Cause, expected: Kind) -> None:
    assert kind(subject("a", state, cause=cause, ended=KILLED)) is expected


@pytest.mark.parametrize(
    ("then", "cause", "expected"),
    [
        (Then.REST, Cause.STOP, Kind.STOPPED),
        (Then.REST, Cause.CONFLICT, Kind.CONFLICT),
        (Then.REST, Cause.DEFINITION, Kind.DEFINITION),
        (Then.REST, Cause.REMOVED, Kind.REMOVED),
        (Then.REST, Cause.SHUTDOWN, Kind.SHUTDOWN),
        (Then.START, Cause.START, Kind.RESTART),
        (Then.START, Cause.RESTART, Kind.RESTART),
        (Then.START, Cause.SIGNAL, Kind.RESTART_SIGNAL),
        (Then.START, Cause.NAMESPACE, Kind.NAMESPACE),
        (Then.START, Cause.DEFINITION, Kind.DEFINITION),
        (Then.FAIL, Cause.WATCHDOG, Kind.WATCHDOG),
        (Then.FAIL, Cause.NOT_READY, Kind.NOT_READY),
        (Then.FAIL, Cause.CHECK_LATE, Kind.CHECK),
    ],
)
def test_while_it_stops(then: Then, cause: Cause, expected: Kind) -> None:
    assert kind(subject("a", State.STOPPING, then=then, cause=cause)) is expected


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        (None, Kind.EXIT),
        (Ended(), Kind.EXIT),
        (Ended(status=3), Kind.EXIT),
        (KILLED, Kind.SIGNAL),
        (Ended(signum=9, signal="KILL", out_of_memory=True), Kind.OUT_OF_MEMORY),
        (Ended(status=137, out_of_memory=True), Kind.OUT_OF_MEMORY),
        (Ended.of_step("exec", "/x", errno.ENOENT, "No such file or directory"), Kind.SETUP),
        (Ended.of_step("bind tcp 0.0.0.0:80", "", errno.EADDRINUSE, "Address already in use"), Kind.ADDRESS),
    ],
)
def test_by_the_end_of_its_process(ended: Ended | None, expected: Kind) -> None:
    assert kind(subject("a", State.BACKOFF, cause=Cause.EXIT, ended=ended)) is expected
    assert kind(subject("a", State.FAILED, cause=Cause.EXIT, ended=ended)) is expected


def test_every_life_has_a_kind() -> None:
    for state, cause, then, step in product(State, Cause, Then, Step):
        one = subject("a", state, cause=cause, then=then, step=step)
        assert len(links_of(one)) == 1


def test_who_it_was_stopped_for_is_known() -> None:
    stopped = subject("a", STOPPED, cause=Cause.CONFLICT, other="b", keys={"conflicts": ("b",)})
    assert path(stopped, subject("b", RUNNING)) == [("a", Kind.CONFLICT, "b")]


# one that another holds back


def test_the_chain_goes_on_to_the_root() -> None:
    web = subject("web", WAITING, keys={"depends": ("ok", "app")})
    app = subject("app", WAITING, keys={"depends": ("db",)})
    db = subject("db", FAILED, cause=Cause.EXIT, ended=Ended(status=1))
    assert path(web, app, db, subject("ok", RUNNING)) == [
        ("web", Kind.DEPENDENCY, "app"),
        ("app", Kind.DEPENDENCY, "db"),
        ("db", Kind.EXIT, ""),
    ]


@pytest.mark.parametrize("state", sorted(set(State) - {State.RUNNING, State.RELOADING, State.ASLEEP, State.WAITING}))
def test_a_dependency_that_is_not_up_is_the_root(state: State) -> None:
    links = links_of(subject("a", WAITING, keys={"depends": ("b",)}), subject("b", state, cause=Cause.EXIT))
    assert [link.name for link in links] == ["a", "b"]
    assert links[0].kind is Kind.DEPENDENCY


def test_a_dependency_that_is_not_defined() -> None:
    assert path(subject("a", WAITING, keys={"depends": ("b",)})) == [
        ("a", Kind.DEPENDENCY, "b"),
        ("b", Kind.UNDEFINED, ""),
    ]


def test_a_task_that_has_not_ended_is_the_root() -> None:
    waits = subject("a", WAITING, keys={"depends": ("job",)})
    assert path(waits, subject("job", RUNNING, keys={"task": True}))[-1] == ("job", Kind.RUNNING, "")
    assert path(waits, subject("job", State.DONE, keys={"task": True})) == [("a", Kind.STARTING, "")]


def test_order_alone() -> None:
    waits = subject("a", WAITING, keys={"after": ("b",)})
    assert path(waits, subject("b", State.STARTING)) == [("a", Kind.ORDER, "b"), ("b", Kind.STARTING, "")]
    assert path(waits, subject("b", FAILED)) == [("a", Kind.STARTING, "")]


def test_a_conflict_whichever_of_the_two_says_so() -> None:
    expected = [("a", Kind.CONFLICT, "b"), ("b", Kind.CONFLICT, "a")]
    for mine, its in (({"conflicts": ("b",)}, {}), ({}, {"conflicts": ("a",)})):
        other = subject("b", State.STOPPING, keys=its, then=Then.REST, cause=Cause.CONFLICT, other="a")
        assert path(subject("a", WAITING, keys=mine), other) == expected


def test_an_address_that_another_one_is_about_to_give_up() -> None:
    waits = subject("a", WAITING, obstacle=Obstacle(Hold.ADDRESS, "b"))
    stops = subject("b", State.STOPPING, cause=Cause.REMOVED)
    assert path(waits, stops) == [("a", Kind.ADDRESS, "b"), ("b", Kind.REMOVED, "")]
    # what holds it back by its life comes first, and is looked at anew
    needs = subject("a", WAITING, obstacle=Obstacle(Hold.ADDRESS, "b"), keys={"depends": ("c",)})
    assert path(needs, stops, subject("c", FAILED))[0] == ("a", Kind.DEPENDENCY, "c")
    stale = subject("a", WAITING, obstacle=Obstacle(Hold.DEPENDS, "c"), keys={"depends": ("c",)})
    assert path(stale, subject("c", RUNNING)) == [("a", Kind.STARTING, "")]


def test_what_holds_back_only_while_it_waits() -> None:
    assert kind(subject("a", RUNNING, keys={"depends": ("b",)})) is Kind.RUNNING


def test_a_circle_ends() -> None:
    one = subject("a", WAITING, obstacle=Obstacle(Hold.ADDRESS, "b"))
    other = subject("b", WAITING, obstacle=Obstacle(Hold.ADDRESS, "a"))
    assert path(one, other) == [("a", Kind.ADDRESS, "b"), ("b", Kind.ADDRESS, "a")]


def test_a_long_chain() -> None:
    subjects = [subject(f"s{n}", WAITING, keys={"depends": (f"s{n + 1}",)}) for n in range(2000)]
    links = links_of(*subjects, subject("s2000", FAILED, cause=Cause.WATCHDOG))
    assert (len(links), links[-1].kind) == (2001, Kind.WATCHDOG)


# one that runs


@pytest.mark.parametrize(
    ("cause", "restarts", "expected"),
    [
        (Cause.START, 0, None),
        (Cause.RESTART, 0, Kind.RESTART),
        (Cause.DEFINITION, 0, Kind.DEFINITION),
        (Cause.SIGNAL, 0, Kind.RESTART_SIGNAL),
        (Cause.NAMESPACE, 0, Kind.NAMESPACE),
        (Cause.EXIT, 1, Kind.SIGNAL),
        (Cause.WATCHDOG, 2, Kind.WATCHDOG),
    ],
)
def test_what_its_last_restart_was_for(cause: Cause, restarts: int, expected: Kind | None) -> None:
    assert last_restart(subject("a", RUNNING, cause=cause, restarts=restarts, ended=KILLED)) is expected
