"""Calls of a worker to spawnd: a real server, with a core that does nothing, on the worker's loop."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from supervisor.definitions.service import Service
from supervisor.varlink.messages import MAX_REPLY
from tests.unit.control.bench import Bench
from workers.runtime.spawnd_client import SpawndClient, SpawndError


@pytest.fixture
def bench() -> Iterator[Bench]:
    before = set(os.listdir("/proc/self/fd"))
    with tempfile.TemporaryDirectory(prefix="ctl") as folder:
        bench = Bench(folder)
        yield bench
        bench.core.close()
        bench.close()
    assert set(os.listdir("/proc/self/fd")) == before


class Heard:
    """The outcome of a call."""

    def __init__(self) -> None:
        self.replies: list[Mapping[str, Any]] = []
        self.errors: list[SpawndError] = []

    def replied(self, reply: Mapping[str, Any]) -> None:
        self.replies.append(reply)

    def failed(self, error: SpawndError) -> None:
        self.errors.append(error)

    @property
    def count(self) -> int:
        return len(self.replies) + len(self.errors)


def call(bench: Bench, method: str, path: str = "", timeout: float = 10.0, **parameters: object) -> Heard:
    heard = Heard()
    SpawndClient(bench.loop, path or bench.path).call(method, heard.replied, heard.failed, timeout, **parameters)
    bench.run_until(lambda: heard.count > 0)
    bench.settle()
    assert heard.count == 1
    return heard


def test_a_call_has_its_reply(bench: Bench) -> None:
    (reply,) = call(bench, "List").replies
    assert [service["name"] for service in reply["services"]] == ["qotd", "tftp", "web"]


def test_the_reply_of_a_host_with_many_services_has_no_limit_that_matters(bench: Bench) -> None:
    bench.define(*(Service(f"service-{number}-{'x' * 200}") for number in range(4000)))
    (reply,) = call(bench, "List").replies
    assert len(str(reply)) > MAX_REPLY


def test_an_error_of_spawnd_is_told_by_its_name(bench: Bench) -> None:
    (error,) = call(bench, "Fds", name="nobody").errors
    assert (error.name, error.parameters["name"]) == ("io.spawnd.NoSuchService", "nobody")
    assert str(error) == "cannot call io.spawnd.Fds of spawnd: io.spawnd.NoSuchService (name='nobody')"


def test_where_nobody_listens_that_is_told(bench: Bench) -> None:
    (error,) = call(bench, "List", path=f"{bench.path}.not").errors
    assert error.name == ""
    assert "no process listens" in str(error)


def test_who_does_not_answer_is_given_up(bench: Bench) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{bench.path}.silent")
        silent.listen()
        (error,) = call(bench, "List", path=f"{bench.path}.silent", timeout=0.05).errors
    assert "in time" in str(error)


def test_what_changes_is_followed_until_it_is_given_up(bench: Bench) -> None:
    heard = Heard()
    monitor = SpawndClient(bench.loop, bench.path).follow("Monitor", heard.replied, heard.failed, 10.0)
    bench.run_until(lambda: len(heard.replies) > 0)
    assert bench.core.observers
    monitor.close()
    bench.run_until(lambda: not bench.core.observers)
    assert not heard.errors
