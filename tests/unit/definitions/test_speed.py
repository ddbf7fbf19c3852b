"""Figures with generous limits: CPU time, which other work on the machine does not change much."""

from __future__ import annotations

import time
from collections.abc import Callable

from supervisor.definitions.report import read_report
from supervisor.definitions.service import Definitions
from tests.unit.definitions.loading import Files, encode, read, records


def service(number: int) -> str:
    return f"""s{number} = {{
  exec = "/bin/sleep", arg = {{ "{number}" }}, env = {{ PATH = "/bin", HOME = "/srv/{number}" }},
  user = "daemon", group = "daemon", umask = "----w--w-", cwd = "/tmp",
  fd = {{ tcp("127.0.0.1", {10000 + number}) }}, limits = {{ nofile = 64, stack = "64k" }}, stop_timeout = "5s",
}}
"""


def takes_less(seconds: float, run: Callable[[], object]) -> bool:
    """Whether one of three runs does, each of which is tried only after a slower one."""

    def time_of_run() -> float:
        begin = time.process_time()
        run()
        return time.process_time() - begin

    return any(time_of_run() < seconds for _ in range(3))


def test_a_hundred_services(files: Files) -> None:
    path = files.write("".join(map(service, range(100))))
    assert takes_less(0.2, lambda: records(path))


def test_a_thousand_services(files: Files) -> None:
    path = files.write("".join(map(service, range(1000))))
    data = encode(records(path))
    assert takes_less(1.2, lambda: records(path))
    assert takes_less(0.4, lambda: read_report(data))
    assert len(read_report(data).services) == 1000


def test_a_thousand_files(files: Files) -> None:
    for number in range(1000):
        files.write(service(number), f"{number}.lua")
    assert takes_less(3, lambda: records(files.folder))


def test_one_change_among_thousands_of_services(files: Files) -> None:
    for first in range(0, 3000, 100):
        files.write("".join(map(service, range(first, first + 100))), f"{first}.lua")
    known = read_report(encode(records(files.folder, digest=True)))
    files.write("".join(map(service, range(1, 100))), "0.lua")
    before = Definitions(known.services, kept=known.kept)
    assert takes_less(0.2, lambda: records(files.folder, digest=True, programs=True, before=before))
    assert len(read(records(files.folder, before=before), before).services) == 2999
