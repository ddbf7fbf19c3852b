"""A virtual machine of one run: started, listened to, started again where it wants a reboot, killed when it is late."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.vm import host, qemu
from tests.vm.cargo import write_cargo
from tests.vm.guest import orders
from tests.vm.guest.orders import Orders
from tests.vm.layers import Layers, Say

CHECKS_KERNEL = ("systemd.wants=checks.service", "systemd.mask=serial-getty@ttyS0.service", "systemd.show_status=0")
TAIL = 80  # lines of the console
# Checks begin before the system has started anything that they do not need.
BARE_KERNEL = (*CHECKS_KERNEL, "systemd.unit=checks.service")
# What no program can make a kernel do, but the emulation of two processors at once: seen once, 54 s into a boot.
EMULATORS_FAULT = "double fault"


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that a machine may take, for a processor that is emulated by a busy host."""

    boot: float = 360.0  # from power-on to the first check
    silence: float = 1080.0  # between two checks, which have a shorter limit of their own
    total: float = 2700.0  # so that not even one that keeps talking holds up everything


class Machine:
    """Owns the files in `folder`, and qemu.  Nothing happens by itself: whoever waits for something polls."""

    def __init__(
        self,
        layers: Layers,
        folder: Path,
        given: Orders,
        *,
        console: str = "",
        kernel: Sequence[str] = CHECKS_KERNEL,
        limits: Limits = Limits(),
        say: Say = lambda _text: None,
    ) -> None:
        """`console` is a character device of qemu's, in place of a file whose end is told where the machine fails."""
        self.problem = ""  # what is wrong with the machine itself
        self.reports: dict[str, list[dict[str, Any]]] = {}
        self._layers = layers
        self._folder = folder
        self._disk = folder
        self._cargo = folder / "cargo.tar"
        self._console = folder / "console"
        self._console_device = console or f"file,path={self._console},append=on"
        self._messages = folder / "messages"
        self._orders = given
        self._kernel = kernel
        self._limits = limits
        self._say = say
        self._has_faulted = False
        self._read = 0
        self._boot = 0  # as the machine counts
        self._starts = 0
        self._then: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._born = self._heard = time.monotonic()

    @property
    def ended(self) -> bool:
        return self._process is None and self._starts > 0

    def start(self) -> None:
        self._disk = qemu.copy_disk(self._layers, self._folder)
        write_cargo(self._cargo, self._orders)
        self._born = time.monotonic()
        self._power_on()

    def poll(self) -> None:
        """Read what the machine has said, and act when it has ended or is late.  Never waits."""
        if self._process is None:
            return
        alive = self._process.poll() is None
        self._listen()
        if not alive:
            self._has_ended(self._process.returncode)
        elif reason := self._late():
            self._fail(f"killed: {reason}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def console_tail(self) -> str:
        text = self._console.read_text(errors="replace") if self._console.exists() else ""
        return "\n".join(text.splitlines()[-TAIL:])

    def _power_on(self) -> None:
        ports = (self._console_device, f"file,path={self._messages},append=on")
        command = qemu.command(self._layers, self._disk, self._cargo, self._kernel, ports)
        self._then = None
        self._starts += 1
        self._heard = time.monotonic()
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def _listen(self) -> None:
        """Whole lines alone: the last one may still be on its way."""
        with contextlib.suppress(FileNotFoundError), self._messages.open("rb") as file:
            file.seek(self._read)
            data = file.read()
            lines = data[: data.rfind(b"\n") + 1]
            self._read += len(lines)
            for line in lines.splitlines():
                if message := orders.decode(self._orders.token, line):
                    self._heard = time.monotonic()
                    self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        match message["kind"]:
            case orders.START:
                self._boot = message["boot"]
            case orders.REPORT:
                report = message["report"]
                self.reports.setdefault(report["nodeid"], []).append(report)
            case orders.PROBLEM:
                self._complain(f"{self._orders.suite}: {message['text']}")
            case orders.END:
                self._then = message["then"]

    def _has_ended(self, status: int) -> None:
        self._process = None
        if status != 0:
            self._fail(f"qemu ended with status {status}")
        elif self._then is None and self._is_emulators_fault():
            self._say(f"the emulated processor of {self._orders.suite} has failed before any check: once more")
            self._has_faulted = True
            self._starts = 0
            self.start()
        elif self._then is None:
            self._fail("it went down before its checks were through")
        elif self._then == "reboot":
            self._power_on()

    def _is_emulators_fault(self) -> bool:
        """Whether nothing is known but that a machine is to be tried again, which is done once."""
        is_early = self._boot == 0 and not self._has_faulted
        return is_early and not host.has_kvm() and EMULATORS_FAULT in self.console_tail()

    def _late(self) -> str | None:
        now, limits = time.monotonic(), self._limits
        begun = self._boot == self._starts
        if not begun and now - self._heard > limits.boot:
            return f"checks have not begun {limits.boot:g} s after power-on"
        if begun and now - self._heard > limits.silence:
            return f"silent for {limits.silence:g} s"
        if now - self._born > limits.total:
            return f"not through after {limits.total:g} s"
        return None

    def _fail(self, what: str) -> None:
        self.kill()
        where = f"machine of {self._orders.suite}, boot {self._starts}"
        self._complain(f"{where}: {what}\nIts console ends with:\n{self.console_tail()}")

    def _complain(self, text: str) -> None:
        self.problem = f"{self.problem}\n{text}".lstrip()
