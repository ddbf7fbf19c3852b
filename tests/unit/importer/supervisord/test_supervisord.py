"""Each sample of supervisord.conf becomes the definitions that stand below it, and they pass the check."""

from __future__ import annotations

from pathlib import Path

import pytest

from importer import commands
from importer.result import Outcome
from importer.supervisord.convert import convert
from tests.unit.importer.samples import converted, read_samples

SAMPLES = read_samples(Path(__file__).with_name("samples.txt"))


@pytest.mark.parametrize("name", SAMPLES)
def test_samples(name: str, tmp_path: Path) -> None:
    assert converted("supervisord", SAMPLES[name], tmp_path) == SAMPLES[name].result


def test_variables_of_the_environment_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_PORT", "8080")
    path = tmp_path / "supervisord.conf"
    path.write_text("[program:web]\ncommand=/opt/web -p %(ENV_SAMPLE_PORT)s\n")
    (file,) = convert([str(path)]).files
    assert file.definitions[0].keys["arg"] == ["-p", 8080]


def test_a_program_without_a_folder_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "sample-program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(commands, "PATH", str(tmp_path))
    path = tmp_path / "supervisord.conf"
    path.write_text("[program:web]\ncommand=sample-program -v\n")
    result = convert([str(path)])
    keys = result.files[0].definitions[0].keys
    assert (keys["exec"], keys["arg"]) == (str(program), ["-v"])
    assert result.count(Outcome.APPROXIMATE) == 0


def test_every_directive_has_one_finding(tmp_path: Path) -> None:
    path = tmp_path / "supervisord.conf"
    path.write_text(
        "[supervisord]\nlogfile=/x\nuser=root\n[unix_http_server]\nfile=/x\n[program:web]\ncommand=/opt/web\n"
        "numprocs=2\nprocess_name=%(program_name)s%(process_num)d\nstdout_logfile=/x\nstdout_logfile_maxbytes=1MB\n"
        "[eventlistener:ears]\ncommand=/opt/ears\nevents=TICK_5\n"
    )
    found = sorted((each.line, each.outcome.name) for each in convert([str(path)]).findings)
    assert found == [
        (1, "CARRIED"), (2, "LEFT_OUT"), (3, "CARRIED"), (4, "LEFT_OUT"), (5, "LEFT_OUT"), (6, "CARRIED"),
        (7, "CARRIED"), (8, "CARRIED"), (9, "CARRIED"), (10, "APPROXIMATE"), (11, "APPROXIMATE"), (12, "LEFT_OUT"),
        (13, "LEFT_OUT"), (14, "LEFT_OUT"),
    ]  # fmt: skip


def test_two_files_have_programs_of_one_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("[program:web]\ncommand=/opt/web\n")
    result = convert([str(tmp_path / "a"), str(tmp_path / "b")])
    assert [file.name for file in result.files] == ["web.lua", "web_2.lua"]
    assert [file.definitions[0].name for file in result.files] == ["web", "web_2"]
