"""The pages name every directive that a kind converts or leaves out for a reason."""

from __future__ import annotations

import re
from collections.abc import Set
from pathlib import Path

import pytest

from importer.circus import watcher
from importer.kinds import KINDS
from importer.supervisord import program
from importer.xinetd import access, flags, process

DOCS = Path(__file__).parents[3] / "docs"
IMPORTING = (DOCS / "importing.md").read_text(encoding="utf-8")
INETD = (DOCS / "inetd.md").read_text(encoding="utf-8")
XINETD = access.HANDLERS.keys() | process.HANDLERS.keys() | set(process.LIMITS) | flags.WITHOUT_EQUIVALENT.keys()
SUPERVISORD = {name for name in program.KNOWN if not name.startswith("stderr_")}


@pytest.mark.parametrize(
    ("names", "text"),
    [(XINETD, INETD), (SUPERVISORD, IMPORTING), (watcher.SHAPE - {"env"}, IMPORTING), (watcher.PLAIN, IMPORTING)],
    ids=["xinetd", "supervisord", "circus", "circus-plain"],
)
def test_every_directive_has_its_row(names: Set[str], text: str) -> None:
    assert set(names) - set(re.findall(r"`([a-z_0-9]+)`", text)) == set()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_example(kind: str) -> None:
    assert f"spawnctl import {kind} " in IMPORTING or f"or `{kind}`" in IMPORTING
