"""The C library: one handle for the process, its buffers, and errors of the kernel as OSError.

Each wrapper of this package gets its function from `function`, which returns a new object each time, so that
wrappers do not share argument types.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)


def function(name: str, *argtypes: Any) -> Any:
    """Return the C function `name`, which returns an int or a long, with its argument types set."""
    found = _libc[name]
    found.argtypes = argtypes
    found.restype = ctypes.c_long if name == "syscall" else ctypes.c_int
    return found


def syscall_number(of: Mapping[str, int], generic: int, of_32_bits: Mapping[str, int], arm: int) -> int:
    """Return the number of a system call on this machine, <asm/unistd.h>, from numbers by architecture.

    `generic` is for aarch64, riscv64 and loongarch64; `arm` is for other 32-bit processes.
    """
    machine = os.uname().machine
    return of_32_bits.get(machine, arm) if struct.calcsize("P") == 4 else of.get(machine, generic)


def check(result: int, path: str = "") -> int:
    """Return `result`, or raise OSError(errno, strerror[, path]) if it is -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path) if path else OSError(number, os.strerror(number))
    return result


_fflush = function("fflush", ctypes.c_void_p)


def fflush() -> None:
    """Write the buffers of C code, which `os._exit` and `exec` would discard: fflush(3). Raises OSError."""
    check(_fflush(None))
