"""What a state file says, and when it is of no use."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from supervisor import __version__
from supervisor.definitions.service import Settings
from supervisor.process.pids import start_time
from supervisor.state.file import Record, encode, now
from supervisor.state.state import FORMAT, StateError, header, read_state
from tests.unit.process.forked import in_child

SERVICE: Record = {"name": "a", "service": {"name": "a", "exec": "/bin/a"}}
UNIT: Record = {"name": "a", "unit": {"life": {}}}


def state_of(*records: Record) -> bytes:
    return b"".join(map(encode, records))


def test_who_wrote_it_is_known() -> None:
    state = read_state(state_of(header()))
    assert (state.version, state.pid, state.damaged) == (__version__, os.getpid(), 0)
    assert (state.services, state.units, state.settings, state.ending) == ({}, {}, {}, False)
    assert (state.exec, state.signals) == ({}, [])


def test_the_last_word_about_a_thing_counts() -> None:
    other = {"name": "a", "unit": {"life": {"state": "running"}}}
    state = read_state(state_of(header(), {"settings": {"cgroup": "x"}}, SERVICE, UNIT, other, {"settings": {}}))
    assert state.services == {"a": SERVICE["service"]}
    assert state.units == {"a": other["unit"]}
    assert state.settings == {}


def test_what_is_gone_is_gone_and_may_come_again() -> None:
    gone: Record = {"name": "a", "gone": True}
    state = read_state(state_of(header(), SERVICE, UNIT, gone))
    assert (state.services, state.units) == ({}, {})
    state = read_state(state_of(header(), SERVICE, UNIT, gone, gone, SERVICE, UNIT))
    assert (state.services, state.units) == ({"a": SERVICE["service"]}, {"a": UNIT["unit"]})


def entry(name: str, fd: int) -> list[object]:
    return [name, False, fd, f"pipe:[{fd}] r"]


def test_a_store_is_collected_from_what_came_and_went() -> None:
    came = {"name": "a", "stored": [entry("x", 4), entry("y", 5), entry("z", 6)]}
    went = {"name": "a", "dropped": [5], "stored": [entry("new", 4)]}
    state = read_state(state_of(header(), SERVICE, UNIT, came, UNIT, went, {"name": "a", "dropped": [99]}))
    assert state.units["a"]["store"] == [entry("z", 6), entry("new", 4)]
    assert state.damaged == 0


def test_an_empty_store_is_none() -> None:
    came = {"name": "a", "stored": [entry("x", 4)]}
    assert "store" not in read_state(state_of(header(), SERVICE, UNIT, came, {"name": "a", "dropped": [4]})).units["a"]
    gone = {"name": "a", "gone": True}
    assert "store" not in read_state(state_of(header(), SERVICE, UNIT, came, gone, SERVICE, UNIT)).units["a"]


@pytest.mark.parametrize("wrong", [[], [1], ["x", False, "4", "y"], "text", None])
def test_what_is_no_stored_descriptor_is_left_out(wrong: object) -> None:
    came = {"name": "a", "stored": [wrong, entry("x", 4)]}
    assert read_state(state_of(header(), SERVICE, UNIT, came)).units["a"]["store"] == [entry("x", 4)]


def test_they_keep_the_order_in_which_they_came() -> None:
    names = ["c", "a", "b", "d"]
    lines: list[Record] = [record for name in names for record in (SERVICE | {"name": name}, UNIT | {"name": name})]
    state = read_state(state_of(header(), *lines, UNIT | {"name": "b"}, {"name": "a", "gone": True}))
    assert list(state.services) == list(state.units) == ["c", "b", "d"]


def test_it_was_true_when_it_was_written_last() -> None:
    assert read_state(state_of(header(), UNIT)).written == 0
    assert read_state(state_of(header(), {"at": 5}, UNIT, {"at": 7}, UNIT)).written == 7


def test_the_time_is_that_of_start_times() -> None:
    before = now()["at"]
    assert before <= in_child(lambda: start_time(os.getpid())) <= now()["at"]


def test_what_goes_with_an_exec() -> None:
    state = read_state(state_of(header(), {"ending": True}, {"exec": {"lock": 3}}, {"signals": [1, 40, 1]}))
    assert (state.ending, state.exec, state.signals) == (True, {"lock": 3}, [1, 40, 1])


@pytest.mark.parametrize(
    "record", [{}, {"name": "a"}, {"name": 1, "unit": {}}, {"name": "a", "unit": []}, {"settings": 1}, {"what": True}]
)
def test_what_no_format_has_is_counted_and_the_rest_read(record: Record) -> None:
    state = read_state(state_of(header(), record, SERVICE, UNIT) + b"garbage\n")
    assert state.damaged == 2
    assert list(state.units) == ["a"]


@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"garbage", b"garbage\n", b"{}\n", encode(header())[:-1], state_of(SERVICE, UNIT), b"\xff" * 1000],
)
def test_what_has_no_beginning_is_of_no_use(data: bytes) -> None:
    with pytest.raises(StateError, match="no beginning"):
        read_state(data)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("boot", "00000000-0000-0000-0000-000000000000", "another boot"),
        ("boot", None, "another boot"),
        ("pids", 1, "another PID namespace"),
        ("pids", [], "another PID namespace"),
    ],
)
def test_what_was_true_elsewhere_is_of_no_use(key: str, value: object, why: str) -> None:
    with pytest.raises(StateError, match=why):
        read_state(state_of(header() | {key: value}, SERVICE, UNIT))


@pytest.mark.parametrize("pid", [None, "1", [], {}, 1.5])
def test_a_pid_that_is_none_is_not_needed(pid: object) -> None:
    state = read_state(state_of(header() | {"pid": pid}, SERVICE, UNIT))
    assert state.pid == 0
    assert list(state.units) == ["a"]


@pytest.mark.parametrize("number", [FORMAT + 1, 0, "1", None, []])
def test_of_another_format_it_is_known_what_runs_and_nothing_else(number: object) -> None:
    state = read_state(state_of(header() | {"spawnd": number}, {"settings": {"log_level": "debug"}}, SERVICE, UNIT))
    assert state.units == {"a": UNIT["unit"]}
    assert (state.services, state.settings) == ({}, {})


@pytest.mark.parametrize(
    ("record", "settings"),
    [({"log_level": "debug"}, Settings(log_level="debug")), ({"new": 1}, Settings()), ({}, Settings())],
)
def test_settings_that_another_version_knows_are_the_defaults(record: Record, settings: Settings) -> None:
    assert read_state(state_of(header(), {"settings": record})).settings_in_force() == settings


def test_the_header_names_boot_and_namespace() -> None:
    there: dict[str, Any] = in_child(header)
    assert there["pid"] != os.getpid()
    here = header()
    assert here.keys() == there.keys()
    assert all(here[key] == there[key] for key in here.keys() - {"pid"})
    assert json.loads(encode(here)) == here
    assert there["spawnd"] == FORMAT
