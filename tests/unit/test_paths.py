"""Every path that the pages for contributors name is there, and each room has its page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md", *sorted((ROOT / "docs" / "design").glob("*.md"))]
SUFFIXES = r"\.(?:py|c|h|lua|md|sql|varlink|cfg|toml)"
# In backquotes, one or several: a file by its suffix, a folder by its last "/".  Others begin at the root of some host.
PATH = re.compile(rf"(?!/)[\w.*/-]+(?:{SUFFIXES}|/)|(?:tests|supervisor|workers)(?:/\w+)+")
NAMES = [
    (page, word)
    for page in PAGES
    for part in re.split(r"^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[::2]
    for span in re.findall(r"`([^`]+)`", part)
    for word in span.split()
    if PATH.fullmatch(word)
]
PLACEHOLDERS = re.compile(r"NAME|ROOM|METHOD|VERB")


@pytest.mark.parametrize(("page", "name"), sorted(set(NAMES)), ids=[f"{p.name}:{n}" for p, n in sorted(set(NAMES))])
def test_a_path_that_is_named_is_there(page: Path, name: str) -> None:
    """A path begins at the top of the checkout; a placeholder stands for any name, which some path has to have."""
    assert list(ROOT.glob(PLACEHOLDERS.sub("*", name))), f"{page.relative_to(ROOT)} names {name!r}, which is not there"


def test_the_paths_are_found() -> None:
    assert len(NAMES) > 40


def test_each_room_has_its_page() -> None:
    rooms = {path.parent.name for top in ("supervisor", "workers") for path in ROOT.glob(f"{top}/*/__init__.py")}
    parts = {"accept", "importer"}  # the acceptor, in the room of launch; a folder of its own
    assert {path.stem for path in (ROOT / "docs" / "design").glob("*.md")} == rooms | parts
    overview = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\(design/(\w+)\.md", overview)) == rooms | parts
    assert overview.count("\n") <= 150
