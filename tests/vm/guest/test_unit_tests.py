"""The unit tests of what depends most on the kernel: here none may leave anything out for want of something.

Those that hypothesis drives are of pure functions, and the same everywhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

from tests.hung import SHOWN

# Rooms, and what they leave out because a machine has what it is about the lack of.
ROOMS = {"process": {"test_a_controller_that_is_not_there"}, "log": set[str](), "notify": set[str]()}
if tuple(int(number) for number in os.uname().release.split(".")[:2]) < (6, 9):
    ROOMS["process"].add("test_nobody_else_is_looked_at_for_it")  # PIDFD_SIGNAL_PROCESS_GROUP

pytestmark = pytest.mark.apart


@pytest.mark.parametrize("room", ROOMS)
def test_of_a_room(room: str, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-m", "not hypothesis", f"--junitxml={report}"]
    command += ["-p", "pytest_timeout", "-p", "_hypothesis_pytestplugin"]
    result = subprocess.run([*command, f"tests/unit/{room}"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    cases = list(xml.etree.ElementTree.parse(report).iter("testcase"))  # noqa: S314 - pytest's own
    assert len(cases) > 30
    skipped = [(case.get("name"), each.get("message")) for case in cases for each in case.iter("skipped")]
    assert {name for name, reason in skipped if reason != SHOWN} == ROOMS[room]
