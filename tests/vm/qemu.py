"""The command line of a machine."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.vm import host
from tests.vm.layers import Layers

MEMORY_MB = 1024
INIT = "/usr/local/sbin/first"
# A panic resets the machine, and qemu ends at a reset: a machine that is dead is seen to be.
# Whether timer interrupts come is tried for some milliseconds at the start, which an emulated processor on a busy host
# may not get: no_timer_check.
KERNEL = ("root=/dev/vda", "rw", "console=ttyS0", "no_timer_check", "panic=-1", f"init={INIT}")
# An emulator translates code once for each address that it is mapped at: without norandmaps anew for each process,
# which takes a third of the time.  What defends a processor against attacks is emulated as well.
EMULATED_KERNEL = ("norandmaps", "mitigations=off", "lsm=capability", "audit=0", "init_on_alloc=0")


def copy_disk(layers: Layers, folder: Path) -> Path:
    """A disk of its own for a machine, which writes to it."""
    path = folder / "disk.img"
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", layers.disk, path], check=True)
    return path


def command(layers: Layers, disk: Path, cargo: Path, kernel: Sequence[str], serial: Sequence[str]) -> list[str]:
    """`serial`: where its serial ports go, the console first.  Ends when the machine powers off or reboots."""
    arguments = [*KERNEL, *(() if host.has_kvm() else EMULATED_KERNEL), *kernel]
    options = ["-machine", "q35", *_processor(), "-m", str(MEMORY_MB)]
    options += ["-no-reboot", "-nodefaults", "-no-user-config", "-display", "none", "-nic", "none"]
    options += ["-kernel", str(layers.kernel), "-initrd", str(layers.initrd), "-append", " ".join(arguments)]
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
        return ["-accel", "kvm", "-cpu", "host", "-smp", "2"]
    # Emulation is as fast as what it has to emulate is simple.  A machine has one processor, as machines run side by
    # side: what several do together costs more, and has failed.  tb-size: MiB for what has been translated.
    return ["-accel", "tcg,thread=single,tb-size=512", "-cpu", "qemu64,-svm", "-smp", "1"]
