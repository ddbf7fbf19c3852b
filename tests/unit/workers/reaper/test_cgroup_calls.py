"""Reading a cgroup: in folders that say what they are made to say, and in real cgroups."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.linux.file_status import birth_time
from supervisor.linux.inotify import IN_CREATE, IN_NONBLOCK, inotify_add_watch, inotify_init1
from tests.unit.process.forked import open_numbers
from tests.unit.process.requirements import needs_root
from tests.unit.workers.reaper.ground import ground
from workers.reaper.cgroup_calls import (
    ANOTHER,
    FROZEN,
    OPEN,
    OPENED,
    POPULATED,
    THERE,
    WITH_FOLDER,
    Opened,
    delete_cgroup,
    look,
    read_again,
)
from workers.reaper.release import TABLE
from workers.reaper.statistics import COUNTERS, Statistics, counters_of, read_controllers, shows_use, statistics

ALL = counters_of([b"memory", b"pids"])
LARGEST = 2**63 - 1
NAMES = sorted({counter.file for counter in COUNTERS})
both_ways = pytest.mark.parametrize("flags", [OPEN, OPEN | WITH_FOLDER])


def write(folder: Path, **files: str) -> None:
    (folder / "cgroup.events").write_text("populated 0\nfrozen 0\n")
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)


def read(folder: Path, flags: int = OPEN, wanted: int = ALL) -> Statistics | None:
    opened = Opened()
    if not look(str(folder), None, flags, folder.stat().st_ino, TABLE, wanted, opened) & OPENED:
        return None
    opened.close()
    return statistics(opened.numbers)


def reference(files: Mapping[str, bytes]) -> Statistics:
    """What `read` is to make of these files, none of which is longer than what is read of it."""

    def number(data: bytes | None) -> int | None:
        return min(int(data), LARGEST) if data and (data := data.strip()).isdigit() else None

    def one(file: str, key: str | None) -> int | None:
        data = files.get(file, b"")
        if key is None:
            return number(data)
        words = data.split()
        return number(dict(zip(words[::2], words[1::2], strict=False)).get(key.encode()))

    return tuple(one(counter.file, counter.key) for counter in COUNTERS)


@both_ways
def test_all_that_a_kernel_may_count(tmp_path: Path, flags: int) -> None:
    write(
        tmp_path,
        cpu_stat="usage_usec 1500\nuser_usec 1200\nsystem_usec 300\nnice_usec 0\ncore_sched.force_idle_usec 0\n",
        memory_peak="91226112\n",
        memory_events="low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n",
        pids_peak="9\n",
        pids_forks="210\n",
        pids_events="max 7\n",
    )
    assert read(tmp_path, flags) == (1500, 1200, 300, 91226112, 2, 3, 4, 9, 210, 7)


def test_what_a_kernel_lacks_is_none_and_never_0(tmp_path: Path) -> None:
    write(tmp_path, cpu_stat="usage_usec 5\n", memory_events="low 1\n", memory_peak="")
    write(tmp_path, pids_events="\n", pids_peak="max\n")
    assert read(tmp_path) == (5, *[None] * 9)


WORDS = st.lists(
    st.sampled_from([b"usage_usec", b"user_usec", b"high", b"max", b"oom", b"\x00", b"+1", b"-1", b"1_0", b"\xb2"])
    | st.integers(0, 2**70).map(lambda number: str(number).encode())
)
CONTENT = st.builds(
    lambda words, spaces, end: b"".join(word + space for word, space in zip(words, spaces, strict=False)) + end,
    WORDS,
    st.lists(st.sampled_from([b" ", b"\n", b"\t", b"\r\n", b"\v", b"\f", b""]), min_size=20, max_size=20),
    st.binary(max_size=3),
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), CONTENT | st.binary(max_size=64)))
def test_whatever_the_files_say(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    folder = tmp_path_factory.mktemp("cgroup")
    write(folder)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    assert read(folder) == (reference(files) if files.get("cpu.stat") else None)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("populated 0\nfrozen 0\n", THERE),
        ("populated 1\nfrozen 0\n", THERE | POPULATED),
        ("populated 0\nfrozen 1\n", THERE | FROZEN),
        ("populated 1\nfrozen 1\n", THERE | POPULATED | FROZEN),
        ("", 0),
    ],
)
def test_events(tmp_path: Path, text: str, seen: int) -> None:
    (tmp_path / "cgroup.events").write_text(text)
    assert look(str(tmp_path), None, 0, 1, TABLE, ALL, Opened()) == seen


def test_neither_another_one_nor_a_populated_one_is_opened(tmp_path: Path) -> None:
    before = open_numbers()
    write(tmp_path, cpu_stat="usage_usec 1\n")
    inode = tmp_path.stat().st_ino
    for flags in (OPEN, OPEN | WITH_FOLDER):
        assert look(str(tmp_path), None, flags, inode + 1, TABLE, ALL, Opened()) == THERE | ANOTHER
    (tmp_path / "cgroup.events").write_text("populated 1\n")
    assert look(str(tmp_path), None, OPEN, inode, TABLE, ALL, Opened()) == THERE | POPULATED
    assert look(str(tmp_path / "none"), None, OPEN, inode, TABLE, ALL, Opened()) == 0
    assert open_numbers() == before


def test_without_cpu_stat_there_is_no_cgroup(tmp_path: Path) -> None:
    before = open_numbers()
    write(tmp_path, pids_peak="9")
    assert read(tmp_path) is None
    (tmp_path / "cpu.stat").touch()
    assert read(tmp_path) is None
    assert read(tmp_path, OPEN | WITH_FOLDER) is None
    assert open_numbers() == before


@both_ways
def test_what_was_not_there_is_not_looked_for_again(tmp_path: Path, flags: int) -> None:
    write(tmp_path, cpu_stat="usage_usec 5\n", pids_events="max 0\n", pids_peak="1\n")
    above = os.open(tmp_path.parent, os.O_PATH)
    opened = Opened()
    assert look(tmp_path.name, above, flags, tmp_path.stat().st_ino, TABLE, ALL, opened) & OPENED
    write(tmp_path, cpu_stat="usage_usec 6\n", memory_peak="1\n")
    assert read_again(tmp_path.name, above, TABLE, opened)
    assert statistics(opened.numbers) == (6, None, None, None, None, None, None, 1, None, 0)
    opened.close()
    os.close(above)


@pytest.mark.parametrize(
    ("controllers", "found"),
    [
        ([], (5, *[None] * 9)),
        ([b"cpu", b"pids"], (5, *[None] * 6, 4, None, 3)),
        ([b"memory", b"pids"], (5, None, None, None, 2, None, None, 4, None, 3)),
    ],
)
def test_a_controller_that_it_cannot_have_is_not_looked_for(
    tmp_path: Path, controllers: list[bytes], found: Statistics
) -> None:
    write(tmp_path, cpu_stat="usage_usec 5\n", memory_events="high 2\n", pids_events="max 3\n", pids_peak="4\n")
    assert read(tmp_path, wanted=counters_of(controllers)) == found


def test_a_path_that_is_too_long_is_an_error(tmp_path: Path) -> None:
    for length in (4082, 4094, 4096, 10_000):
        with pytest.raises(OSError, match="File name too long") as caught:
            look("a/" * (length // 2), None, OPEN, 1, TABLE, ALL, Opened())
        assert caught.value.errno == errno.ENAMETOOLONG


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xfc")
    folder.mkdir()
    write(folder, cpu_stat="usage_usec 5\n")
    assert read(folder) == (5, *[None] * 9)


@pytest.mark.parametrize(
    ("usage", "peak", "used"), [(0, None, False), (1, None, True), (0, "0", False), (0, "1\n", True)]
)
def test_use(tmp_path: Path, usage: int, peak: str | None, used: bool) -> None:
    write(tmp_path, **({} if peak is None else {"pids_peak": peak}))
    assert shows_use(usage, str(tmp_path)) is used


def test_the_controllers_that_children_have(tmp_path: Path) -> None:
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids\n")
    above = os.open(tmp_path, os.O_PATH)
    assert read_controllers(".", above) == read_controllers(str(tmp_path)) == [b"cpu", b"memory", b"pids"]
    os.close(above)
    (tmp_path / "cgroup.subtree_control").write_text("\n")
    assert read_controllers(str(tmp_path)) == []


@needs_root
@both_ways
def test_a_real_one_and_its_end(flags: int) -> None:
    before = open_numbers()
    inotify = inotify_init1(IN_NONBLOCK)
    with ground() as own:
        folder = own.make("one")
        way, inode = str(folder), folder.stat().st_ino
        watch = inotify_add_watch(inotify, way, IN_CREATE)
        process = own.enter("one")
        assert look(way, None, flags, inode, TABLE, ALL, Opened()) == THERE | POPULATED
        opened = Opened()
        process.end()
        assert look(way, None, flags, inode, TABLE, ALL, opened) == THERE | OPENED
        assert (opened.folder >= 0) == bool(flags & WITH_FOLDER)
        fd = os.open(folder, os.O_PATH)
        birth = birth_time(fd)
        os.close(fd)
        assert opened.birth == (-1 if birth is None else birth)
        assert opened.numbers[0] > 0
        assert read_again(way, None, TABLE, opened)
        numbers = list(opened.numbers)
        inner = own.make("one/inner")
        with pytest.raises(OSError, match="busy"):
            delete_cgroup(way, None, opened.first, inotify, (watch, -1))
        inner.rmdir()
        first = os.dup(opened.first)
        delete_cgroup(way, None, opened.first, inotify, (watch, -1))
        opened.first = first
        assert not Path(f"/proc/self/fdinfo/{inotify}").read_text().count("inotify wd")
        own.make("one")  # another one, by the same name
        assert not read_again(way, None, TABLE, opened)
        assert list(opened.numbers) == numbers, "what was read last is still known"
        assert look(way, None, flags, inode, TABLE, ALL, Opened()) == THERE | ANOTHER
        opened.close()
    os.close(inotify)
    assert open_numbers() == before
