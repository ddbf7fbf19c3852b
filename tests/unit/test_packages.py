"""The installed files are those of the source."""

from __future__ import annotations

import configparser
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_package_is_installed() -> None:
    settings = configparser.RawConfigParser()
    settings.read(ROOT / "setup.cfg")
    listed = set(settings["options"]["packages"].split())
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("supervisor", "workers")
        for path in (ROOT / top).rglob("__init__.py")
    }
    # its folder is beside the others: setup.cfg, package_dir
    assert listed == found | {"supervisor.lua"}


def test_long_recipes_are_programs_of_tools() -> None:
    assert (ROOT / "Makefile").read_text().count("\n") < 120
    programs = [path for path in (ROOT / "tools").iterdir() if path.suffix != ".sh"]
    assert [path.name for path in programs if not path.stat().st_mode & 0o111] == []
