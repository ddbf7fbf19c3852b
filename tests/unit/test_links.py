"""Every link of the pages leads to a file that is there, and to a heading of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINKS = [
    (page, target)
    for page in PAGES
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8"))
]


def anchor(heading: str) -> str:
    """Return the anchor that a heading has where the pages are shown: in lower case, blanks as `-`, no punctuation."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize(("page", "target"), LINKS, ids=[f"{page.name}:{target}" for page, target in LINKS])
def test_a_link_leads_somewhere(page: Path, target: str) -> None:
    path, _, heading = target.partition("#")
    there = (page.parent / path).resolve() if path else page
    assert there.exists()
    if heading:
        assert heading in [anchor(text) for text in re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.M)]


def test_the_index_has_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {target.partition("#")[0] for page, target in LINKS if page == index}
    pages = {page.relative_to(index.parent).as_posix() for page in PAGES if page.is_relative_to(index.parent)}
    assert {page for page in pages if not page.startswith("design/")} - {"README.md"} <= linked
