"""The installed files are those of the source."""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path

import spawn_supervisor

ROOT = Path(__file__).parents[2]


def test_every_package_is_installed() -> None:
    settings = configparser.RawConfigParser()
    settings.read(ROOT / "setup.cfg")
    listed = set(settings["options"]["packages"].split())
    found = {
        ".".join(("spawn_supervisor", *path.parent.relative_to(ROOT).parts))
        for top in ("supervisor", "workers", "importer")
        for path in (ROOT / top).rglob("__init__.py")
    }
    # its folder is beside the others: setup.cfg, package_dir
    assert listed == found | {"spawn_supervisor", "spawn_supervisor.supervisor.lua"}


def test_compiled_parts_need_no_newer_c_library_than_the_tag_of_wheels_says() -> None:
    tag = re.search(r'MANYLINUX = "manylinux_(\d+)_(\d+)"', (ROOT / "setup.py").read_text())
    assert tag is not None
    oldest = tuple(map(int, tag.groups()))
    libraries = list(Path(spawn_supervisor.HERE).rglob("*.so"))
    assert len(libraries) > 5
    for library in libraries:
        symbols = subprocess.run(["objdump", "-T", library], capture_output=True, text=True, check=True).stdout
        versions = {tuple(map(int, found.split("."))) for found in re.findall(r"GLIBC_([0-9.]+)", symbols)}
        assert versions, library
        assert {version for version in versions if version[:2] > oldest} == set(), library


def test_long_recipes_are_programs_of_tools() -> None:
    assert (ROOT / "Makefile").read_text().count("\n") < 120
    programs = [path for path in (ROOT / "tools").iterdir() if path.suffix != ".sh"]
    assert [path.name for path in programs if not path.stat().st_mode & 0o111] == []
