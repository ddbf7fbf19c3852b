"""The resources that a cgroup can be given, and the files of the kernel that they are written to.

Values are in the notation of those files: Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resource:
    """`file` exists in a cgroup where `controller` is enabled; `default` is what the kernel begins with."""

    file: str
    default: str

    @property
    def controller(self) -> str:
        return self.file.partition(".")[0]


RESOURCES = {
    "memory_max": Resource("memory.max", "max"),
    "memory_high": Resource("memory.high", "max"),
    "memory_swap_max": Resource("memory.swap.max", "max"),
    "cpu_weight": Resource("cpu.weight", "100"),
    "cpu_max": Resource("cpu.max", "max"),
    "pids_max": Resource("pids.max", "max"),
    "io_weight": Resource("io.weight", "100"),
}
