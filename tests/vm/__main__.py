"""Machines by hand: `.venv/bin/python -m tests.vm --suite trixie [--shell | -k EXPRESSION]`.

Without --shell the checks run in the machine, which powers off then; its console is shown.  With --shell nothing runs
but the system, and the console is a root shell: `/opt/checks/python -m pytest tests/vm/guest` runs checks there,
`poweroff` or Ctrl-A X ends it.  The exit status is 0 where all checks have passed.

`.venv/bin/python -m tests.vm --build` builds what the machines of all releases are made of, and starts none.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from tests.vm import host, qemu
from tests.vm.cache import default_cache
from tests.vm.cargo import write_cargo
from tests.vm.errors import MachineError
from tests.vm.fleet import build
from tests.vm.guest.orders import Orders, new_token
from tests.vm.layers import Layers
from tests.vm.machine import Machine
from tests.vm.suites import SUITES

POLL_S = 0.2


def say(text: str) -> None:
    print(f"vm: {text}", file=sys.stderr, flush=True)


def run_checks(suite: str, layers: Layers, folder: Path, expression: str) -> bool:
    machine = Machine(layers, folder, Orders(suite, new_token(), ["tests/vm/guest", "-k", expression]), console="stdio")
    try:
        machine.start()
        while not machine.ended:
            machine.poll()
            time.sleep(POLL_S)
    finally:
        machine.kill()
    if machine.problem:
        say(machine.problem)
    outcomes = {name: {report["outcome"] for report in reports} for name, reports in machine.reports.items()}
    failed = [name for name, found in outcomes.items() if "failed" in found]
    say(f"{len(outcomes)} checks, {len(failed)} failed")
    return bool(outcomes) and not failed and not machine.problem


def run_shell(suite: str, layers: Layers, folder: Path) -> bool:
    disk = qemu.copy_disk(layers, folder)
    write_cargo(folder / "cargo.tar", Orders(suite, new_token()))
    command = qemu.command(layers, disk, folder / "cargo.tar", [], ["stdio,mux=on,signal=off", "null"])
    return subprocess.run(command, check=False).returncode == 0


def end(signum: int, _frame: object) -> NoReturn:
    """On TERM: end what runs, so that its folders are removed before this process is gone."""
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
    raise SystemExit(128 + signum)


def main() -> int:
    signal.signal(signal.SIGTERM, end)
    parser = argparse.ArgumentParser(prog="python -m tests.vm", description="a virtual machine with the project in it")
    parser.add_argument("--suite", choices=SUITES, default=SUITES[-1])
    parser.add_argument("--build", action="store_true", help="build the machines of all releases, and start none")
    parser.add_argument("--shell", action="store_true", help="a root shell on the console, and no checks")
    parser.add_argument("-k", dest="expression", default="", help="which checks, as for pytest")
    options = parser.parse_args()
    if reason := host.reason_without():
        parser.error(reason)
    cache = default_cache()
    try:
        layers = build(SUITES if options.build else [options.suite], cache, say)[options.suite]
    except MachineError as error:
        say(str(error))
        return 1
    if options.build:
        return 0
    with cache.scratch() as folder:
        if options.shell:
            return 0 if run_shell(options.suite, layers, folder) else 1
        return 0 if run_checks(options.suite, layers, folder, options.expression) else 1


if __name__ == "__main__":
    raise SystemExit(main())
