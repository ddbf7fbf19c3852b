"""A source that is damaged anywhere gives definitions and errors with their lines, and never raises."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from importer.kinds import load
from importer.lua_text import file_text
from tests.unit.importer.samples import read_samples

KINDS = ("circus", "inetd", "procfile", "runit", "supervisord", "xinetd")
JUNK = (*"=:/%$()[]{}\"'\\#;,.+-0²\t\n\0", "%(", "$(circus.", "{1,", "9" * 30, "\ud800")


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_samples(kind: str, tmp_path: Path) -> None:
    random = Random(kind)  # the same damage each time
    convert = load(kind)
    for number, sample in enumerate(read_samples(Path(__file__).parent / kind / "samples.txt").values()):
        for name, text in sample.files.items():
            at = random.randrange(len(text) + 1)
            sample.files[name] = text[:at] + random.choice(("", random.choice(JUNK))) + text[at + random.randrange(9) :]
        folder = tmp_path / str(number)
        folder.mkdir()
        result = convert(sample.write(folder))
        for file in result.files:
            assert file_text(file).endswith("\n")
        for error in result.errors:
            assert str(error).startswith(f"{error.file}:{error.line}: ")
            assert error.line >= 1
