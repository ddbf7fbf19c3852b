"""`require`: modules of Debian, in Lua and in C, with the paths that the C++ daemons had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.workers.lua.scripts import prints
from workers.lua.host import folders

RUN = "from tests.unit.workers.lua.scripts import prints; import sys; print(*prints(sys.argv[1]), sep='\\n')"


def printed(script: str, **environment: str) -> list[str]:
    """Return the output of a script in a process of its own, which has loaded no module of Lua before."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, script],
        env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


def needs(module: str) -> str:
    """The script's way to say that the host has no such module."""
    return f"local there, module = pcall(require, '{module}') if not there then print('none') return end "


def runs(module: str, script: str) -> list[str]:
    lines = printed(needs(module) + script)
    if lines == ["none"]:
        if "CI" in os.environ:
            pytest.fail(f"no Lua module {module}")
        pytest.skip(f"no Lua module {module} on this host")
    return lines


def test_a_module_in_c() -> None:
    script = "print(module.encode({ 1, 'a' }), module.decode('[true, null]')[1], pcall(module.decode, '{'))"
    (line,) = runs("cjson", script)
    assert line.startswith('[1,"a"]\ttrue\tfalse\tExpected object key string')


def test_a_module_in_c_that_calls_back() -> None:
    """lua-posix: a part in Lua, one in C, and userdata."""
    assert runs("posix", "print(module.getpid('pid') > 1, module.basename('/a/b'))") == ["true\tb"]


def test_both_paths_have_the_folders_of_debian() -> None:
    arch = sys.implementation._multiarch
    path, cpath = prints("print(package.path) print(package.cpath)")
    for folder in ("/usr/share/lua/5.1", "/usr/local/share/lua/5.1"):
        assert path.split(";").count(f"{folder}/?.lua") == 1
        assert path.split(";").count(f"{folder}/?/init.lua") == 1
    for folder in (f"/usr/lib/{arch}/lua/5.1", f"/usr/local/lib/{arch}/lua/5.1", "/usr/local/lib/lua/5.1"):
        assert cpath.split(";").count(f"{folder}/?.so") == 1


def test_a_python_that_does_not_know_its_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys.implementation, "_multiarch", raising=False)
    for_c = folders()[1].split(b";")
    assert for_c == [b"/usr/local/lib/lua/5.1/?.so", b"/usr/lib/lua/5.1/?.so"]


def test_the_environment_replaces_the_paths(tmp_path: Path) -> None:
    (tmp_path / "mine.lua").write_text("return { name = ... }")
    own = f"{tmp_path}/?.lua"
    script = "print(require('mine').name) print(package.path)"
    assert printed(script, LUA_PATH=own) == ["mine", own]
    name, path = printed(script, LUA_PATH=f"{own};;")
    assert name == "mine"
    assert path.startswith(f"{own};./?.lua;")
    assert "/usr/share/lua/5.1/?.lua" in path.split(";")
    assert printed("print(package.cpath)", LUA_CPATH="/nowhere/?.so") == ["/nowhere/?.so"]


def test_a_module_is_not_a_library_of_ours(tmp_path: Path) -> None:
    """LuaSocket has the name of the global `socket`."""
    (tmp_path / "socket.lua").write_text("return { theirs = true }")
    script = "print(require('socket').theirs, socket.connect ~= nil)"
    assert printed(script, LUA_PATH=f"{tmp_path}/?.lua") == ["true\ttrue"]
