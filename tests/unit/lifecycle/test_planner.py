"""The effect of new definitions on services, by their states."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest

from supervisor.definitions.service import Definitions, Descriptor, Service, Settings
from supervisor.lifecycle.life import AT_REST, Cause, Life, State, Then
from supervisor.lifecycle.plan import Effect, Plan, make_plan
from supervisor.lifecycle.transaction import Up

RUNNING, STOPPED = Life(State.RUNNING, starts=3), Life()
SOCKET = Descriptor("tcp", host="127.0.0.1", port=80)


def service(name: str = "a", **keys: Any) -> Service:
    return Service(name, exec="/bin/true", **keys)


def planned(
    old: Collection[Service],
    new: Collection[Service],
    lives: dict[str, Life] | None = None,
    stopping: Collection[str] = (),
    reloads: bool = False,
) -> Plan:
    """The plan; what was defined runs unless `lives` says otherwise."""
    before = Definitions({each.name: each for each in old})
    after = Definitions({each.name: each for each in new})
    return make_plan(before, dict.fromkeys(before.services, RUNNING) | (lives or {}), stopping, after, reloads)


def effects(plan: Plan) -> dict[str, tuple[Effect, str]]:
    return {name: (entry.effect, entry.reason) for name, entry in plan.services.items()}


def test_nothing_at_all() -> None:
    plan = planned([service()], [service(line=9)])
    assert plan.is_empty()
    assert (plan.transaction.up, plan.transaction.down) == ({}, {})


CASES: dict[str, tuple[dict[str, Any], Effect, str]] = {
    "adopt": ({"stop_timeout": 3.0}, Effect.ADOPT, "takes effect at once: stop_timeout changed"),
    "limits": ({"resources": {"memory_max": "1"}}, Effect.LIMITS, "memory_max changed"),
    "restart": ({"cwd": "/srv", "umask": 0}, Effect.RESTART, "cwd, umask changed"),
    "rebuild": ({"cwd": "/srv", "fd": (SOCKET,)}, Effect.REBUILD, "cwd, fd changed"),
    "stop": ({"cwd": "/srv", "autostart": False}, Effect.STOP, 'its status is "stop"'),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("state", [State.STARTING, State.RUNNING, State.RELOADING])
def test_one_that_has_a_process(case: str, state: State) -> None:
    keys, effect, reason = CASES[case]
    plan = planned([service()], [service(**keys)], {"a": Life(state, starts=3)})
    assert effects(plan) == {"a": (effect, reason)}
    assert not plan.services["a"].deferred
    assert plan.services["a"].starts == 3
    renewed = {"a": Up(True, Cause.DEFINITION)}
    assert plan.transaction.up == (renewed if effect in (Effect.RESTART, Effect.REBUILD) else {})
    assert list(plan.transaction.down) == (["a"] if effect is Effect.STOP else [])


@pytest.mark.parametrize("state", [State.STOPPED, State.DONE])
@pytest.mark.parametrize("case", ["limits", "restart", "rebuild"])
def test_one_that_is_down_stays_down(case: str, state: State) -> None:
    keys, _effect, _reason = CASES[case]
    plan = planned([service()], [service(**keys)], {"a": Life(state)})
    (entry,) = plan.services.values()
    assert (entry.effect, entry.deferred) == (Effect.ADOPT, True)
    assert entry.reason.startswith("takes effect at its next start: ")
    assert (plan.transaction.up, plan.transaction.down) == ({}, {})


@pytest.mark.parametrize("state", [State.FAILED, State.BACKOFF])
def test_one_that_has_failed_is_tried_again(state: State) -> None:
    plan = planned([service()], [service(cwd="/srv")], {"a": Life(state)})
    assert effects(plan) == {"a": (Effect.START, "tried again: cwd changed")}
    assert planned([service()], [service(nice=None, stop_timeout=1.0)], {"a": Life(state)}).transaction.up == {}


def test_one_that_starts_anyway_has_its_new_definition_then() -> None:
    for life in (Life(State.WAITING), Life(State.STOPPING, then=Then.START)):
        plan = planned([service()], [service(cwd="/srv")], {"a": life})
        assert effects(plan) == {"a": (Effect.ADOPT, "takes effect as it starts: cwd changed")}
    plan = planned([service()], [service(cwd="/srv")], {"a": Life(State.STOPPING, then=Then.FAIL)})
    assert effects(plan) == {"a": (Effect.START, "tried again: cwd changed")}


@pytest.mark.parametrize(
    ("life", "stopping"), [(Life(State.STOPPING, then=Then.REST), ()), (RUNNING, ("a",)), (Life(State.WAITING), ("a",))]
)
def test_what_is_being_stopped_is_not_revived(life: Life, stopping: Collection[str]) -> None:
    plan = planned([service()], [service(cwd="/srv")], {"a": life}, stopping)
    assert effects(plan) == {"a": (Effect.ADOPT, "takes effect at its next start: cwd changed")}
    assert plan.transaction.up == {}


def test_what_comes_and_what_goes() -> None:
    old = [service("gone"), service("idle"), service("same")]
    new = [service("fresh"), service("off", autostart=False), service("same")]
    plan = planned(old, new, {"idle": STOPPED})
    assert effects(plan) == {
        "fresh": (Effect.START, "new"),
        "off": (Effect.ADOPT, 'new; its status is "stop"'),
        "gone": (Effect.STOP, "no longer defined"),
        "idle": (Effect.ADOPT, "no longer defined"),
    }
    assert plan.kinds.keys() == {"same"}


def test_status() -> None:
    on, off = service(), service(autostart=False)
    assert effects(planned([off], [on], {"a": STOPPED})) == {"a": (Effect.START, 'its status is "start"')}
    assert effects(planned([off], [on]))["a"] == (Effect.ADOPT, "takes effect at once: status changed")
    assert effects(planned([on], [off])) == {"a": (Effect.STOP, 'its status is "stop"')}
    assert effects(planned([on], [off], {"a": STOPPED})) == {
        "a": (Effect.ADOPT, "takes effect at once: status changed")
    }
    assert effects(planned([off], [replace(on, cwd="/srv")]))["a"][0] is Effect.RESTART


def test_what_follows_for_others() -> None:
    db, web = service("db"), service("web", depends=("db",))
    rival = service("rival")
    plan = planned(
        [db, web, rival], [db, replace(web, cwd="/srv"), rival, service("x", conflicts=("rival",))], {"db": STOPPED}
    )
    assert effects(plan) == {
        "db": (Effect.START, "web needs it"),
        "web": (Effect.RESTART, "cwd changed"),
        "rival": (Effect.STOP, "conflicts with x"),
        "x": (Effect.START, "new"),
    }


def test_what_somebody_needs_stays_up() -> None:
    db, web = service("db"), service("web", depends=("db",))
    plan = planned([db, web], [replace(db, autostart=False), replace(web, cwd="/srv")])
    assert effects(plan)["db"] == (Effect.ADOPT, "stays up, web needs it")
    changed = replace(db, autostart=False, cwd="/srv")
    assert effects(planned([db, web], [changed, replace(web, cwd="/srv")]))["db"] == (Effect.RESTART, "web needs it")


def test_of_two_new_ones_in_conflict_the_later_is_started() -> None:
    plan = planned([], [service("a", conflicts=("b",)), service("b")])
    assert effects(plan) == {"a": (Effect.ADOPT, "new; conflicts with b"), "b": (Effect.START, "new")}


def test_what_waited_for_one_that_comes_now() -> None:
    db, web = service("db"), service("web", depends=("db",))
    lives = {"db": Life(State.FAILED), "web": Life(State.WAITING)}
    plan = planned([db, web], [replace(db, cwd="/srv"), web], lives)
    assert effects(plan) == {
        "db": (Effect.START, "tried again: cwd changed"),
        "web": (Effect.START, "once db is up"),
    }
    plan = planned([db, web], [db, replace(web, depends=())], lives)
    assert effects(plan) == {"web": (Effect.START, "nothing holds it back any more")}
    assert plan.transaction.up == {}, "it starts by itself"


def test_what_waits_for_several_that_are_tried_again() -> None:
    db, cache, web = service("db"), service("cache"), service("web", depends=("db", "cache", "net", "new"))
    lives = {"db": Life(State.FAILED), "cache": Life(State.FAILED), "web": Life(State.WAITING)}
    old = [db, cache, service("net"), web]
    new = [replace(db, cwd="/srv"), replace(cache, cwd="/srv"), service("net"), service("new"), web]
    assert effects(planned(old, new, lives))["web"] == (Effect.START, "once db, cache and new are up")


def test_what_waited_for_a_rival_that_goes() -> None:
    one, other = service("one"), service("other", conflicts=("one",))
    plan = planned([one, other], [replace(other, conflicts=())], {"other": Life(State.WAITING)})
    assert effects(plan)["other"] == (Effect.START, "nothing holds it back any more")


def test_what_waits_for_one_that_is_on_its_way_is_nothing_of_the_plan() -> None:
    db, web = service("db"), service("web", depends=("db",))
    lives = {"db": Life(State.STARTING), "web": Life(State.WAITING)}
    assert planned([db, web], [db, web], lives).is_empty()


def test_what_was_on_its_way_out_and_is_defined_again() -> None:
    going = Life(State.STOPPING, then=Then.REST)
    assert effects(planned([], [service()], {"a": going})) == {"a": (Effect.START, "defined again")}
    plan = planned([], [service()], {"a": RUNNING}, stopping=("a",))
    assert effects(plan) == {"a": (Effect.RESTART, "defined again")}
    assert plan.transaction.up == {"a": Up(True, Cause.DEFINITION)}
    plan = planned([], [service(autostart=False)], {"a": going})
    assert effects(plan) == {"a": (Effect.ADOPT, 'new; its status is "stop"')}


@pytest.mark.parametrize("asked", [False, True])
def test_reloads_are_for_those_who_want_them(asked: bool) -> None:
    keys: dict[str, Any] = {"reload_signal": 1}
    old = [service(name, **keys) for name in ("same", "adopt", "limits", "restart", "down")] + [service("mute")]
    new = [
        old[0],
        replace(old[1], stop_timeout=1.0),
        replace(old[2], resources={"pids_max": "1"}),
        replace(old[3], cwd="/srv"),
        *old[4:],
    ]
    plan = planned(old, new, {"down": STOPPED}, reloads=asked)
    found = {name: (entry.effect, entry.reloads) for name, entry in plan.services.items()}
    assert found == {
        **({"same": (Effect.RELOAD, True)} if asked else {}),
        "adopt": (Effect.RELOAD, True) if asked else (Effect.ADOPT, False),
        "limits": (Effect.LIMITS, asked),
        "restart": (Effect.RESTART, False),
    }


def test_settings() -> None:
    old, new = Settings(log_level="info", cgroup="/x"), Settings(log_level="debug", places={"log_level": "/a.lua:1"})
    plan = make_plan(Definitions(settings=old), {}, (), Definitions(settings=new))
    assert plan.settings == ("log_level", "cgroup")
    assert not plan.is_empty()
    same = Settings(log_level="info", cgroup="/x", places={"cgroup": "/a.lua:7"})
    assert make_plan(Definitions(settings=old), {}, (), Definitions(settings=same)).is_empty()


def test_a_notice_that_compares_services_is_told_where_one_of_them_changes() -> None:
    a, b, c = map(service, "abc")

    def told(*before: Service, after: tuple[Service, ...]) -> tuple[str, ...]:
        old = Definitions({each.name: each for each in before})
        about: dict[str, tuple[str, ...]] = {"shared": ("a", "b")}
        new = Definitions({each.name: each for each in after}, notices=("odd", "shared"), about=about)
        return make_plan(old, dict.fromkeys(old.services, RUNNING), (), new).notices()

    assert told(a, b, c, after=(a, b, c)) == ("odd",)
    assert told(a, b, c, after=(a, b, replace(c, arg=("x",)))) == ("odd",)
    assert told(a, b, c, after=(a, replace(b, arg=("x",)), c)) == ("odd", "shared")
    assert told(a, c, after=(a, b, c)) == ("odd", "shared")


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("then", Then)
@pytest.mark.parametrize("stopping", [(), ("a",)])
def test_there_is_an_answer_for_every_state(state: State, then: Then, stopping: Collection[str]) -> None:
    life = Life(state, then=then)
    others = [service("b", depends=("a",), cwd="/b"), service("c", conflicts=("a",))]
    for new in ([], [service()], [service(cwd="/srv")], [service(autostart=False)], [service(resources={"a": "1"})]):
        for old in ([service()], [service(autostart=False)], []):
            for more in ([], others[:1], others[1:]) if new else ([],):
                assert_sensible(planned(old, [*new, *more], {"a": life}, stopping, reloads=True), state)


def assert_sensible(plan: Plan, state: State) -> None:
    entry = plan.services.get("a")
    assert all(each.reason for each in plan.services.values())
    if entry is None:
        return
    if entry.effect is Effect.STOP:
        assert state not in AT_REST
    if entry.effect in (Effect.RESTART, Effect.REBUILD):
        assert state in (State.STARTING, State.RUNNING, State.RELOADING)
    if entry.effect is Effect.START:
        assert state not in (State.STARTING, State.RUNNING, State.RELOADING)
        assert "a" in plan.transaction.up or state is State.WAITING


def test_what_was_about_to_stop_and_is_needed_stays_or_starts() -> None:
    db, web = service("db"), service("web", depends=("db",))
    for life, effect in ((RUNNING, Effect.ADOPT), (Life(State.WAITING), Effect.START)):
        plan = planned([db, web], [db, replace(web, cwd="/srv")], {"db": life}, stopping=("db",))
        assert plan.services["db"].effect is effect
        assert "web needs it" in plan.services["db"].reason
    limited = replace(db, autostart=False, resources={"pids_max": "1"})
    plan = planned([db, web], [limited, replace(web, cwd="/srv")])
    assert effects(plan)["db"] == (Effect.LIMITS, "pids_max, status changed")
    assert not plan.services["db"].deferred


@pytest.mark.parametrize("state", [State.FAILED, State.BACKOFF])
@pytest.mark.parametrize(
    ("cause", "keys", "reason"),
    [
        (Cause.CHECK, {}, "tried again: it went wrong"),  # what it looked at may have been mended
        (Cause.CHECK, {"check": ("/bin/c",)}, "tried again: check changed"),
        (Cause.CHECK_LATE, {}, "tried again: it went wrong"),
        (Cause.FUNCTION, {"source_digest": "another"}, "tried again: functions changed"),
        (Cause.NOT_READY, {"start_timeout": 1.0}, "tried again: start_timeout changed"),
    ],
)
def test_what_has_failed_for_something_that_may_be_mended_is_tried_again(
    state: State, cause: Cause, keys: dict[str, Any], reason: str
) -> None:
    failed = Life(state, cause=cause, reason="it went wrong", failures=1)
    plan = planned([service()], [service(**keys)], {"a": failed})
    assert effects(plan) == {"a": (Effect.START, reason)}
    assert list(plan.transaction.up) == ["a"]
    assert not planned([service()], [service(**keys)], {"a": failed}, stopping={"a"}).transaction.up


@pytest.mark.parametrize(
    ("cause", "keys"),
    [(Cause.EXIT, {"check": ("/bin/c",)}), (Cause.FUNCTION, {"stop_timeout": 1.0}), (Cause.NOT_READY, {})],
)
def test_what_has_failed_for_something_else_is_left_alone(cause: Cause, keys: dict[str, Any]) -> None:
    failed = Life(State.FAILED, cause=cause, failures=1)
    assert not planned([service()], [service(**keys)], {"a": failed}).transaction.up


def test_a_stop_that_failed_is_no_start_to_be_tried_again() -> None:
    failed = Life(State.FAILED, cause=Cause.FUNCTION)
    assert not planned([service()], [service(source_digest="another")], {"a": failed}).transaction.up


def test_what_is_not_at_its_path_asks_for_another_process() -> None:
    before = Definitions({"a": Service("a", exec="/x"), "b": Service("b", exec="/x", depends=("a",))})
    lives = dict.fromkeys(before.services, RUNNING)
    plan = make_plan(before, lives, (), before, moved={"a": "/run/a was deleted"})
    (entry,) = plan.services.values()
    assert (entry.name, entry.effect, entry.reason, entry.keys) == ("a", Effect.REBUILD, "/run/a was deleted", ())
    assert plan.transaction.up["a"].renew
