"""The programs and libraries in C that are compiled. Everything else is in setup.cfg."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

MANYLINUX = "manylinux_2_17"  # no symbol of a later C library is used, which a test looks for
COMMON = "-std=gnu11 -Wall -Wextra -Werror -Isupervisor/linux"
# Freestanding and static, in as few pages as can be: one runs for each PID namespace, one in each start.
PROGRAM = (
    "-Os -ffreestanding -fno-builtin -fno-tree-loop-distribute-patterns -fno-stack-protector -fno-pic -no-pie"
    " -fno-asynchronous-unwind-tables -fno-unwind-tables -nostdlib -static -s"
    " -Wl,--build-id=none,-z,noseparate-code,-z,norelro,-z,noexecstack"
)
LIBRARY = "-O2 -fPIC -shared -s -fno-stack-protector -Wl,-z,noexecstack"
PACKAGE = "spawn_supervisor"  # everything is installed below it
TARGETS = {
    "supervisor/launch/launch": ("supervisor/launch/launch.c", PROGRAM),
    "supervisor/launch/acceptor": ("supervisor/launch/acceptor.c", PROGRAM),
    "supervisor/launch/libstart.so": ("supervisor/launch/start.c supervisor/launch/forked.c", LIBRARY),
    "workers/accessory/init": ("workers/accessory/init.c", PROGRAM),
    "workers/accessory/spawn.so": ("workers/accessory/spawn.c", LIBRARY),
    "workers/reaper/libcgroup_calls.so": ("workers/reaper/cgroup_calls.c", LIBRARY),
    "supervisor/linux/libglance.so": ("supervisor/linux/glance.c", LIBRARY),
    "supervisor/linux/libpipecall.so": ("supervisor/linux/pipe_call.c", LIBRARY),
    "supervisor/notify/libelsewhere.so": ("supervisor/notify/elsewhere.c", LIBRARY),
}


class BuildWithPrograms(build_py):
    """Python modules, and what is written in C beside the module that uses it."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for target, (source, flags) in TARGETS.items():
                compile_c(source, os.path.join(self.build_lib, PACKAGE, target), flags)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        built = [os.path.join(self.build_lib, PACKAGE, target) for target in TARGETS]
        return [*super().get_outputs(include_bytecode), *built]


class Wheel(bdist_wheel):
    """For each Python and one architecture: what is compiled uses no interface of Python's."""

    def get_tag(self) -> tuple[str, str, str]:
        machine = os.uname().machine
        return "py3", "none", f"{MANYLINUX}_{machine}" if platform.libc_ver()[0] == "glibc" else f"linux_{machine}"


class PlatformDistribution(Distribution):
    """One whose wheel is for one architecture."""

    def has_ext_modules(self) -> bool:
        return True


def compile_c(source: str, target: str, flags: str) -> None:
    compiler = shlex.split(os.environ.get("CC", "cc"))
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([*compiler, *shlex.split(f"{COMMON} {flags}"), "-o", target, *source.split()], check=True)


setup(cmdclass={"build_py": BuildWithPrograms, "bdist_wheel": Wheel}, distclass=PlatformDistribution)
