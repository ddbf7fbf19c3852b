"""Samples of units become the definitions that they show, which pass the check."""

from __future__ import annotations

from pathlib import Path

import pytest

from importer.checked import check
from importer.kinds import load
from importer.lua_text import file_text
from tests.unit.importer.systemd.samples import FOLDER, expected, write_units

NOT_READ = ("empty.target", "worker@.service")  # a target without members, and a template that links lead to
SAMPLES = sorted(FOLDER.glob("*.txt"))


def test_there_are_many() -> None:
    assert len(SAMPLES) >= 25


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_becomes_these_definitions(sample: Path, tmp_path: Path) -> None:
    result = load("systemd")(write_units(sample, tmp_path))
    assert result.errors == []
    texts = {file.name: file_text(file) for file in result.files}
    assert texts == expected(sample)
    assert check(texts).problems == []


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_each_line_of_a_sample_has_its_fate(sample: Path, tmp_path: Path) -> None:
    paths = write_units(sample, tmp_path)
    found = {(Path(finding.file).name, finding.line) for finding in load("systemd")(paths).findings}
    for file in tmp_path.rglob("*"):
        if file.is_dir() or file.is_symlink() or file.name in NOT_READ:
            continue
        continues = False
        for number, line in enumerate(file.read_text().splitlines(), 1):
            begins = "=" in line and not line.startswith(("[", "#", ";", " ")) and not continues
            continues = line.endswith("\\")
            if begins:
                assert (file.name, number) in found, f"{file.name}:{number}: {line}"
