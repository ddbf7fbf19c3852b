from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.process.requirements import needs_root
from tests.unit.workers.reaper.scenario import ground
from workers.reaper.statistics import Events, Reading, Statistics, read, read_controllers, read_events, shows_use


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)


def statistics(folder: Path) -> Statistics:
    with opened(folder) as fd:
        reading = read(fd)
    assert reading is not None
    return reading.statistics()


def test_all_that_a_kernel_may_count(tmp_path: Path) -> None:
    write(
        tmp_path,
        cpu_stat="usage_usec 1500\nuser_usec 1200\nsystem_usec 300\nnice_usec 0\ncore_sched.force_idle_usec 0\n",
        memory_peak="91226112\n",
        memory_events="low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n",
        pids_peak="9\n",
        pids_forks="210\n",
        pids_events="max 7\n",
    )
    assert statistics(tmp_path) == Statistics(1500, 1200, 300, 91226112, 2, 3, 4, 9, 210, 7)


def test_what_a_kernel_lacks_is_none_and_never_0(tmp_path: Path) -> None:
    write(tmp_path, cpu_stat="usage_usec 5\n", memory_events="low 1\n", memory_peak="")
    write(tmp_path, pids_events="\n", pids_peak="max\n")
    assert statistics(tmp_path) == Statistics(cpu_total_us=5)


def test_what_was_not_there_is_not_looked_for_again(tmp_path: Path) -> None:
    write(tmp_path, cpu_stat="usage_usec 5\n", pids_events="max 0\n", pids_peak="1\n")
    with opened(tmp_path) as fd:
        first = read(fd)
        assert first is not None
        write(tmp_path, cpu_stat="usage_usec 6\n", memory_peak="1\n")
        again = first.again(fd)
    assert again is not None
    assert again.statistics() == Statistics(cpu_total_us=6, pids_peak=1, pids_events_max=0)


@given(st.dictionaries(st.sampled_from(["cpu.stat", "memory.peak", "memory.events", "pids.events"]), st.binary()))
def test_whatever_the_files_say(contents: dict[str, bytes]) -> None:
    Reading(contents).statistics()


def test_without_cpu_stat_there_is_no_cgroup(tmp_path: Path) -> None:
    write(tmp_path, pids_peak="9")
    with opened(tmp_path) as fd:
        assert read(fd) is None


@pytest.mark.parametrize(
    ("cpu", "peak", "used"), [("0", None, False), ("1", None, True), ("0", "0", False), ("0", "1", True)]
)
def test_use(tmp_path: Path, cpu: str, peak: str | None, used: bool) -> None:
    write(tmp_path, cpu_stat=f"usage_usec {cpu}\nuser_usec 0\n", **({} if peak is None else {"pids_peak": peak}))
    with opened(tmp_path) as fd:
        assert shows_use(fd) is used


@needs_root
def test_a_real_one_and_its_end() -> None:
    with ground() as own:
        folder = own.make("one")
        assert read_events(str(folder)) == Events(False, False)
        with opened(folder) as fd:
            assert not shows_use(fd)
            process = own.enter("one")
            assert read_events(str(folder)) == Events(True, False)
            process.end()
            assert shows_use(fd)
            folder.rmdir()
            assert read_events(str(folder)) is None
            assert read(fd) is None
            assert not shows_use(fd)


def test_a_controller_that_it_cannot_have_is_not_looked_for(tmp_path: Path) -> None:
    write(tmp_path, cpu_stat="usage_usec 5\n", memory_events="high 2\n", pids_events="max 3\n", pids_peak="4\n")
    with opened(tmp_path) as fd:
        found = [read(fd, controllers) for controllers in ([], [b"cpu", b"pids"], [b"memory", b"pids"])]
    assert [reading and reading.statistics() for reading in found] == [
        Statistics(5),
        Statistics(5, pids_events_max=3, pids_peak=4),
        Statistics(5, memory_events_high=2, pids_events_max=3, pids_peak=4),
    ]


def test_one_file_of_a_controller_alone(tmp_path: Path) -> None:
    """As older kernels have it."""
    write(tmp_path, cpu_stat="usage_usec 5\n", pids_events="max 3\n")
    assert statistics(tmp_path) == Statistics(5, pids_events_max=3)


def test_the_controllers_that_children_have(tmp_path: Path) -> None:
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids\n")
    with opened(tmp_path) as fd:
        assert read_controllers(".", fd) == read_controllers(str(tmp_path)) == [b"cpu", b"memory", b"pids"]
    (tmp_path / "cgroup.subtree_control").write_text("\n")
    assert read_controllers(str(tmp_path)) == []
