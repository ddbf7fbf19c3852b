"""The promises of the benchmarks, with generous limits: the machine has other work, too."""

from __future__ import annotations

import asyncio

import pytest

from tests.bench import lua_calls, lua_inserts
from tests.postgres import Postgres

pytestmark = pytest.mark.bench


def test_inserts(server: Postgres) -> None:
    figures = asyncio.run(lua_inserts.run(server, rows=5000, at_a_time=50, commit="on"))
    assert isinstance(figures["per_s"], int)
    assert isinstance(figures["blocked_cpu_ms"], float)
    assert figures["per_s"] > 500, figures
    assert figures["blocked_cpu_ms"] < 100, figures


def test_memory_of_calls_is_flat() -> None:
    figures = asyncio.run(lua_calls.run(calls=20_000))
    memory = figures["memory_kb"]
    assert isinstance(memory, list)
    assert max(memory[6:]) - max(memory[1:6]) < 1024, figures
