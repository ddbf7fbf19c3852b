"""docs/spawnctl.md has a section for every verb, with an example, and every exit status."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from supervisor.ctl.errors import ExitCode
from supervisor.ctl.verbs import VERBS

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "spawnctl.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", TEXT, re.M | re.S))


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_usage_and_an_example(verb: str) -> None:
    assert verb in SECTIONS, f"docs/spawnctl.md has no section about {verb!r}"
    assert re.search(rf"^    spawnctl {verb}\b", SECTIONS[verb], re.M)
    assert re.search(rf"^    \$ spawnctl {verb}\b", SECTIONS[verb], re.M)


def test_no_section_is_about_a_verb_that_is_not_there() -> None:
    assert SECTIONS.keys() == VERBS.keys()


def test_readme_lists_every_verb() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = re.search(r"^(`list`, [^;]*);", readme, re.M)
    assert listed, "README.md has no list of verbs that begins with `list`"
    assert sorted(re.findall(r"`(\w+)`", listed[1])) == sorted(VERBS), "README.md lists other verbs than VERBS"


def test_every_exit_status_is_told() -> None:
    codes = set(ExitCode)
    section = TEXT[TEXT.index("## Exit status") : TEXT.index("## Looking")]
    assert codes == {int(number) for number in re.findall(r"(?:^\| |with )(\d+)", section, re.M)}
