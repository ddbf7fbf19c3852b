"""The C library: one handle for the process, and the kernel's errors as OSError.

Every wrapper of this package takes its function from `function`, which returns an object
of its own each time, so that the argument types of one wrapper are no other's.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)


def function(name: str, *argtypes: Any) -> Any:
    """The C function `name`, which returns an int or a long, with its argument types set."""
    found = _libc[name]
    found.argtypes = argtypes
    found.restype = ctypes.c_long if name == "syscall" else ctypes.c_int
    return found


def check(result: int, path: str = "") -> int:
    """Return `result`; raise OSError(errno, strerror[, path]) where it is -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path) if path else OSError(number, os.strerror(number))
    return result
