#!/usr/bin/env python3
"""Memory of the accessory and of its inits, over many names that come and go, and with many leased at once.

At the end the definitions change, and spawnd executes itself: that changes how much the worker shares with it.
`worker_dirty_kb` and `spawnd_dirty_kb` are without programs and libraries, of which other processes may have a
part: empty, after all names, and after each of the two.  Prints one line of JSON; memory in kB of PSS.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from tests.accessory import AccessoryDaemon, accessory_daemon
from tests.bench.accessory_client import BenchClient, Rate, measure
from tests.bench.measure import descriptors, median, pss_kb
from tests.daemon import children, command_name, wait_until
from workers.accessory.client import encode_request

EXPIRY = "1s"
INITS = 100
SLEEPER = '\nsleeper = { exec = "/bin/sleep", arg = { "1000" } }\n'


def inits(daemon: AccessoryDaemon) -> list[int]:
    return [pid for pid in children(daemon.worker) if command_name(pid).startswith("i")]


def of_an_init(daemon: AccessoryDaemon, client: BenchClient) -> float:
    for number in range(INITS):
        os.close(client.request(encode_request(f"init-{number}", pid=True)))
    return median([float(pss_kb(pid)) for pid in inits(daemon)])


def wait_empty(daemon: AccessoryDaemon) -> None:
    wait_until(lambda: '"names": 0,' in daemon.ctl("call", "accessory", "Counters").stdout, "the end of all", 120, 0.2)


def come_and_go(daemon: AccessoryDaemon, client: BenchClient, names: int) -> list[int]:
    """Ask for so many names, in ten parts; the memory after each, once all of it has expired."""
    found = []
    for part in range(10):
        for number in range(names // 10):
            os.close(client.request(encode_request(f"n-{part}-{number}", ipc=True)))
            if number % 4000 == 3999:
                time.sleep(1)  # else all descriptors would be taken
        wait_empty(daemon)
        found.append(pss_kb(daemon.worker))
    return found


def leased(daemon: AccessoryDaemon, client: BenchClient, names: int) -> dict[str, object]:
    """Hold a lease of each of so many names; the rate of cached requests and new names then."""
    rates = {"before": cached(client)}
    leases = [client.request(encode_request(f"l-{number}", ipc=True, lease=True)) for number in range(names)]
    rates["with"] = cached(client)
    result = {
        "names": names,
        "worker_kb": pss_kb(daemon.worker),
        "spawnd_kb": pss_kb(daemon.pid),
        "worker_descriptors": descriptors(daemon.worker),
        "cached_per_s": {when: rate.per_s for when, rate in rates.items()},
        "cached_p50_us": {when: rate.p50_us for when, rate in rates.items()},
        "new_ipc_p50_us": measure(
            lambda n: os.close(client.request(encode_request(f"x-{n}", ipc=True))), 1, 1000
        ).p50_us,
    }
    for lease in leases:
        os.close(lease)
    wait_empty(daemon)
    return result | {"worker_kb_after": pss_kb(daemon.worker)}


def changed(daemon: AccessoryDaemon) -> None:
    """Change the definitions, and wait until spawnd has collected the old ones."""
    daemon.definitions.write_text(daemon.definitions.read_text() + SLEEPER)
    assert daemon.ctl("apply").returncode == 0
    time.sleep(1)


def executed(daemon: AccessoryDaemon) -> None:
    """Have spawnd execute itself, and wait until it answers."""
    assert daemon.ctl("reexec").returncode == 0
    wait_until(lambda: daemon.ctl("list").returncode == 0, "the next spawnd", 60, 0.2)


def cached(client: BenchClient) -> Rate:
    datagram = encode_request("cached", ipc=True)
    return measure(lambda _n: os.close(client.request(datagram)), 1, 1 << 30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", type=int, default=100_000, help="that come and go")
    parser.add_argument("--leased", type=int, default=8_000, help="that are leased at once")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spawnd-bench-") as name, accessory_daemon(Path(name), EXPIRY) as daemon:
        client = BenchClient(daemon.address)
        dirty = {"worker": [pss_kb(daemon.worker, "Pss_Dirty")], "spawnd": [pss_kb(daemon.pid, "Pss_Dirty")]}
        result: dict[str, object] = {"worker_kb": pss_kb(daemon.worker), "init_kb": of_an_init(daemon, client)}
        wait_empty(daemon)
        result["leased"] = leased(daemon, client, arguments.leased)
        result["worker_kb_over_names"] = come_and_go(daemon, client, arguments.names)
        result["worker_descriptors"] = descriptors(daemon.worker)
        client.close()
        for step in (lambda _daemon: None, changed, executed):
            step(daemon)
            dirty["worker"].append(pss_kb(daemon.worker, "Pss_Dirty"))
            dirty["spawnd"].append(pss_kb(daemon.pid, "Pss_Dirty"))
        result |= {f"{name}_dirty_kb": values for name, values in dirty.items()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
