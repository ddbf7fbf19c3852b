"""`spawnctl import`: output, files, summary and exit status. No supervisor runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from importer.kinds import KINDS
from supervisor.ctl.completion import candidates
from supervisor.ctl.errors import ExitCode

Spawnctl = Callable[..., int]
Capture = pytest.CaptureFixture[str]
INSTALL = "[Install]\nWantedBy=multi-user.target\n"
PLAIN = f"[Service]\nExecStart=/bin/sleep 9\nUser=nobody\n{INSTALL}"
BOXED = f"[Service]\nProtectSystem=strict\nExecStart=/bin/sleep 9\n{INSTALL}"


@pytest.fixture
def units(tmp_path: Path) -> Path:
    folder = tmp_path / "units"
    folder.mkdir()
    (folder / "plain.service").write_text(PLAIN)
    (folder / "boxed.service").write_text(BOXED)
    return folder


def test_the_definitions_and_the_summary(spawnctl: Spawnctl, units: Path, capsys: Capture) -> None:
    assert spawnctl("import", "systemd", str(units / "plain.service")) == ExitCode.DONE
    out, err = capsys.readouterr()
    assert out.startswith("-- from plain.service\n\nplain = {\n")
    assert err.splitlines()[0].split() == ["PLACE", "DIRECTIVE", "OUTCOME", "NOTE"]
    assert err.splitlines()[-1] == "3 directives: 3 carried over, 0 approximate, 0 not carried over"


def test_a_directive_that_is_left_out_is_status_1(spawnctl: Spawnctl, units: Path, capsys: Capture) -> None:
    assert spawnctl("import", "systemd", str(units)) == ExitCode.FAILED
    out, err = capsys.readouterr()
    assert "-- boxed.lua\n" in out
    assert "  -- ProtectSystem=strict: not carried over, there is no sandboxing (boxed.service:2)\n" in out
    assert "1 not carried over" in err


def test_files_are_written_and_never_overwritten(
    spawnctl: Spawnctl, units: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "new" / "out"
    assert spawnctl("import", "systemd", str(units), "--out", str(folder), "--check") == ExitCode.FAILED
    out, err = capsys.readouterr()
    assert out == ""
    assert {path.name for path in folder.iterdir()} == {"plain.lua", "boxed.lua"}
    assert f"written: {folder}/plain.lua" in err
    assert "OK: 2 services" in err
    (folder / "plain.lua").write_text("mine")
    (folder / "boxed.lua").unlink()
    assert spawnctl("import", "systemd", str(units), "--out", str(folder)) == ExitCode.USAGE
    assert f"cannot write '{folder}/plain.lua': it exists" in capsys.readouterr().err
    assert (folder / "plain.lua").read_text() == "mine"
    assert (folder / "boxed.lua").exists()


def test_a_folder_that_cannot_be_made(spawnctl: Spawnctl, units: Path, capsys: Capture) -> None:
    path = str(units / "plain.service")
    assert spawnctl("import", "systemd", path, "--out", f"{path}/x") == ExitCode.USAGE
    assert "cannot make the directory" in capsys.readouterr().err


def test_a_broken_source_is_status_2_and_the_others_are_converted(
    spawnctl: Spawnctl, units: Path, capsys: Capture
) -> None:
    (units / "bad.service").write_text("[Service]\nExecStart='\n")
    assert spawnctl("import", "systemd", str(units)) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert "plain = {" in out
    assert f"spawnctl: {units}/bad.service:2: cannot convert ExecStart=: a quote ' is not closed\n" in err


def test_nothing_at_all(spawnctl: Spawnctl, tmp_path: Path, capsys: Capture) -> None:
    assert spawnctl("import", "systemd", str(tmp_path / "none.service")) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert "none.service:1: cannot read: No such file or directory" in err


@pytest.mark.parametrize("arguments", [("nothing", "/x"), ("systemd",), ("systemd", "/x", "--out", "")])
def test_wrong_usage(spawnctl: Spawnctl, arguments: tuple[str, ...]) -> None:
    assert spawnctl("import", *arguments) == ExitCode.USAGE


def test_json(spawnctl: Spawnctl, units: Path, capsys: Capture) -> None:
    assert spawnctl("--json", "import", "systemd", str(units), "--check") == ExitCode.FAILED
    found = json.loads(capsys.readouterr().out)
    assert [file["name"] for file in found["files"]] == ["boxed.lua", "plain.lua"]
    assert found["files"][0]["services"] == ["boxed"]
    assert found["counts"] == {"carried over": 5, "approximate": 0, "not carried over": 1}
    assert found["check"]["problems"] == []
    assert found["errors"] == []
    left_out = [each for each in found["findings"] if each["outcome"] == "not carried over"]
    assert [(each["directive"], each["line"]) for each in left_out] == [("ProtectSystem=strict", 2)]


def test_completion_of_kinds_and_paths(units: Path) -> None:
    (units / "two words.service").touch()
    assert [word for word, _meaning in candidates(["import", ""])] == list(KINDS)
    found = [word for word, _meaning in candidates(["import", "systemd", f"{units}/"])]
    assert found == [f"{units}/boxed.service", f"{units}/plain.service"]
    assert (f"{units}/", "directory") in list(candidates(["import", "systemd", f"{units.parent}/"]))
