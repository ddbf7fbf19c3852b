"""Each sample of service directories becomes the definitions that stand below it, and they pass the check."""

from __future__ import annotations

from pathlib import Path

import pytest

from importer.runit.convert import convert
from tests.unit.importer.samples import converted, read_samples

SAMPLES = read_samples(Path(__file__).with_name("samples.txt"))


@pytest.mark.parametrize("name", SAMPLES)
def test_samples(name: str, tmp_path: Path) -> None:
    assert converted("runit", SAMPLES[name], tmp_path) == SAMPLES[name].result


def test_secrets_of_a_folder_stay_in_it(tmp_path: Path) -> None:
    run, secret = tmp_path / "run", tmp_path / "env" / "TOKEN"
    run.write_text("#!/bin/sh\nexec envdir env /opt/web\n")
    secret.parent.mkdir()
    secret.write_text("hush\n")
    secret.chmod(0o640)
    (file,) = convert([str(tmp_path)]).files
    assert file.definitions[0].keys["exec"] == str(run)
    secret.chmod(0o644)
    (file,) = convert([str(tmp_path)]).files
    assert file.definitions[0].keys["env"] == {"TOKEN": "hush"}


def test_an_assignment_that_needs_a_shell_is_not_told(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("#!/bin/sh\nexport TOKEN=$HUSH\nexec /opt/web\n")
    result = convert([str(tmp_path)])
    assert "HUSH" not in str(result)
    assert "export TOKEN=" in result.findings[0].text
