"""Figures with generous limits: CPU time, which other work on the machine does not change much."""

from __future__ import annotations

import time
from collections.abc import Callable

from supervisor.definitions.report import read_report
from tests.unit.definitions.loading import Files, encode, records


def service(number: int) -> str:
    return f"""s{number} = {{
  exec = "/bin/sleep", arg = {{ "{number}" }}, env = {{ PATH = "/bin", HOME = "/srv/{number}" }},
  user = "daemon", group = "daemon", umask = "----w--w-", cwd = "/tmp",
  fd = {{ tcp("127.0.0.1", {10000 + number}) }}, limits = {{ nofile = 64, stack = "64k" }}, stop_timeout = "5s",
}}
"""


def best_of_three(run: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        begin = time.process_time()
        run()
        times.append(time.process_time() - begin)
    return min(times)


def test_a_hundred_services(files: Files) -> None:
    path = files.write("".join(map(service, range(100))))
    assert best_of_three(lambda: records(path)) < 0.2


def test_a_thousand_services(files: Files) -> None:
    path = files.write("".join(map(service, range(1000))))
    data = encode(records(path))
    assert best_of_three(lambda: records(path)) < 1.2
    assert best_of_three(lambda: read_report(data)) < 0.4
    assert len(read_report(data).services) == 1000


def test_a_thousand_files(files: Files) -> None:
    for number in range(1000):
        files.write(service(number), f"{number}.lua")
    assert best_of_three(lambda: records(files.folder)) < 3
