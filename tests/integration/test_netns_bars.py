"""The figures of the benchmark of network namespaces, with limits that a busy machine keeps."""

from __future__ import annotations

import pytest

from tests.bench import namespaces
from tests.unit.process.requirements import needs_ip, needs_root

pytestmark = [pytest.mark.bench, needs_root, needs_ip]


def test_many_at_once() -> None:
    found = namespaces.fleet(25, 3.0)
    assert found["all_ready_s"] < 60
    assert found["gone_s"] < 30
    assert found["private_max_kb"] < 4_000_000 / 1024
    assert found["idle_cpu_s"] < 0.1
    assert found["left"] == {"names": 0, "links": 0, "mounts": 0}


def test_a_stream_while_the_worker_is_killed() -> None:
    found = namespaces.stream(6)
    assert (found["lost"], found["intact"], found["connections"]) == (0, True, 1)


def test_a_deleted_link_is_back() -> None:
    assert namespaces.repair(3)["back_median_ms"] < 5000


def test_start_and_stop_again_and_again() -> None:
    grown = namespaces.cycles(15)["grown"]
    assert {key: grown[key] for key in ("descriptors", "mounts", "links", "names")} == dict.fromkeys(
        ("descriptors", "mounts", "links", "names"), 0
    )
    assert grown["spawnd_kb"] < 1024
