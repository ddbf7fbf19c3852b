"""Each sample of circus.ini becomes the definitions that stand below it, and they pass the check."""

from __future__ import annotations

from pathlib import Path

import pytest

from importer.circus.convert import convert
from tests.unit.importer.samples import converted, read_samples

SAMPLES = read_samples(Path(__file__).with_name("samples.txt"))


@pytest.mark.parametrize("name", SAMPLES)
def test_samples(name: str, tmp_path: Path) -> None:
    assert converted("circus", SAMPLES[name], tmp_path) == SAMPLES[name].result


def test_variables_of_the_environment_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_HOME", "/opt/sample")
    path = tmp_path / "circus.ini"
    path.write_text("[watcher:web]\ncmd=$(circus.env.SAMPLE_HOME)/web\n[env:web]\nPATH=$SAMPLE_HOME/bin:$UNKNOWN\n")
    (file,) = convert([str(path)]).files
    assert file.definitions[0].keys["exec"] == "/opt/sample/web"
    assert file.definitions[0].keys["env"] == {"PATH": "/opt/sample/bin:$UNKNOWN"}


def test_two_files_have_watchers_of_one_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("[watcher:web]\ncmd=/opt/web\n")
    result = convert([str(tmp_path / "a"), str(tmp_path / "b")])
    assert [file.definitions[0].name for file in result.files] == ["web", "web_2"]
