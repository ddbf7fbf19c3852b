"""Sources that are broken or that name what is not there: errors with places, and the rest is converted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from importer.checked import check
from importer.lua_text import file_text
from importer.result import Outcome, Result
from importer.systemd.convert import convert

GOOD = "[Service]\nExecStart=/usr/bin/good\nUser=good\n[Install]\nWantedBy=multi-user.target\n"


def converted(folder: Path, **units: str | bytes) -> Result:
    """Convert units of a folder, beside one that is good and depends on all of them."""
    for name, text in units.items():
        path = folder / name.replace("__", "@.").replace("_", ".")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    others = " ".join(name.replace("_", ".") for name in units)
    (folder / "good.service").write_text(f"[Unit]\nRequires={others}\nAfter={others}\n{GOOD}")
    result = convert([str(folder)])
    texts = {file.name: file_text(file) for file in result.files}
    assert "good.lua" in texts
    assert check(texts).problems == []
    return result


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("[Service]\nExecStart=/bin/a 'b\n", 2, "a quote ' is not closed"),
        ("[Service]\nnonsense\n", 2, "neither a [Section] nor KEY=VALUE"),
        ("ExecStart=/bin/a\n", 1, "in front of the first [Section]"),
        ("[Service]\nUser=a\n", 1, "there is no ExecStart="),
        ("[Service]\nExecStart=\n", 1, "there is no ExecStart="),
        ("[Service]\nExecStart=/bin/a %d\n", 2, "the specifier %d has no equivalent"),
        ("[Service]\nExecStart=@/bin/a\n", 2, "the prefix @ needs a name"),
        ('[Service]\nExecStart=/bin/a\nExecStopPost=/bin/b "\n', 3, "not closed"),
        (b"[Service]\nExecStart=/bin/\xff\n", 2, "is not UTF-8"),
        (b"[Service]\n\0\n", 2, "NUL"),
    ],
)
def test_broken_services(tmp_path: Path, text: str | bytes, line: int, message: str) -> None:
    result = converted(tmp_path, bad_service=text)
    (error,) = result.errors
    assert str(error).startswith(f"{tmp_path}/bad.service:{line}: cannot ") or f"bad.service:{line}: " in str(error)
    assert message in str(error)
    assert [file.name for file in result.files] == ["good.lua"]


def test_a_broken_drop_in_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.service.d").mkdir()
    (tmp_path / "bad.service.d" / "a.conf").write_text("[Service]\n???\n")
    result = converted(tmp_path, bad_service=GOOD)
    assert "bad.service.d/a.conf:2: " in str(result.errors[0])


def test_sockets_and_timers_without_a_service(tmp_path: Path) -> None:
    result = converted(tmp_path, a_socket="[Socket]\nListenStream=1\n", b_timer="[Timer]\nOnBootSec=1\n")
    assert [error.file for error in result.errors] == [f"{tmp_path}/a.socket", f"{tmp_path}/b.timer"]


def test_a_socket_without_an_equivalent(tmp_path: Path) -> None:
    result = converted(tmp_path, a_socket="[Socket]\nListenNetlink=route\n", a_service=GOOD)
    assert "no socket of it has an equivalent" in str(result.errors[0])


@pytest.mark.parametrize("value", ["x:1", "70000", "vsock:2:3", "1.2.3.4", "[::1]:x", ""])
def test_addresses_that_are_none(tmp_path: Path, value: str) -> None:
    result = converted(tmp_path, a_socket=f"[Socket]\nListenStream=1\nListenStream={value}\n", a_service=GOOD)
    assert not result.errors or value == ""


def test_what_is_left_out_by_its_name(tmp_path: Path) -> None:
    os.symlink("/dev/null", tmp_path / "masked.service")
    result = converted(tmp_path, data_mount="[Mount]\n", t__service=GOOD, empty_target="[Unit]\n")
    found = {finding.directive: finding.text for finding in result.findings if finding.line == 1}
    assert {"data.mount", "t@.service", "masked.service", "empty.target"} <= found.keys()
    assert all(finding.outcome is Outcome.LEFT_OUT for finding in result.findings if finding.directive in found)


def test_paths_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "good.service").write_text(GOOD)
    (tmp_path / "t@.service").write_text(GOOD)
    paths = ["missing.service", "nothing", "t@.service", "t@one.service", "good.service"]
    result = convert([str(tmp_path / name) for name in paths])
    assert [os.path.basename(error.file) for error in result.errors] == ["missing.service", "nothing", "t@.service"]
    assert [file.name for file in result.files] == ["t@one.lua", "good.lua"]


def test_links_are_further_names(tmp_path: Path) -> None:
    os.symlink("good.service", tmp_path / "alias.service")
    result = converted(tmp_path, web_service="[Unit]\nRequires=alias.service\nAfter=alias.service\n" + GOOD)
    web = next(file for file in result.files if file.name == "web.lua")
    names = {file.name for file in result.files}
    assert names == {"good.lua", "web.lua"}
    assert web.definitions[0].keys.get("depends", ["good"]) == ["good"]


def test_everything_of_every_folder_of_systemd_passes_the_check() -> None:
    """Units of this host, whatever they are."""
    folder = "/lib/systemd/system"
    if not os.path.isdir(folder):
        pytest.skip("this host has no units")
    result = convert([folder])
    assert result.files
    assert check({file.name: file_text(file) for file in result.files}).problems == []
