"""The part of docs/lua.md that is about start-up scripts names everything that exists, and its example is accepted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lupa.luajit21 import lua_type

from tests.unit.definitions.loading import Files
from workers.lua.libraries import FUNCTION, make_libraries
from workers.lua.state import LuaState

TEXT = (Path(__file__).parents[4] / "docs" / "lua.md").read_text(encoding="utf-8").partition("\n# Start-up scripts")[2]
(EXAMPLE,) = re.findall(r"```lua\n(.*?)```", TEXT, re.S)


def loaded_functions() -> list[tuple[str, str]]:
    """Return the functions of the loaded libraries that have a table, by library and name."""
    found = []
    state = LuaState(lambda name, error: None)
    for library in make_libraries(FUNCTION):
        state.install(library.name, library.functions)
        if library.name in ("fsys", "proc"):
            values = state.globals()[library.name.encode()].items()
            found += [(library.name, name.decode()) for name, value in values if lua_type(value) == "function"]
    state.close()
    return sorted(found)


TABLED = loaded_functions()


def section(library: str) -> str:
    return TEXT.partition(f"\n## {library}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize(("library", "name"), TABLED)
def test_every_function_has_a_row(library: str, name: str) -> None:
    has_row = re.search(rf"^\|[^|]*`{name}\(", section(library), re.M) is not None
    assert has_row, f"docs/lua.md has no row for {library}.{name}"


def test_no_row_names_a_function_that_is_not_there() -> None:
    for library in ("fsys", "proc"):
        rows = "\n".join(re.findall(r"^\|([^|]*)\|", section(library), re.M))
        assert set(re.findall(r"`(\w+)\(", rows)) == {name for of, name in TABLED if of == library}


OTHERS = ["syslog.log", "syslog.open", "syslog.close", "unix.users", "unix.groups", "limits.hard"]


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_in_a_table_is_told(name: str) -> None:
    assert f"`{name}" in TEXT


def test_the_example(tmp_path: Path) -> None:
    (service,) = Files(tmp_path).load(EXAMPLE).services.values()
    assert service.functions == ("start",)
