"""The services that start and stop for an order."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from supervisor.definitions.service import Service
from supervisor.lifecycle.dependencies import conflicts, satisfies
from supervisor.lifecycle.life import Cause, Life, State, Then, comes_up, is_down
from supervisor.lifecycle.transaction import Down, Standing, Transaction, Up
from tests.unit.choices import Choices, choices

RUNNING, STOPPED, FAILED, BACKOFF = (Life(State(each)) for each in ("running", "stopped", "failed", "backoff"))


def standing(services: list[Service], lives: dict[str, Life] | None = None, stopping: Collection[str] = ()) -> Standing:
    """Of services that are stopped unless `lives` says otherwise."""
    by_name = {service.name: service for service in services}
    return Standing(by_name, dict.fromkeys(by_name, STOPPED) | (lives or {}), conflicts(by_name), stopping)


def service(name: str, **keys: Any) -> Service:
    return Service(name, exec="/bin/true", **keys)


DB, APP, WEB = service("db"), service("app", depends=("db",)), service("web", depends=("app",))


def test_what_is_needed_and_down_comes_along_in_order() -> None:
    transaction = Transaction(standing([WEB, APP, DB]))
    transaction.bring_up(["web"])
    assert list(transaction.up.items()) == [
        ("db", Up(False, needed_by="app")),
        ("app", Up(False, needed_by="web")),
        ("web", Up(False)),
    ]
    assert transaction.down == {}


def test_what_is_needed_and_up_is_left_alone() -> None:
    transaction = Transaction(standing([DB, APP, WEB], {"db": RUNNING, "app": RUNNING}))
    transaction.bring_up(["web"], renew=True, cause=Cause.SIGNAL)
    assert transaction.up == {"web": Up(True, Cause.SIGNAL)}


def test_what_is_needed_and_about_to_stop_is_kept() -> None:
    transaction = Transaction(standing([DB, APP], {"db": RUNNING}, stopping={"db"}))
    transaction.bring_up(["app"])
    assert transaction.up == {"db": Up(False, needed_by="app"), "app": Up(False)}


def test_a_stop_that_was_just_ordered_is_not_for_what_somebody_needs() -> None:
    transaction = Transaction(standing([DB, APP], {"db": RUNNING, "app": RUNNING}))
    transaction.stop(["db"], Cause.DEFINITION)
    assert transaction.down == {"db": Down(Cause.DEFINITION)}
    transaction.bring_up(["app"], renew=True)
    assert transaction.down == {}
    assert transaction.up == {"db": Up(False, needed_by="app"), "app": Up(True)}


def test_what_has_changed_is_renewed_whatever_brings_it_up() -> None:
    transaction = Transaction(standing([DB, APP], {"db": RUNNING}), changed={"db"})
    transaction.stop(["db"], Cause.DEFINITION)
    transaction.bring_up(["app"])
    assert transaction.up["db"] == Up(True, Cause.DEFINITION, "app")


def test_what_is_in_conflict_goes_down() -> None:
    day, night, noon = service("day", conflicts=("night",)), service("night"), service("noon", conflicts=("day",))
    transaction = Transaction(standing([day, night, noon], {"night": RUNNING}))
    transaction.bring_up(["day"])
    assert transaction.down == {"night": Down(Cause.CONFLICT, "day")}
    transaction.bring_up(["night"])
    assert (list(transaction.up), transaction.down) == (["night"], {}), "the later one wins, and day was down anyway"
    assert transaction.displaced == {"day": "night"}
    transaction.bring_up(["day"])
    assert (list(transaction.up), list(transaction.down), transaction.displaced) == (["day"], ["night"], {})


def test_those_at_rest_are_not_stopped() -> None:
    lives = {"db": STOPPED, "app": FAILED, "web": BACKOFF}
    transaction = Transaction(standing([DB, APP, WEB], lives))
    transaction.stop(lives, Cause.DEFINITION)
    assert list(transaction.down) == ["web"]


def test_whether_it_is_wanted() -> None:
    stopping = Life(State.STOPPING, then=Then.REST)
    lives = {"db": RUNNING, "app": stopping, "web": stopping._replace(then=Then.START)}
    now = standing([DB, APP, WEB], lives)
    assert [name for name in lives if now.is_wanted(name)] == ["db", "web"]
    assert not standing([DB], {"db": RUNNING}, stopping={"db"}).is_wanted("db")


NAMES = "abcdef"
LIVES = [Life(state, then=then) for state in State for then in Then]


def world_of(choices: Choices) -> Standing:
    """Return services that need some of those before them and conflict with any."""
    services = []
    for number, name in enumerate(NAMES):
        depends = choices.some(NAMES[:number])
        rivals = {choices.one(NAMES)} - {name, *depends}  # none in some cases
        services.append(service(name, depends=tuple(depends), conflicts=tuple(rivals), task=choices.flag()))
    lives = {name: choices.one(LIVES) for name in NAMES}
    return standing(services, lives, choices.some(NAMES))


WORLDS = choices(30, 60).map(world_of)


@given(WORLDS, st.lists(st.tuples(st.booleans(), st.lists(st.sampled_from(NAMES), unique=True)), max_size=4))
def test_what_holds_for_all_moves(world: Standing, orders: list[tuple[bool, list[str]]]) -> None:
    transaction = Transaction(world, changed={"b", "d"})
    for brings_up, names in orders:
        transaction.bring_up(names, renew=True) if brings_up else transaction.stop(names, Cause.STOP)
    assert not transaction.up.keys() & transaction.down.keys()
    assert not (transaction.up.keys() | transaction.down.keys()) & transaction.displaced.keys()
    assert not any(is_down(world.lives[name]) for name in transaction.down)
    for name, up in transaction.up.items():
        assert up.renew or name not in ("b", "d")
        assert not world.conflicts.get(name, set()) & transaction.up.keys(), "two in conflict"


@given(WORLDS, st.sampled_from(NAMES))
def test_one_that_is_brought_up_has_all_that_it_needs(world: Standing, name: str) -> None:
    transaction = Transaction(world._replace(conflicts={}))
    transaction.bring_up([name])
    assert name in transaction.up
    for other in world.services[name].depends:
        life = world.lives[other]
        there = other not in world.stopping and (satisfies(world.services[other], life) or comes_up(life))
        assert there or other in transaction.up
