"""The file that a function answers in."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from supervisor.process.run import Answer, open_answer, take_answer


def test_an_answer(tmp_path: Path) -> None:
    path = str(tmp_path / "start:a")
    fd = open_answer(path)
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert not os.get_inheritable(fd)
    os.write(fd, json.dumps({"ok": False, "text": "bööm"}).encode())
    os.close(fd)
    assert take_answer(path) == Answer(False, "bööm")
    assert not os.path.exists(path)
    assert take_answer(path) is None


def test_what_was_there_is_another_file(tmp_path: Path) -> None:
    path = str(tmp_path / "start:a")
    old = open_answer(path)
    new = open_answer(path)
    os.write(old, b'{"ok": true, "text": "of one that was killed, and wrote all the same"}')
    assert take_answer(path) is None
    os.close(old)
    os.close(new)


@pytest.mark.parametrize("data", [b"", b'{"ok": tr', b"[]", b'{"ok": true}', b"\xff", b"[" * 60000])
def test_no_answer(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    assert take_answer(str(path)) is None
    assert not path.exists()


def test_half_a_character(tmp_path: Path) -> None:
    (tmp_path / "x").write_text('{"ok": true, "text": "\\ud800"}')
    assert take_answer(str(tmp_path / "x")) == Answer(True, "\\ud800")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("kept")
    os.symlink("target", tmp_path / "x")
    os.close(open_answer(str(tmp_path / "x")))
    assert (tmp_path / "target").read_text() == "kept"
