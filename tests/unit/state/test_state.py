"""The content of a state file, and the cases in which it is of no use."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from supervisor import __version__
from supervisor.definitions.service import Settings
from supervisor.linux.namespaces import CLONE_NEWNS, unshare
from supervisor.process.pids import start_time
from supervisor.state.state import (
    FORMAT,
    ROOM,
    Record,
    StateError,
    StateFile,
    encode,
    header,
    now,
    read_records,
    read_state,
)
from tests.unit.process.forked import in_child, open_numbers
from tests.unit.process.requirements import needs_root

SERVICE: Record = {"name": "a", "service": {"name": "a", "exec": "/bin/a"}}
UNIT: Record = {"name": "a", "unit": {"life": {}}}


def state_of(*records: Record) -> bytes:
    return b"".join(map(encode, records))


def test_who_wrote_it_is_known() -> None:
    state = read_state(state_of(header()))
    assert (state.version, state.pid, state.damaged) == (__version__, os.getpid(), 0)
    assert (dict(state.services), dict(state.units), state.settings, state.ending) == ({}, {}, {}, False)
    assert (state.exec, state.signals) == ({}, [])


def test_the_last_word_about_a_thing_counts() -> None:
    other = {"name": "a", "unit": {"life": {"state": "running"}}}
    state = read_state(state_of(header(), {"settings": {"cgroup": "x"}}, SERVICE, UNIT, other, {"settings": {}}))
    assert state.services == {"a": SERVICE["service"]}
    assert state.units == {"a": other["unit"]}
    assert state.settings == {}


def test_a_record_is_read_when_it_is_asked_for() -> None:
    """As objects, the records of thousands of units would take memory that Python does not return."""
    state = read_state(state_of(header(), SERVICE, UNIT))
    one, other = state.units["a"], state.units["a"]
    assert one == other == UNIT["unit"]
    assert one is not other
    with pytest.raises(KeyError):
        state.units["b"]
    assert "b" not in state.services


def test_what_is_gone_is_gone_and_may_come_again() -> None:
    gone: Record = {"name": "a", "gone": True}
    state = read_state(state_of(header(), SERVICE, UNIT, gone))
    assert (dict(state.services), dict(state.units)) == ({}, {})
    state = read_state(state_of(header(), SERVICE, UNIT, gone, gone, SERVICE, UNIT))
    assert (dict(state.services), dict(state.units)) == ({"a": SERVICE["service"]}, {"a": UNIT["unit"]})


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
    assert (dict(state.services), state.settings) == ({}, {})


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


ONE: Record = {"name": "one", "text": "ü \udcff\n"}
TWO: Record = {"name": "two"}


def read_all(data: bytes) -> tuple[list[Record], int]:
    """The records of a state file, and the number of damaged lines."""
    found = [record for _line, record in read_records(data)]
    return [record for record in found if record is not None], found.count(None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state"


def records(path: Path) -> list[Record]:
    found, damaged = read_all(path.read_bytes())
    assert damaged == 0
    return found


def big(size: int) -> Record:
    return {"big": "x" * size}


# in order


def test_what_is_written_is_read(path: Path) -> None:
    file = StateFile(str(path))
    file.replace([ONE])
    file.append([TWO, ONE])
    file.append([])
    assert records(path) == [ONE, TWO, ONE]
    file.replace([TWO])
    assert records(path) == [TWO]
    file.append([ONE])
    assert records(path) == [TWO, ONE]


def test_it_is_its_owners_alone_and_not_for_children(path: Path) -> None:
    before = open_numbers()
    file = StateFile(str(path))
    for _ in range(3):
        file.replace([ONE])
    assert path.stat().st_mode & 0o777 == 0o600
    (fd,) = open_numbers() - before
    assert not os.get_inheritable(fd)
    file.remove()
    assert open_numbers() == before
    assert not path.exists()
    file.remove()


def test_nothing_else_is_left_in_the_folder(path: Path) -> None:
    file = StateFile(str(path))
    file.replace([ONE])
    assert [entry.name for entry in path.parent.iterdir()] == ["state"]


def test_who_reads_has_the_old_file_or_the_new_one(path: Path) -> None:
    file = StateFile(str(path))
    file.replace([ONE])
    with path.open("rb") as before:
        file.replace([TWO])
        assert read_all(before.read()) == ([ONE], 0)


def test_a_link_in_its_place_leads_nowhere(path: Path) -> None:
    """A half-written file has another name, which no other user can have made a link."""
    victim = path.with_name("victim")
    victim.write_text("kept")
    path.with_name("state~").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        StateFile(str(path)).replace([ONE])
    assert victim.read_text() == "kept"


def test_it_is_long_when_it_has_grown_and_says_little(path: Path) -> None:
    file = StateFile(str(path))
    file.replace([ONE])
    assert not file.is_long
    while not file.is_long:
        file.append([big(100_000)])
    assert ROOM < path.stat().st_size < ROOM + 200_000
    file.replace([ONE])
    assert not file.is_long


def test_a_file_that_is_long_from_the_start_may_grow_to_several_times_that(path: Path) -> None:
    file = StateFile(str(path))
    file.replace([big(2 * ROOM)])
    file.append([big(3 * ROOM)])
    assert not file.is_long
    file.append([big(4 * ROOM)])
    assert file.is_long


# cut off, damaged


def test_a_last_line_that_was_cut_off_was_never_written() -> None:
    data = encode(ONE) + encode(TWO)
    for length in range(len(encode(ONE)), len(data)):
        assert read_all(data[:length]) == ([ONE], 0)
    assert read_all(data) == ([ONE, TWO], 0)
    assert read_all(b"") == ([], 0)


@pytest.mark.parametrize(
    "line", [b"", b"garbage", b"{", b"[]", b"1", b"null", b'"x"', b"\x00\xff\xfe", b"{}" * 2, b"[" * 100_000]
)
def test_lines_that_are_no_record_are_counted_and_the_others_read(line: bytes) -> None:
    assert read_all(encode(ONE) + line + b"\n" + encode(TWO)) == ([ONE, TWO], 1)


# no room


@contextmanager
def largest(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_after_an_append_that_failed_half_way_it_goes_on_cleanly(path: Path) -> None:
    file = StateFile(str(path))
    file.replace([ONE])
    size = path.stat().st_size
    with largest(size + 1000):
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            file.append([TWO, big(10_000)])
        assert path.stat().st_size == size
        assert records(path) == [ONE]
        file.append([TWO])
    file.append([ONE])
    assert records(path) == [ONE, TWO, ONE]


def test_a_replacement_that_fails_leaves_the_old_file_and_it_goes_on(path: Path) -> None:
    before = open_numbers()
    file = StateFile(str(path))
    file.replace([ONE])
    with largest(1000), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        file.replace([TWO, big(10_000)])
    assert records(path) == [ONE]
    file.append([TWO])
    assert records(path) == [ONE, TWO]
    assert [entry.name for entry in path.parent.iterdir()] == ["state"]
    file.remove()
    assert open_numbers() == before


def test_a_first_one_that_fails_leaves_nothing(path: Path) -> None:
    before = open_numbers()
    file = StateFile(str(path))
    with largest(10), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        file.replace([ONE])
    assert not list(path.parent.iterdir())
    assert open_numbers() == before
    file.replace([ONE])
    assert records(path) == [ONE]


def test_a_folder_that_is_gone(path: Path) -> None:
    file = StateFile(str(path))
    file.replace([ONE])
    path.unlink()
    path.parent.rmdir()
    with pytest.raises(FileNotFoundError):
        file.replace([ONE])
    file.append([TWO])
    file.remove()


@needs_root
def test_a_full_disk_and_room_again(tmp_path: Path) -> None:
    """A file system of 64 KiB, in a mount namespace of its own."""

    def check_it() -> None:
        unshare(CLONE_NEWNS)
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=True)
        path = tmp_path / "state"
        file = StateFile(str(path))
        file.replace([ONE])
        filler = tmp_path / "filler"
        _fill(filler)
        size = path.stat().st_size
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            file.append([TWO, big(10_000)])
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            file.replace([TWO, big(10_000)])
        assert path.stat().st_size == size
        assert records(path) == [ONE]
        filler.unlink()
        file.append([TWO])
        assert records(path) == [ONE, TWO]
        file.replace([TWO])
        assert records(path) == [TWO]

    in_child(check_it)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def test_what_is_written_is_one_line_whatever_is_in_it() -> None:
    for text in ("\n", "\u2028", "\x00", "\udc80", "\U0001f600"):
        data = encode({"text": text})
        assert data.count(b"\n") == 1
        assert data.isascii()
        assert read_all(data) == ([{"text": text}], 0)
        assert json.loads(data)["text"].encode(), "every parser takes it"
