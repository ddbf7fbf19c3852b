"""Plans whose common steps are kept from one start to the next."""

from __future__ import annotations

import gc
import resource
from collections.abc import Callable
from functools import _lru_cache_wrapper
from itertools import permutations
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.definitions.service import Service
from supervisor.launch.program import Arrival
from supervisor.process import child_descriptors, launch_plan
from supervisor.process.child_descriptors import USUAL
from supervisor.process.files import Rights
from supervisor.process.launch import Launch, Source
from supervisor.process.launch_plan import LARGEST_KEPT, MOST_KEPT, Plans, descriptors, make_plan
from supervisor.process.paths import Mark
from tests.unit.choices import Choices, choices
from tests.unit.process.forked import in_child

SOURCES: list[Source] = ["/dev/null", 20, 21, 22, 23]
FUNCTIONS: tuple[Callable[..., Any], ...] = tuple(
    value
    for module in (child_descriptors, launch_plan)
    for value in vars(module).values()
    if isinstance(value, _lru_cache_wrapper)
)


def service_of(choices: Choices) -> Service:
    limits = {name: (choices.below(3), choices.below(3)) for name in choices.some(["core", "nofile"])}
    return Service(
        "test",
        uid=choices.below(3),
        gid=choices.below(3),
        gids=tuple([choices.below(3) for _ in range(choices.below(3))]),
        cwd=choices.one(["/", "/srv"]),
        umask=choices.one([0o022, 0o077]),
        oom_score_adj=choices.one([None, 0, 1, 2]),
        capabilities=choices.one([None, ()]),
        no_new_privs=choices.flag(),
        limits=limits,
        watchdog=choices.one([None, 1.0]),
    )


def start_of(choices: Choices) -> tuple[Launch, Arrival, bool]:
    service = service_of(choices)
    rights = choices.one([None, Rights(service.uid, service.gid, service.gids)])
    stdin, stdout, stderr, *others = [choices.one(SOURCES) for _ in range(3 + choices.below(4))]
    launch = Launch(
        argv=("/bin/true",), env={"A": "1"}, service=service, stdio=(stdin, stdout, stderr), error_fd=9,
        fds=tuple([("n", source) for source in others]),
        nofile_soft=1 + choices.below(3), is_root=choices.flag(), keyring=choices.flag(), rights=rights,
        spared=choices.flag(), ignored=choices.below(3), watchdog_usec=choices.below(3),
        worker=choices.flag(),
    )  # fmt: skip
    fds = sorted(descriptors(launch))
    sent = tuple(choices.some(fds))
    numbers = choices.one(list(permutations(range(6)))[::3])  # 240, as a choice is one of 256
    arrival = Arrival(dict(zip(fds, numbers, strict=False)), numbers[-1], tuple({*fds} - {*sent}), sent)
    return launch, arrival, choices.flag()


STARTS = choices(30, 60).map(start_of)


def plan_of(start: tuple[Launch, Arrival, bool]) -> bytes:
    launch, arrival, hears = start
    return make_plan(launch, arrival, hears)


@settings(max_examples=200, deadline=None)
@given(st.lists(STARTS, min_size=2, max_size=4))
def test_kept_steps_are_those_of_the_same_values(several: list[tuple[Launch, Arrival, bool]]) -> None:
    kept = [plan_of(start) for start in several]
    for start, plan in zip(several, kept, strict=True):
        for function in FUNCTIONS:
            function.cache_clear()  # type: ignore[attr-defined]
        assert plan_of(start) == plan


def launch_of(number: int, **changes: Any) -> Launch:
    fields: dict[str, Any] = {"argv": ("/bin/true",), "env": {}, "fds": ()}
    return Launch(
        service=Service("test", uid=number, cwd=f"/{number}"), error_fd=9, stdio=("/dev/null",) * 3, nofile_soft=1024,
        is_root=True, **(fields | changes),
    )  # fmt: skip


def test_few_results_are_kept_and_none_of_a_large_table() -> None:
    for function in FUNCTIONS:
        function.cache_clear()  # type: ignore[attr-defined]
    for number in range(300):
        fds = tuple([("n", 20 + place) for place in range(number)])
        make_plan(launch_of(number, fds=fds), Arrival({fd: fd for _, fd in fds}, 9))
    for function in FUNCTIONS:
        assert function.cache_info().currsize <= 64  # type: ignore[attr-defined]
    assert child_descriptors._arranged.cache_info().misses == USUAL - 2  # with 3 descriptors more than are in `fds`


def test_environments_and_arguments_are_not_kept() -> None:
    plan = make_plan(launch_of(1, argv=("/bin/true", "s3cret"), env={"A": "s3cret"}), Arrival({}, 9))
    kept = repr([gc.get_referents(function) for function in FUNCTIONS])
    assert plan.count(b"s3cret") == 2
    assert "wait for the supervisor" in kept
    assert "s3cret" not in kept


# another value for each field of a `Launch` but `error_fd` and those that the plan does not depend on
CHANGED: dict[str, Any] = {
    "argv": ("/bin/false",), "env": {"A": "2"}, "service": Service("test", nice=3), "stdio": ("/dev/null", 20, 20),
    "nofile_soft": 3, "is_root": False, "env_files": ("/env",), "fds": (("n", 20),), "ready": (5, 21),
    "notify_socket": "/run/n", "watchdog_usec": 7, "cgroup": "/sys/fs/cgroup/x", "mark": "m", "worker": True,
    "spared": True, "keyring": True, "rights": Rights(5, 6), "marks": (Mark(3, "/run/socket", 1, 2, True),),
    "emptied": (3,), "rewound": (3,), "ignored": 5, "acceptor": 9, "argv0": "x",
}  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(STARTS, min_size=2, max_size=6))
def test_a_service_that_starts_again_gets_the_plan_of_its_values(several: list[tuple[Launch, Arrival, bool]]) -> None:
    plans = Plans()
    for start in [start for start in several for _ in range(2)]:
        assert plans.plan(*start) == plan_of(start)


def test_every_value_of_a_start_makes_another_plan() -> None:
    assert {"error_fd", *CHANGED} == {*Launch._fields}
    plans, arrival = Plans(), Arrival({20: 3, 21: 4}, 9)
    for name, value in CHANGED.items():
        launch = launch_of(0, env={"A": "1"})
        first = plans.plan(launch, arrival)
        assert plans.plan(launch._replace(error_fd=99), arrival) is first
        assert plans.plan(launch._replace(**{name: value}), arrival) != first, name
    assert plans.plan(launch, Arrival({20: 3, 21: 4}, 10)) != plans.plan(launch, arrival)
    assert plans.plan(launch, arrival, False) != plans.plan(launch, arrival, True)


def test_a_changed_limit_of_spawnd_makes_another_plan() -> None:
    def lower() -> object:
        plans, launch = Plans(), launch_of(1)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        first = plans.plan(launch, Arrival({}, 9))
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 500), 500))
        now = plans.plan(launch, Arrival({}, 9))
        return hard > 500, now != first, now == make_plan(launch, Arrival({}, 9))

    assert in_child(lower) == (True, True, True)


def named(name: str, **changes: Any) -> Launch:
    return launch_of(1, **changes)._replace(service=Service(name))


def test_plans_are_kept_for_the_services_that_start_last() -> None:
    plans, arrival = Plans(), Arrival({}, 9)
    first = [plans.plan(named(f"s{number}"), arrival) for number in range(MOST_KEPT)]
    assert plans.plan(named("s0"), arrival) is first[0]
    plans.plan(named("one more"), arrival)
    assert plans.plan(named("s0"), arrival) is first[0]
    assert plans.plan(named("s2"), arrival) is first[2]
    assert plans.plan(named("s1"), arrival) is not first[1]


def test_neither_a_large_plan_nor_one_of_a_service_at_rest_is_kept() -> None:
    plans, arrival = Plans(), Arrival({}, 9)
    large = named("test", env={"A": "s3cret" * (LARGEST_KEPT // 6)})
    assert plans.plan(large, arrival) is not plans.plan(large, arrival)
    small = plans.plan(named("test"), arrival)
    plans.pop("test")
    assert plans.plan(named("test"), arrival) is not small
    plans.plan(large, arrival)
    assert "s3cret" not in repr(gc.get_referents(plans))
    assert not plans
