"""A thousand services: generous limits, in processor time, for what would be felt."""

from __future__ import annotations

import time

from supervisor.definitions.service import Service
from tests.unit.control.bench import Bench


def test_a_list_of_a_thousand(bench: Bench) -> None:
    bench.define(*(Service(f"service-{number}", description="does what it should") for number in range(1000)))
    began = time.process_time()
    reply = bench.call("io.spawnd.List")
    assert time.process_time() - began < 1
    assert len(reply["parameters"]["services"]) == 1000


def test_starting_and_stopping_many_that_depend_on_each_other(bench: Bench) -> None:
    services = [Service("service-0")] + [
        Service(f"service-{number}", depends=(f"service-{number // 2}",)) for number in range(1, 300)
    ]
    bench.define(*services)
    for method in ("Start", "Restart", "Stop"):
        reply = bench.call(f"io.spawnd.{method}", names=["all"])
        assert all(row["ok"] for row in reply["parameters"]["results"])


def test_many_clients_at_once(bench: Bench) -> None:
    clients = [bench.connect() for _ in range(400)]
    for number, client in enumerate(clients):
        if number % 10:
            client.sock.send(b'{"method": "io.spawnd.Li' if number % 2 else b"rubbish\0")
    began = time.process_time()
    for client in clients[::10]:
        client.call("io.spawnd.List")
        assert len(client.reply()["parameters"]["services"]) == 3
    assert time.process_time() - began < 5
