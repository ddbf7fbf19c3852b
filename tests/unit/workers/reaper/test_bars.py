"""The promises of the benchmark, with generous limits: the machine has other work, too."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.bench import reaper_blocked
from tests.postgres import postgres, server_programs
from tests.unit.process.requirements import needs_root
from tests.unit.workers.reaper.ground import ground

pytestmark = [
    pytest.mark.bench,
    needs_root,
    pytest.mark.skipif(server_programs() is None, reason="needs a PostgreSQL server: make packages"),
]


def test_the_loop_is_never_blocked_for_long(tmp_path: Path) -> None:
    with postgres() as server, ground() as own:
        own.make()
        figures = asyncio.run(reaper_blocked.run(server, own, tmp_path, count=2000))
    assert figures["rows"] == 2000
    assert isinstance(figures["per_s"], int)
    assert isinstance(figures["blocked_cpu_ms"], float)
    assert figures["per_s"] > 300, figures
    assert figures["blocked_cpu_ms"] < 75, figures
