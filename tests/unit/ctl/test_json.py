"""The shape of what `--json` prints is the one that docs/spawnctl.md tells."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.ctl.errors import ExitCode
from supervisor.ctl.verbs import VERBS

TEXT = (Path(__file__).parents[3] / "docs" / "spawnctl.md").read_text(encoding="utf-8")
TABLE = TEXT[TEXT.index("| verb | `--json` prints |") :].partition("\n\n")[0]
ROWS = {
    name: shape.partition(":")[0].partition(",")[0].strip()
    for names, shape in re.findall(r"^\| (`.*?) \| (.*) \|$", TABLE, re.M)
    for name in re.findall(r"`([^`]*)`", names)
}
UNIT = str(Path(__file__).parents[3] / "conf" / "systemd" / "spawnd.service")
ARGUMENTS = {
    "status": ["web"], "why": ["web"], "start": ["--no-wait", "web"], "stop": ["--no-wait", "web"], "show": ["web"],
    "restart": ["--no-wait", "web"], "sleep": ["--no-wait", "web"], "reload": ["--no-wait", "web"], "reset": ["web"],
    "fds": ["web"], "logs": ["web"], "import": ["systemd", UNIT],
    "signal": ["TERM", "web"], "kill": ["web", "4711"], "shutdown": ["--no-wait"],
}  # fmt: skip
KINDS: dict[str, Callable[[object], bool]] = {
    "array of objects": lambda value: isinstance(value, list) and all(isinstance(item, dict) for item in value),
    "array of arrays of names": lambda value: isinstance(value, list) and all(isinstance(item, list) for item in value),
    "JSON Lines": lambda value: isinstance(value, dict),  # of one service
    "object": lambda value: isinstance(value, dict),
}
# need somebody who answers, or go on
ELSEWHERE = {"call", "call --more", "logs -f", "monitor", "accounting", "reexec", "reopen"}


def test_every_verb_has_a_row() -> None:
    assert {name.partition(" ")[0] for name in ROWS} == VERBS.keys(), "docs/spawnctl.md: name the verb in a row"


@pytest.mark.parametrize("name", sorted(ROWS.keys() - ELSEWHERE))
def test_one_value_of_that_shape(
    supervise: Callable[..., None], spawnctl: Callable[..., int], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    supervise()
    verb, *options = name.split()
    status = spawnctl("--json", verb, *options, *ARGUMENTS.get(verb, []))
    assert status != ExitCode.USAGE, f"add the arguments that {verb!r} requires to ARGUMENTS"
    out = capsys.readouterr().out
    assert KINDS[ROWS[name]](json.loads(out)), out
