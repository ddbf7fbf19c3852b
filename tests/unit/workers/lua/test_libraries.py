from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from supervisor.places import lua_file
from workers.lua.libraries import FUNCTION, LIBRARIES


@pytest.mark.parametrize("host", LIBRARIES)
def test_each_library_has_a_part_in_lua(host: str) -> None:
    classes = [getattr(import_module(f"workers.lua.{module}"), name) for module, name in LIBRARIES[host]]
    names = [each.name for each in classes]
    assert len(set(names)) == len(names)
    for name in names:
        assert lua_file(f"{name}.lua")


def test_a_call_of_a_function_loads_nothing_that_only_scripts_need() -> None:
    code = "import sys; from workers.lua.libraries import *; make_libraries(sys.argv[1]); print(*sys.modules)"
    command = [sys.executable, "-P", "-c", code, FUNCTION]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert not {"asyncio", "psycopg", "nacl", "workers.lua.socket", "workers.lua.pg"}.intersection(loaded)
