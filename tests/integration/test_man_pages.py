"""The man pages, made of the documentation."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {
    "man1/spawn-enter.1", "man1/spawnctl.1", "man5/spawnd.lua.5", "man8/spawnd.8",
    "man8/spawnd-accessory.8", "man8/spawnd-log.8", "man8/spawnd-netns.8", "man8/spawnd-reaper.8",
}  # fmt: skip

pytestmark = pytest.mark.skipif(not (shutil.which("pandoc") and shutil.which("man")), reason="needs pandoc and man")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("man")
    subprocess.run([ROOT / "tools/man", folder], check=True, timeout=120)
    yield folder
    shutil.rmtree(folder)


def shown(page: Path, width: int) -> str:
    """Return a page as it is shown on a terminal of this width; man says nothing else."""
    environment = {"PATH": os.environ["PATH"], "MANWIDTH": str(width), "LC_ALL": "C.UTF-8"}
    command = ["man", "--warnings", "-l", str(page)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == "", page
    return done.stdout


def words(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("\u2010\n", ""))


def test_each_command_worker_and_file_has_a_page(made: Path) -> None:
    assert {str(path.relative_to(made)) for path in made.rglob("*.*")} == PAGES
    workers = {path.parent.name for path in (ROOT / "workers").glob("*/main.py")}
    assert {page for page in PAGES if "spawnd-" in page} == {f"man8/spawnd-{name}.8" for name in workers - {"function"}}


@pytest.mark.parametrize("page", sorted(PAGES))
def test_a_page_is_shown_without_a_warning(made: Path, page: str) -> None:
    for width in (60, 80, 180):
        text = shown(made / page, width)
        assert re.search(rf" NAME {Path(page).stem} - \w", words(text))
        assert "\nDESCRIPTION\n" in text


def test_all_keys_and_verbs_are_in_a_page_with_their_texts(made: Path) -> None:
    for page, name in (("man5/spawnd.lua.5", "definitions.md"), ("man8/spawnd.8", "spawnd.md")):
        text = words(shown(made / page, 200))
        body = re.sub(r"^\|.*\n(?=\|---)", "", (ROOT / "docs" / name).read_text(), flags=re.MULTILINE)  # no headings
        rows = re.findall(r"^\| `([^`]+)` \| ([\w ]+)", body, re.MULTILINE)
        assert len(rows) > 10
        for key, begin in rows:
            assert f"{key} {begin.strip()}" in text
    text = shown(made / "man1/spawnctl.1", 80)
    for verb in ("list", "why", "apply", "sessions"):
        assert re.search(rf"^ +.*\b{verb}\b", text, re.MULTILINE)


def test_other_pages_are_named_as_such(made: Path) -> None:
    text = words(shown(made / "man8/spawnd.8", 80))
    assert "spawnctl(1)" in text
    assert "definition files (spawnd.lua(5))" in text
    assert ".md" not in text
