"""Definitions of modules for tests, and what their functions write down in the order in which they run."""

from __future__ import annotations

from pathlib import Path

from tests.daemon import wait_until

NOTE = """
local function note(text)
  local file = assert(io.open("@/out/notes", "a"))
  file:write(text, "\\n")
  file:close()
end
"""


def notes(folder: Path) -> list[str]:
    path = folder / "out" / "notes"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def wait_notes(folder: Path, *expected: str) -> None:
    wait_until(lambda: notes(folder) == list(expected), f"the notes {expected}")


def module(name: str, body: str = "", *depends: str) -> str:
    names = "".join(f', "{other}"' for other in depends)
    return f'module("{name}", package.seeall)\ndepends(_M{names})\n{body}\n'
