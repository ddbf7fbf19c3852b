"""Each Lua library has a page with exactly its functions, and the examples of the pages print what they show."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from supervisor.linux.namespaces import CLONE_NEWNET, CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare
from tests.postgres import Postgres
from tests.unit.definitions.loading import Files
from tests.unit.process.forked import in_child
from tests.unit.process.requirements import needs_root
from tests.unit.workers.lua.scripts import Hosted, complete, hosted, prints, wait_for
from tests.unit.workers.lua.test_cgroup import ALL
from workers.function.main import Caller, Outcome
from workers.lua.libraries import FUNCTION, LIBRARIES, SCRIPT
from workers.lua.state import LuaState
from workers.reaper.statistics import COUNTERS

DOCS = Path(__file__).parents[4] / "docs"
OVERVIEW = (DOCS / "lua.md").read_text(encoding="utf-8")
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((DOCS / "lua").glob("*.md"))}
PATH = "/system.slice/system-cm4all.slice/bp-spawn.scope/a"

# Given a kernel, returns functions of Python that do nothing, and a function that lists what a library gives to
# scripts: a line for each global and each function in one, and `:NAME` for each method of its objects; behind each the
# number of its parameters, 0 for an unknown number.
LOOK = """
local kernel = ...
local made, class = {}, kernel.class
function kernel.class(name, methods, show)
  made[#made + 1] = methods
  return class(name, methods, show)
end
local function parameters(value)
  if type(value) ~= "function" then return 0 end
  return debug.getinfo(value, "u").nparams - (debug.getlocal(value, 1) == "self" and 1 or 0)
end
local function look(globals)
  local lines, methods = {}, made
  made = {}
  local function add(name, value) lines[#lines + 1] = name .. " " .. parameters(value) end
  for name, value in pairs(globals) do
    if type(value) == "table" then
      for key, called in pairs(value) do add(name .. "." .. key, called) end
    else
      add(name, value)
    end
  end
  for _, each in ipairs(methods) do
    if type(each) == "function" then add("[attributes]") end
    for name, value in pairs(type(each) == "table" and each or {}) do add(":" .. name, value) end
  end
  return table.concat(lines, "\\n")
end
return setmetatable({}, { __index = function() return function() end end }), look
"""


def given(host: str) -> dict[str, dict[str, int]]:
    """Return what each library of a host gives to scripts, with numbers of parameters; those that give nothing go."""
    state = LuaState(lambda name, error: None)
    kernel = state.load("kernel.lua")
    python, look = state.globals().loadstring(LOOK.encode())(kernel)
    found = {}
    for module, class_name in LIBRARIES[host]:
        name = getattr(import_module(f"workers.lua.{module}"), class_name).name
        lines = look(state.load(f"{name}.lua", kernel, python)).decode().splitlines()
        found[name] = {key: int(number) for key, number in (line.split(" ") for line in lines)}
    state.close()
    return {name: functions for name, functions in found.items() if functions}


GIVEN = {host: given(host) for host in LIBRARIES}
PAGE_OF = {name: functions for libraries in GIVEN.values() for name, functions in libraries.items()}

# `net.add(name, kind [, options])` or `unix.users[user]`, in a heading or in the first column of a table
SIGNATURE = re.compile(r"^(?:#+ |\| `)(?:(\w+)[.:])?(\w+)(?:\(((?:[^()]|\(\))*)\)|[.\[].*?\])", re.M)


def told(library: str) -> dict[str, int | None]:
    """Return what the page of a library describes, with numbers of parameters; None where a `…` stands for some."""
    found: dict[str, int | None] = {}
    for of, name, parameters in SIGNATURE.findall(PAGES[library]):
        key = f"{of}.{name}" if of == library else f":{name}" if of else name
        many = "…" in parameters
        found[key] = None if many else len(re.findall(r"\w+", parameters))
    return found


def test_each_library_has_a_page_and_each_page_a_library() -> None:
    assert sorted(PAGES) == sorted(PAGE_OF)
    assert len(PAGES) > 10


@pytest.mark.parametrize("library", sorted(PAGE_OF.keys() - {"cgroup"}))
def test_a_page_describes_exactly_the_functions(library: str) -> None:
    missing, unknown = set(PAGE_OF[library]) - set(told(library)), set(told(library)) - set(PAGE_OF[library])
    assert not missing, f"docs/lua/{library}.md: describe {missing}"
    assert not unknown, f"docs/lua/{library}.md: {unknown} do not exist"


@pytest.mark.parametrize("library", sorted(PAGE_OF.keys() - {"cgroup"}))
def test_a_signature_has_as_many_parameters_as_the_function(library: str) -> None:
    for name, number in told(library).items():
        if number is not None and PAGE_OF[library][name]:
            assert number == PAGE_OF[library][name], f"docs/lua/{library}.md: {name}"


def test_the_functions_are_found() -> None:
    assert sum(map(len, PAGE_OF.values())) > 80
    assert PAGE_OF["cgroup"] == {"[attributes]": 0}
    assert PAGE_OF["socket"] == {"socket.connect": 2, ":send": 3, ":close": 0}


def test_every_attribute_of_a_cgroup_is_described() -> None:
    page = PAGES["cgroup"]
    headings = re.findall(r"cgroup\.(\w+)", "".join(re.findall(r"^## .*$", page, re.M)))
    cells = "".join(re.findall(r"^\|([^|]*)\|", page, re.M))
    names = {"path", "btime", "age", "xattr", "parent", *(counter.name for counter in COUNTERS)}
    assert {*headings, *re.findall(r"`(\w+)`", cells)} == names


@pytest.mark.parametrize("host", LIBRARIES)
def test_the_overview_lists_the_libraries_by_host(host: str) -> None:
    before, _, after = OVERVIEW.partition("\n# Functions of modules\n")
    text = before if host == SCRIPT else after
    assert set(re.findall(r"^\| \[\w+\]\(lua/(\w+)\.md\)", text, re.M)) == set(GIVEN[host])


def test_globals_of_the_host_itself_are_described() -> None:
    plain = set(
        "_G _VERSION arg assert bit collectgarbage coroutine debug dofile error gcinfo getfenv getmetatable io "
        "ipairs jit load loadfile loadstring math module newproxy next os package pairs pcall print rawequal rawget "
        "rawset require select setfenv setmetatable string table tonumber tostring type unpack xpcall".split()
    )
    added = set(prints("for name in pairs(_G) do print(name) end")) - plain
    assert added | {"cgroup"} == set(GIVEN[SCRIPT])


# examples

EXAMPLE = re.compile(r"```lua\n(.*?)```", re.S)
OF_SCRIPTS = [example for text in (OVERVIEW, *map(PAGES.get, GIVEN[SCRIPT])) for example in EXAMPLE.findall(text or "")]


def shown(example: str) -> list[str]:
    return re.findall(r"--> (.*)", example)


@pytest.fixture
def peers(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return the replacements for the addresses of the examples."""
    with ExitStack() as stack:
        control = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        control.bind(f"{tmp_path}/control")
        collector = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        collector.bind(("127.0.0.1", 0))
        yield {
            "/run/cm4all/workshop/control": f"{tmp_path}/control",
            "127.0.0.1:7171": f"127.0.0.1:{collector.getsockname()[1]}",
        }


@pytest.mark.parametrize("example", OF_SCRIPTS, ids=lambda text: text.split("\n")[0][:40])
def test_examples_of_scripts(
    example: str, peers: dict[str, str], server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOST", str(server.folder))
    monkeypatch.setenv("PGUSER", "tester")
    expected = shown(example)
    assert expected, "an example shows what it does"
    for written, real in peers.items():
        example = example.replace(written, real)

    async def run() -> None:
        async with hosted(example) as kept:
            if kept.host.has("cgroup_released"):
                fd = os.open(tmp_path, os.O_PATH)  # which has no attributes
                assert await kept.host.call("cgroup_released", replace(ALL, path=PATH, fd=fd)), kept.errors.pop()
                os.close(fd)
            await wait_for(lambda: len(printed(kept)) >= len(expected))
            assert [line.replace("script:", "example:") for line in printed(kept)] == expected

    complete(run())


def printed(kept: Hosted) -> list[str]:
    return [line for line in kept.printed if not line.startswith("database ")]


def call_apart(example: str) -> str:
    """Call a function with that body in namespaces of its own, where /run is empty; return what it has printed."""
    out = os.memfd_create("out")

    def run() -> Outcome:
        unshare(CLONE_NEWNS | CLONE_NEWNET)
        mount("none", "/", flags=MS_REC | MS_PRIVATE)
        mount("tmpfs", "/run", "tmpfs")
        os.dup2(out, 1)
        caller = Caller()
        text = f'module("example", package.seeall) function start() {example} end'
        outcome = caller.evaluate(text, "example.lua")
        return caller.call("example", "start") if outcome.ok else outcome

    with open(out, "rb") as file:
        outcome = in_child(run)
        assert outcome.ok, f"{outcome.text} {outcome.trace}"
        return os.pread(file.fileno(), 1 << 20, 0).decode()


@needs_root
@pytest.mark.parametrize("library", GIVEN[FUNCTION])
def test_examples_of_functions(library: str) -> None:
    examples = [example for example in EXAMPLE.findall(PAGES[library]) if "module(" not in example]
    assert examples
    for example in examples:
        expected = shown(example)
        assert expected, f"an example shows what it does:\n{example}"
        assert call_apart(example).splitlines() == expected, example


def test_examples_with_modules_are_accepted(tmp_path: Path) -> None:
    examples = [example for name in GIVEN[FUNCTION] for example in EXAMPLE.findall(PAGES[name]) if "module(" in example]
    assert examples
    for number, example in enumerate(examples):
        folder = tmp_path / str(number)
        folder.mkdir()
        (service,) = Files(folder).load(example).services.values()
        assert service.functions == ("start",)
