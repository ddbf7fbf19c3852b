"""docs/importing.md names every directive that becomes something."""

from __future__ import annotations

import re
from pathlib import Path

from importer.systemd import nothing, service, socket, unit_section
from importer.systemd.commands import Plan
from importer.systemd.conversion import Shape
from importer.systemd.directories import PLACES
from importer.systemd.order import Order

TEXT = (Path(__file__).parents[4] / "docs" / "importing.md").read_text(encoding="utf-8")
PLAN = Plan("simple", False, (), Shape.PROGRAM, False, False)


def test_every_directive_that_is_converted_has_its_row() -> None:
    keys = {key for _section, key in unit_section.handlers(Order({}, {}), PLAN)} | PLACES.keys()
    keys |= socket._OPTIONS.keys() | socket._ACCEPT.keys() | socket._CLIENTS.keys() | set(socket.LISTEN)
    keys |= {f"Condition{kind}" for kind in unit_section.TESTS}
    limits = {key for key in keys if key.startswith("Limit")}
    assert len(limits) == 16
    listed = set(re.findall(r"`([A-Za-z0-9]+)`", TEXT))
    assert keys - limits - listed == set()


def test_no_directive_is_in_two_lists() -> None:
    converted = service.handlers(PLAN).keys() | PLACES.keys()
    assert converted & nothing.NO_EQUIVALENT.keys() == set()
    assert converted & nothing.NOT_NEEDED.keys() == set()
    assert nothing.NO_EQUIVALENT.keys() & nothing.NOT_NEEDED.keys() == set()
