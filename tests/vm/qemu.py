"""The command line of a machine."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.vm import host
from tests.vm.layers import Layers

MEMORY_MB = 1024
PROCESSORS = 2
INIT = "/usr/local/sbin/first"
# A panic resets the machine, and qemu ends at a reset: a machine that is dead is seen to be.
# Whether timer interrupts come is tried for some milliseconds at the start, which an emulated processor on a busy host
# may not get: no_timer_check.
KERNEL = ("root=/dev/vda", "rw", "console=ttyS0", "no_timer_check", "panic=-1", f"init={INIT}")


def copy_disk(layers: Layers, folder: Path) -> Path:
    """A disk of its own for a machine, which writes to it."""
    path = folder / "disk.img"
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", layers.disk, path], check=True)
    return path


def command(layers: Layers, disk: Path, cargo: Path, kernel: Sequence[str], serial: Sequence[str]) -> list[str]:
    """`serial`: where its serial ports go, the console first.  Ends when the machine powers off or reboots."""
    options = ["-machine", "q35", *_processor(), "-smp", str(PROCESSORS), "-m", str(MEMORY_MB)]
    options += ["-no-reboot", "-nodefaults", "-no-user-config", "-display", "none", "-nic", "none"]
    options += ["-kernel", str(layers.kernel), "-initrd", str(layers.initrd), "-append", " ".join([*KERNEL, *kernel])]
    # Whoever writes to its disk can do without it after a crash of the host.
    options += ["-drive", f"file={disk},format=raw,if=virtio,cache=unsafe"]
    for archive in (layers.project, cargo):
        options += ["-drive", f"file={archive},format=raw,if=virtio,read-only=on"]
    for number, port in enumerate(serial):
        options += ["-chardev", f"{port},id=serial{number}", "-serial", f"chardev:serial{number}"]
    # It ends with the process that started it, however that ends.
    return ["setpriv", "--pdeathsig", "KILL", "--", "qemu-system-x86_64", *options]


def _processor() -> list[str]:
    if host.has_kvm():
        return ["-accel", "kvm", "-cpu", "host"]
    # Emulation is as fast as what it has to emulate is simple.  tb-size: MiB for what it has translated.
    return ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "qemu64,-svm"]
