"""A real PostgreSQL server for the tests of the database."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.postgres import Postgres, postgres, server_programs


@pytest.fixture(scope="package")
def cluster() -> Iterator[Postgres]:
    if server_programs() is None and "CI" not in os.environ:
        pytest.skip("no PostgreSQL server on this host")
    with postgres() as server:
        yield server


@pytest.fixture
def server(cluster: Postgres) -> Iterator[Postgres]:
    """Yield a running script that is empty."""
    cluster.ensure_running()
    yield cluster
    cluster.ensure_running()
    cluster.execute("DROP SCHEMA public CASCADE")
    cluster.execute("CREATE SCHEMA public")
