"""Each sample of inetd.conf becomes the definitions that stand below it, and they pass the check."""

from __future__ import annotations

from pathlib import Path

import pytest

from importer.inetd.convert import convert
from importer.result import Outcome
from tests.unit.importer.samples import converted, read_samples

SAMPLES = read_samples(Path(__file__).with_name("samples.txt"))


@pytest.mark.parametrize("name", SAMPLES)
def test_samples(name: str, tmp_path: Path) -> None:
    assert converted("inetd", SAMPLES[name], tmp_path) == SAMPLES[name].result


def test_findings_have_the_line_and_the_worst_fate(tmp_path: Path) -> None:
    path = tmp_path / "inetd.conf"
    path.write_text("# tools\n\ndaytime stream tcp nowait.9 root/daemon /bin/date\necho dgram udp wait root internal\n")
    found = [(each.line, each.directive, each.outcome) for each in convert([str(path)]).findings]
    assert found == [
        (3, "daytime stream tcp nowait.9 root/daemon /bin/date", Outcome.CARRIED),
        (3, "nowait.9", Outcome.APPROXIMATE),
        (3, "root/daemon", Outcome.LEFT_OUT),
        (4, "echo dgram udp wait root internal", Outcome.LEFT_OUT),
    ]


def test_a_missing_file_keeps_no_other_from_being_converted(tmp_path: Path) -> None:
    path = tmp_path / "inetd.conf"
    path.write_text("daytime stream tcp nowait root internal\n")
    result = convert([str(tmp_path / "none"), str(path)])
    assert [file.name for file in result.files] == ["daytime.lua"]
    assert [error.text for error in result.errors] == ["cannot read: No such file or directory"]
