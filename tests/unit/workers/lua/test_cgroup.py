"""The cgroup that a handler is given, on real cgroups where there are any."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.workers.lua.cgroups import cgroup_chain
from tests.unit.workers.lua.scripts import complete, hosted
from workers.lua.released import Released

ALL = Released(
    "/system.slice/x.scope/a",
    fd=-1,
    btime=1764110000.9,
    age=2.5,
    counted={"cpu_total": 1.5, "memory_peak": 91226112, "pids_forks": None},
)


def handled(released: Released, body: str) -> list[str]:
    """Return the output of a handler that gets this cgroup."""

    async def run() -> list[str]:
        async with hosted(f"function cgroup_released(cgroup) {body} end") as kept:
            assert await kept.host.call("cgroup_released", released), kept.errors.pop()
            return kept.printed

    return complete(run())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("path", "/system.slice/x.scope/a"),
        ("btime", "1764110000"),
        ("age", "2.5"),
        ("cpu_total", "1.5"),
        ("memory_peak", "91226112"),
        ("pids_forks", "nil"),
        ("counted", "nil"),
        ("fd", "nil"),
        ("nothing", "nil"),
    ],
)
def test_attributes(name: str, value: str) -> None:
    assert handled(ALL, f"print(cgroup.{name})") == [value]


def test_what_is_unknown_is_nil() -> None:
    names = [name for name in Released.__dataclass_fields__ if name not in ("path", "fd")]
    body = "".join(f"print(cgroup.{name}) " for name in names)
    assert handled(Released("/a", -1), body) == ["nil"] * len(names)


def test_the_birth_time_is_one_of_lua() -> None:
    assert handled(ALL, "print(os.date('!%Y-%m-%dT%H:%M:%SZ', cgroup.btime))") == ["2025-11-25T22:33:20Z"]


def test_it_cannot_be_changed() -> None:
    assert handled(ALL, "print(pcall(function() cgroup.path = 1 end))") == [
        "false\tscript:1: cannot change an object: cgroup"
    ]


def test_what_is_no_name() -> None:
    assert handled(ALL, "print(cgroup[1], cgroup[{}], cgroup.xattr[1])") == ["nil\tnil\tnil"]


STALE = """
function cgroup_released(cgroup) kept = cgroup attributes = cgroup.xattr above = cgroup.parent end
function reload()
  for _, f in ipairs {
    function() return kept.path end,
    function() return kept.xattr end,
    function() return kept.parent end,
    function() return attributes.account end,
    function() return above.path end,
  } do print(pcall(f)) end
end
"""


def test_it_is_stale_after_its_handler(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH)

    async def run() -> None:
        async with hosted(STALE) as kept:
            assert await kept.host.call("cgroup_released", Released("/a/b", fd))
            assert await kept.host.call("reload")
            assert kept.printed == [f"false\tscript:{line}: Stale object" for line in range(5, 10)]

    complete(run())
    os.close(fd)


def test_it_is_stale_after_a_handler_that_failed() -> None:
    async def run() -> None:
        async with hosted(STALE + "function broken(cgroup) kept = cgroup error('no') end") as kept:
            assert not await kept.host.call("broken", ALL)
            kept.errors.clear()
            assert await kept.host.call("reload")
            assert kept.printed[0] == "false\tscript:5: Stale object"

    complete(run())


def test_it_is_usable_over_waits() -> None:
    body = "local before = cgroup.path control_resolve('localhost:1') print(before == cgroup.path, cgroup.age)"
    assert handled(ALL, body) == ["true\t2.5"]


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH)

    async def run() -> None:
        script = "function a(c) x = c.parent.parent.xattr.x end function b(c) a(c) error() end"
        async with hosted(script) as kept:
            await kept.host.call("a", Released("/a/b/c", fd))
            before = sorted(os.listdir("/proc/self/fd"))
            for _ in range(10):
                await kept.host.call("a", Released("/a/b/c", fd))
                await kept.host.call("b", Released("/a/b/c", fd))
            kept.errors.clear()
            assert sorted(os.listdir("/proc/self/fd")) == before

    complete(run())
    os.close(fd)


# real cgroups


@pytest.fixture
def folder() -> Iterator[Path]:
    """A cgroup with two above it, each with its name as `user.account`."""
    with cgroup_chain("middle", "inner") as inner:
        try:
            for path in (inner, inner.parent, inner.parent.parent):
                os.setxattr(path, "user.account", path.name.encode())
        except OSError as error:
            pytest.skip(f"no extended attributes on cgroups: {error}")
        yield inner


CHAIN = """
print(cgroup.path, cgroup.xattr.account)
print(cgroup.parent.path, cgroup.parent.xattr.account, cgroup.parent.memory_peak)
print(cgroup.parent.parent.path, cgroup.parent.parent.xattr.account, cgroup.parent.parent.parent)
print(cgroup.parent == cgroup.parent, cgroup.xattr == cgroup.xattr)
"""


@pytest.mark.parametrize("flags", [os.O_PATH, os.O_RDONLY])
@pytest.mark.parametrize("deleted", [False, True])
def test_attributes_and_parents(folder: Path, flags: int, deleted: bool) -> None:
    top = folder.parent.parent
    fd = os.open(folder, flags | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if deleted:
            for path in (folder, folder.parent, top):
                path.rmdir()
        assert handled(Released(f"/{top.name}/middle/inner", fd), CHAIN) == [
            f"/{top.name}/middle/inner\tinner",
            f"/{top.name}/middle\tmiddle\tnil",
            f"/{top.name}\t{top.name}\tnil",
            "true\ttrue",
        ]
    finally:
        os.close(fd)


def test_the_names_of_attributes(folder: Path) -> None:
    os.setxattr(folder, "user.raw", b"\0\xff")
    os.setxattr(folder, "user.with.dot", b"dot")
    os.setxattr(folder, "user.empty", b"")
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    body = r"""
local xattr = cgroup.xattr
print(#xattr.raw, xattr.raw == "\0\255", xattr["user.with.dot"], xattr["with.dot"], xattr.empty == "")
print(xattr.nothing, xattr["trusted.nothing"], xattr["nonsense.x"], xattr["\0"], xattr[("x"):rep(300)], xattr[""])
"""
    try:
        assert handled(Released("/a", fd), body) == ["2\ttrue\tdot\tnil\ttrue", "nil\tnil\tnil\tnil\tnil\tnil"]
    finally:
        os.close(fd)


def test_what_fails_for_another_reason_is_an_error() -> None:
    body = "print(pcall(function() return cgroup.xattr.x end)) print(pcall(function() return cgroup.parent end))"
    assert handled(Released("/a/b", -1), body) == [
        "false\tscript:1: cannot read 'user.x' of /a/b: No such file or directory",
        "false\tscript:1: cannot open the parent of /a/b: Bad file descriptor",
    ]


def test_a_path_that_leaves_names_out_has_all_parents(tmp_path: Path) -> None:
    """The handler finds the attribute of a parent, however deep the cgroup is."""
    deep = tmp_path / "a" / "b" / "c" / "d" / "e"
    deep.mkdir(parents=True)
    script = """
function cgroup_released(cgroup)
  while cgroup do print(cgroup.path) cgroup = cgroup.parent end
end
"""

    async def run() -> None:
        fd = os.open(deep, os.O_PATH)
        async with hosted(script) as kept:
            assert await kept.host.call("cgroup_released", Released("/x/a/…/e", fd, left_out=2))
            assert kept.printed == ["/x/a/…/e", "/x/a/…", "/x/a/…", "/x/a", "/x"]
        os.close(fd)

    complete(run())
