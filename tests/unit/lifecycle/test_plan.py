"""The differences of two definitions, and the steps that they ask for."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from supervisor.definitions.service import KEYS, Accept, Backoff, Change, Descriptor, Service
from supervisor.lifecycle.plan import change, change_of_key, changed_keys

SOCKET = Descriptor("tcp", host="127.0.0.1", port=80)

# Fields of a service: another value for each, and what a running service is put through for it.
CHANGES: dict[str, tuple[Any, Change]] = {
    # known to the service since its start: it has to start anew
    "exec": ("/bin/other", Change.RESTART),
    "worker": ("other", Change.RESTART),
    "options": ({"a": 1}, Change.RESTART),
    "arg": (("-v",), Change.RESTART),
    "env": ({"A": "b"}, Change.RESTART),
    "env_file": (("/etc/env",), Change.RESTART),
    "user": ("other", Change.RESTART),
    "group": ("other", Change.RESTART),
    "groups": (("other",), Change.RESTART),
    "uid": (1, Change.RESTART),
    "gid": (1, Change.RESTART),
    "gids": ((1,), Change.RESTART),
    "cwd": ("/srv", Change.RESTART),
    "umask": (0, Change.RESTART),
    "chroot": ("/srv", Change.RESTART),
    "limits": ({"core": (0, 0)}, Change.RESTART),
    "capabilities": ((), Change.RESTART),
    "no_new_privs": (True, Change.RESTART),
    "nice": (3, Change.RESTART),
    "cpu_affinity": ((0,), Change.RESTART),
    "oom_score_adj": (5, Change.RESTART),
    "netns": ("other", Change.RESTART),
    "ready": ("notify", Change.RESTART),
    "ready_fd": (5, Change.RESTART),
    "watchdog": (3.0, Change.RESTART),
    "forking": (True, Change.RESTART),
    "pid_file": ("/run/x", Change.RESTART),
    "login_env": ({"HOME": "/"}, Change.RESTART),
    "listen_fds": (False, Change.RESTART),
    "expand_env": (True, Change.RESTART),
    "io_class": ("idle", Change.RESTART),
    "io_priority": (7, Change.RESTART),
    "scheduling": ("batch", Change.RESTART),
    "timer_slack": (0.05, Change.RESTART),
    # what spawnd holds open for it
    "stdin": (SOCKET, Change.REBUILD),
    "stdout": (Descriptor("log"), Change.REBUILD),
    "stderr": (Descriptor("log"), Change.REBUILD),
    "fd": ((SOCKET,), Change.REBUILD),
    "control": (True, Change.REBUILD),
    # written to its cgroup
    "resources": ({"memory_max": "1G"}, Change.LIMITS),
    # spawnd's own business
    "description": ("other", Change.ADOPT),
    "function_user": ("other", Change.ADOPT),
    "function_ids": ((1, 1), Change.ADOPT),
    "success_status": ((143,), Change.ADOPT),
    "no_restart_status": ((78,), Change.ADOPT),
    "depends": (("other",), Change.ADOPT),
    "after": (("other",), Change.ADOPT),
    "conflicts": (("other",), Change.ADOPT),
    "autostart": (False, Change.ADOPT),
    "demand": (True, Change.ADOPT),
    "accept": (Accept(), Change.RESTART),
    "idle_stop": (300.0, Change.ADOPT),
    "flush": (True, Change.ADOPT),
    "idle_cpu": (0.01, Change.ADOPT),
    "argv0": ("x", Change.RESTART),
    "task": (True, Change.ADOPT),
    "restart": ("never", Change.ADOPT),
    "healthy_after": (2.0, Change.ADOPT),
    "backoff": (Backoff(first=1), Change.ADOPT),
    "start_limit": (None, Change.ADOPT),
    "start_timeout": (None, Change.ADOPT),
    "stop_timeout": (1.0, Change.ADOPT),
    "stop_signal": (2, Change.ADOPT),
    "handover_signal": (10, Change.ADOPT),
    "reload_signal": (1, Change.ADOPT),
    "restart_signal": (35, Change.ADOPT),
    "kill_mode": ("process", Change.ADOPT),
    "fdstore_max": (8, Change.RESTART),
    "check": (("/bin/true",), Change.ADOPT),
    "functions": (("start",), Change.ADOPT),
    "functions_as_root": (True, Change.ADOPT),
    "source_digest": ("a digest", Change.ADOPT),
    "functions_digest": ("a digest", Change.NOTHING),  # of the same text: an upvalue may be the time
    # where it stands, which is nothing of the service's
    "file": ("/etc/other.lua", Change.NOTHING),
    "line": (7, Change.NOTHING),
    "lines": ({"exec": 7}, Change.NOTHING),
}
FILLED_BY = {
    "autostart": "status",
    "demand": "status",
    "uid": "user",
    "gid": "group",
    "gids": "groups",
    "resources": "memory_max",
    "functions_as_root": "functions",
    "function_ids": "function_user",
    "source_digest": "functions",
    "functions_digest": "functions",
}

OLD = Service("a", exec="/bin/a")


@pytest.mark.parametrize(
    ("old", "new", "keys"),
    [
        (("text", "code"), ("other", "code"), []),
        (("text", "code"), ("other", "more"), ["functions"]),
        (("text", ""), ("other", ""), ["functions"]),  # nobody knows
        (("text", "code"), ("text", "later"), []),
    ],
)
def test_another_text_is_no_other_function(old: tuple[str, str], new: tuple[str, str], keys: list[str]) -> None:
    def service(digests: tuple[str, str]) -> Service:
        return replace(OLD, functions=("start",), source_digest=digests[0], functions_digest=digests[1])

    assert changed_keys(service(old), service(new)) == keys


def test_each_field_has_a_change() -> None:
    """A service with another name is another service."""
    assert CHANGES.keys() == {field.name for field in fields(Service)} - {"name"}


@pytest.mark.parametrize("field", CHANGES)
def test_a_changed_field_asks_for_the_least_that_does(field: str) -> None:
    value, expected = CHANGES[field]
    new = replace(OLD, **{field: value})
    assert getattr(new, field) != getattr(OLD, field), "the test changes nothing"
    assert change(OLD, new) is expected
    assert change(new, OLD) is expected
    assert changed_keys(OLD, new) == ([FILLED_BY.get(field, field)] if expected is not Change.NOTHING else [])


def test_what_is_told_are_keys_of_definitions() -> None:
    for field, (_value, expected) in CHANGES.items():
        assert expected is Change.NOTHING or FILLED_BY.get(field, field) in {*KEYS, "functions"}


def test_of_several_changes_the_greatest_counts() -> None:
    kinds = [Change.ADOPT, Change.LIMITS, Change.RESTART, Change.REBUILD]
    keys = ["stop_timeout", "resources", "cwd", "fd"]
    new = OLD
    for key, kind in zip(keys, kinds, strict=True):
        new = replace(new, **{key: CHANGES[key][0]})
        assert change(OLD, new) is kind
    assert set(changed_keys(OLD, new)) == {FILLED_BY.get(key, key) for key in keys}


def test_a_key_that_nobody_has_thought_of_restarts() -> None:
    assert change_of_key("no_such_key") is Change.RESTART


def test_equal_definitions_need_nothing() -> None:
    assert change(OLD, replace(OLD)) is Change.NOTHING
    assert change(OLD, replace(OLD, line=9, lines={"exec": 9})) is Change.NOTHING


def test_an_account_that_has_another_number() -> None:
    assert changed_keys(OLD, replace(OLD, uid=5, user="x", gid=5)) == ["user", "group"]


def test_each_resource_is_a_key() -> None:
    old = replace(OLD, resources={"memory_max": "1", "cpu_weight": "5", "pids_max": "9"})
    new = replace(OLD, resources={"memory_max": "2", "cpu_weight": "5", "io_weight": "3"})
    assert changed_keys(old, new) == ["io_weight", "memory_max", "pids_max"]
    assert change(old, new) is Change.LIMITS


def test_changed_limits_of_sessions_take_another_acceptor() -> None:
    old = replace(OLD, resources={"memory_max": "1"}, accept=Accept(session_cgroup=True))
    assert change(old, replace(old, resources={"memory_max": "2"})) is Change.RESTART
    whole = replace(old, accept=Accept())
    assert change(whole, replace(whole, resources={"memory_max": "2"})) is Change.LIMITS


def test_the_control_socket_is_no_descriptor_of_its_own() -> None:
    socket = Descriptor("stream", name="control", path="/run/control.d/a")
    new = replace(OLD, control=True, fd=(socket,))
    assert changed_keys(OLD, new) == ["control"]
    assert changed_keys(new, replace(new, fd=(SOCKET, socket))) == ["fd"]


@pytest.mark.parametrize("key", ["stdout", "stderr"])
def test_a_worker_that_has_the_key_has_not_the_log_of_spawnd(key: str) -> None:
    worker = Service("a", worker="a")
    assert changed_keys(worker, replace(worker, lines={key: 3})) == [key]
    assert changed_keys(OLD, replace(OLD, lines={key: 3})) == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [(1, 1, True), (1, 1.0, True), (1, True, False), ([0, 1], [0, True], False), ({"b": 0}, {"b": False}, False)],
)
def test_options_that_python_takes_for_equal(one: object, other: object, same: bool) -> None:
    old, new = Service("a", worker="a", options={"k": one}), Service("a", worker="a", options={"k": other})
    assert (change(old, new) is Change.NOTHING) is same
