"""The Lua files that ship: package data of `supervisor.lua`, or `lua/` of the source tree."""

from __future__ import annotations

import os

_HERE = os.path.dirname(os.path.abspath(__file__))
_PLACES = (os.path.join(_HERE, "..", "lua"), os.path.join(_HERE, "..", "..", "lua"))


def lua_file(name: str) -> bytes:
    """The text of a Lua file that ships.  Raises FileNotFoundError."""
    for place in _PLACES:
        try:
            with open(os.path.join(place, name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            continue
    raise FileNotFoundError(f"cannot find the Lua file {name!r} that belongs to this program")
