"""The C library: one handle for the process, its buffers, and the kernel's errors as OSError.

Every wrapper of this package takes its function from `function`, which returns an object
of its own each time, so that the argument types of one wrapper are no other's.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)


def function(name: str, *argtypes: Any) -> Any:
    """The C function `name`, which returns an int or a long, with its argument types set."""
    found = _libc[name]
    found.argtypes = argtypes
    found.restype = ctypes.c_long if name == "syscall" else ctypes.c_int
    return found


def syscall_number(of: Mapping[str, int], generic: int, of_32_bits: Mapping[str, int], arm: int) -> int:
    """The number of a system call on this machine, <asm/unistd.h>, by names of architectures.

    `generic` is that of aarch64, riscv64 and loongarch64; `arm` that of other 32-bit processes.
    """
    machine = os.uname().machine
    return of_32_bits.get(machine, arm) if struct.calcsize("P") == 4 else of.get(machine, generic)


def check(result: int, path: str = "") -> int:
    """Return `result`; raise OSError(errno, strerror[, path]) where it is -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path) if path else OSError(number, os.strerror(number))
    return result


_fflush = function("fflush", ctypes.c_void_p)


def fflush() -> None:
    """Write what C code has in its buffers, which `os._exit` and `exec` throw away: fflush(3).  Raises OSError."""
    check(_fflush(None))
