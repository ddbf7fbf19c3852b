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
    CHANGED,
    COUNT_ALL,
    FROZEN,
    GONE,
    HERE,
    OPEN,
    OPENED,
    POPULATED,
    THERE,
    WITH_FOLDER,
    Opened,
    delete_cgroups,
    look,
)
from workers.reaper.statistics import COUNTERS, TABLE, Statistics, shows_use, statistics

LARGEST = 2**63 - 1
NAMES = sorted({counter.file for counter in COUNTERS})
both_ways = pytest.mark.parametrize("flags", [OPEN | COUNT_ALL, OPEN | COUNT_ALL | WITH_FOLDER])


@pytest.fixture
def cgroup(tmp_path: Path) -> Path:
    """A folder in one whose children have controllers."""
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids\n")
    (tmp_path / "one").mkdir()
    return tmp_path / "one"


def write(folder: Path, **files: str) -> None:
    (folder / "cgroup.events").write_text("populated 0\nfrozen 0\n")
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)


def look_at(way: Path | str, flags: int, inode: int | None = None) -> tuple[int, ...]:
    (answer,) = look([str(way)], [HERE, Path(way).stat().st_ino if inode is None else inode, flags], TABLE)
    return answer


def read(folder: Path, flags: int = OPEN | COUNT_ALL) -> Statistics | None:
    answer = look_at(folder, flags)
    if not answer[0] & OPENED:
        return None
    opened = Opened(answer)
    opened.close()
    return statistics(opened.numbers)


def reference(files: Mapping[str, bytes]) -> Statistics:
    """Return the expected result of `read` for these files, none of which is longer than its limit."""

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
def test_all_that_a_kernel_may_count(cgroup: Path, flags: int) -> None:
    write(
        cgroup,
        cpu_stat="usage_usec 1500\nuser_usec 1200\nsystem_usec 300\nnice_usec 0\ncore_sched.force_idle_usec 0\n",
        memory_peak="91226112\n",
        memory_events="low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n",
        pids_peak="9\n",
        pids_forks="210\n",
        pids_events="max 7\n",
    )
    assert read(cgroup, flags) == (1500, 1200, 300, 91226112, 2, 3, 4, 9, 210, 7)


def test_what_a_kernel_lacks_is_none_and_never_0(cgroup: Path) -> None:
    write(cgroup, cpu_stat="usage_usec 5\n", memory_events="low 1\n", memory_peak="")
    write(cgroup, pids_events="\n", pids_peak="max\n")
    assert read(cgroup) == (5, *[None] * 9)


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
    above = tmp_path_factory.mktemp("above")
    (above / "cgroup.subtree_control").write_text("memory pids\n")
    folder = above / "one"
    folder.mkdir()
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
    assert look_at(tmp_path, 0)[0] == seen


def test_neither_another_one_nor_a_populated_one_is_opened(cgroup: Path) -> None:
    before = open_numbers()
    write(cgroup, cpu_stat="usage_usec 1\n")
    for flags in (OPEN, OPEN | WITH_FOLDER):
        assert look_at(cgroup, flags, cgroup.stat().st_ino + 1)[0] == THERE | ANOTHER
    (cgroup / "cgroup.events").write_text("populated 1\n")
    assert look_at(cgroup, OPEN)[0] == THERE | POPULATED
    assert look_at(cgroup / "none", OPEN, 1)[0] == 0
    assert open_numbers() == before


def test_without_cpu_stat_there_is_no_cgroup(cgroup: Path) -> None:
    before = open_numbers()
    write(cgroup, pids_peak="9")
    assert read(cgroup) is None
    (cgroup / "cpu.stat").touch()
    assert read(cgroup) is None
    assert read(cgroup, OPEN | WITH_FOLDER) is None
    assert open_numbers() == before


@pytest.mark.parametrize(
    ("controllers", "found"),
    [
        ("", (5, *[None] * 9)),
        ("cpu pids\n", (5, *[None] * 6, 4, None, 3)),
        ("memory pids", (5, None, None, None, 2, None, None, 4, None, 3)),
        ("hugememory pidsx\n", (5, *[None] * 9)),
        (None, (5, *[None] * 9)),
    ],
)
def test_a_controller_that_it_cannot_have_is_not_looked_for(
    cgroup: Path, controllers: str | None, found: Statistics
) -> None:
    if controllers is None:
        (cgroup.parent / "cgroup.subtree_control").unlink()
    else:
        (cgroup.parent / "cgroup.subtree_control").write_text(controllers)
    write(cgroup, cpu_stat="usage_usec 5\n", memory_events="high 2\n", pids_events="max 3\n", pids_peak="4\n")
    assert read(cgroup) == found
    assert read(cgroup, OPEN) == (5, *[None] * 9), "nor without COUNT_ALL"


def test_each_parent_is_asked_for_its_own_children(tmp_path: Path) -> None:
    for parent, controllers in (("a", "pids\n"), ("ab", "memory\n")):
        for name in "12":
            (tmp_path / parent / name).mkdir(parents=True)
            write(tmp_path / parent / name, cpu_stat="usage_usec 5\n", memory_peak="6\n", pids_peak="7\n")
        (tmp_path / parent / "cgroup.subtree_control").write_text(controllers)
    ways = ["a/1", "a/2", "none", "ab/1", "ab/2", "a/1"]
    above = os.open(tmp_path, os.O_PATH)
    inodes = [(tmp_path / way).stat().st_ino if way != "none" else 1 for way in ways]
    asked = [number for inode in inodes for number in (above, inode, OPEN | COUNT_ALL)]
    answers = list(look(ways, asked, TABLE))
    os.close(above)
    assert [answer[0] for answer in answers] == [THERE | OPENED if way != "none" else 0 for way in ways]
    opened = [Opened(answer) for answer in answers if answer[0]]
    for one in opened:
        one.close()
    pids, memory = (5, *[-1] * 6, 7, -1, -1), (5, -1, -1, 6, *[-1] * 6)
    assert [tuple(one.numbers) for one in opened] == [pids, pids, memory, memory, pids]


def test_a_path_that_is_too_long_is_an_error(tmp_path: Path) -> None:
    for length in (4082, 4094, 4096, 10_000):
        assert look_at("a/" * (length // 2), OPEN, 1)[0] == -errno.ENAMETOOLONG


def test_a_name_that_is_no_utf8(cgroup: Path) -> None:
    folder = cgroup / os.fsdecode(b"\xfc")
    folder.mkdir()
    write(folder, cpu_stat="usage_usec 5\n")
    assert read(folder) == (5, *[None] * 9)


@pytest.mark.parametrize(
    ("usage", "peak", "used"), [(0, None, False), (1, None, True), (0, "0", False), (0, "1\n", True)]
)
def test_use(tmp_path: Path, usage: int, peak: str | None, used: bool) -> None:
    write(tmp_path, **({} if peak is None else {"pids_peak": peak}))
    assert shows_use(usage, str(tmp_path)) is used


@needs_root
@both_ways
def test_a_real_one_and_its_end(flags: int) -> None:
    before = open_numbers()
    inotify = inotify_init1(IN_NONBLOCK)
    with ground() as own:
        folder = own.make("one")
        inode = folder.stat().st_ino
        watch = inotify_add_watch(inotify, str(folder), IN_CREATE)
        process = own.enter("one")
        assert look_at(folder, flags)[0] == THERE | POPULATED
        process.end()
        opened = Opened(look_at(folder, flags))
        assert (opened.folder >= 0) == bool(flags & WITH_FOLDER)
        fd = os.open(folder, os.O_PATH)
        birth = birth_time(fd)
        os.close(fd)
        assert opened.birth < 0 if birth is None else opened.birth / 1e9 == pytest.approx(birth)
        assert opened.numbers[0] > 0

        def delete(number: int = opened.numbers[0]) -> int:
            doomed = [HERE, opened.first, number, watch, -1]
            (result,) = delete_cgroups(inotify, [str(folder)], doomed, TABLE)
            return result

        assert delete(opened.numbers[0] - 1) == CHANGED
        inner = own.make("one/inner")
        assert delete() == -errno.EBUSY
        inner.rmdir()
        first = os.dup(opened.first)
        assert delete() == 0
        assert not folder.exists()
        opened.first = first
        assert not Path(f"/proc/self/fdinfo/{inotify}").read_text().count("inotify wd")
        own.make("one")  # another one, by the same name
        assert delete() == GONE
        assert folder.exists()
        assert look_at(folder, flags, inode)[0] == THERE | ANOTHER
        opened.close()
    os.close(inotify)
    assert open_numbers() == before


@needs_root
def test_many_are_deleted_by_one_call_and_each_has_its_result() -> None:
    with ground() as own:
        folders = [own.make(name) for name in "abc"]
        opened = [Opened(look_at(folder, OPEN)) for folder in folders]
        own.make("b/inner")
        doomed = [number for one in opened for number in (HERE, one.first, one.numbers[0], -1, -1)]
        assert list(delete_cgroups(-1, [str(folder) for folder in folders], doomed, TABLE)) == [0, -errno.EBUSY, 0]
        assert [folder.exists() for folder in folders] == [False, True, False]
        opened[1].close()
