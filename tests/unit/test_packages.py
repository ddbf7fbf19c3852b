"""What is installed is what is there."""

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
