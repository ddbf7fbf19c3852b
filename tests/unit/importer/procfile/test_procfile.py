"""Each sample of a Procfile becomes the definitions that stand below it, and they pass the check."""

from __future__ import annotations

from pathlib import Path

import pytest

from importer.procfile.convert import convert
from tests.unit.importer.samples import converted, read_samples

SAMPLES = read_samples(Path(__file__).with_name("samples.txt"))


@pytest.mark.parametrize("name", SAMPLES)
def test_samples(name: str, tmp_path: Path) -> None:
    assert converted("procfile", SAMPLES[name], tmp_path) == SAMPLES[name].result


def test_nothing_tells_the_values_of_variables(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("web: /opt/web\n")
    (tmp_path / ".env").write_text('KEY="hush\\n"\nPORT=hush\nhush\n')
    result = convert([str(tmp_path)])
    assert [(each.line, each.directive) for each in result.findings] == [
        (1, "KEY=…"),
        (2, "PORT=…"),
        (1, "web: /opt/web"),
    ]
    assert [str(error) for error in result.errors] == [f"{tmp_path}/.env:3: 'NAME=VALUE' expected"]
    assert "hush" not in str(result)


def test_a_folder_without_a_procfile(tmp_path: Path) -> None:
    (error,) = convert([str(tmp_path)]).errors
    assert str(error) == f"{tmp_path}/Procfile:1: cannot read: No such file or directory"
