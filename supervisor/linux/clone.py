"""clone3(2) for a child of another process, because `os.fork` has no flags.

The wrapper calls the same functions of Python's C interface as `os.fork` does around fork(2). It omits
glibc's own handlers, which serve processes with threads; this process has none.
"""

from __future__ import annotations

import ctypes
import os
import struct

CLONE_PARENT = 0x00008000  # <linux/sched.h>

_SYS_clone3 = 435  # the same on every architecture
_ARGS = struct.Struct("=8Q")  # struct clone_args, up to `tls`
_SIBLING = _ARGS.pack(CLONE_PARENT, *[0] * 7)  # the exit signal is that of the caller itself

_python = ctypes.pythonapi
_syscall = ctypes.PyDLL(None, use_errno=True).syscall  # keeps the interpreter's lock, like os.fork
_syscall.argtypes = (ctypes.c_long, ctypes.c_char_p, ctypes.c_size_t)
_syscall.restype = ctypes.c_long


def fork_sibling() -> int:
    """Fork like `os.fork`, but the new process is a child of the caller's parent, which reaps it. Raises OSError.

    The caller has a single thread, and is not the first process of its PID namespace.
    """
    _python.PyOS_BeforeFork()
    pid = int(_syscall(_SYS_clone3, _SIBLING, len(_SIBLING)))
    if pid == 0:
        _python.PyOS_AfterFork_Child()
        return 0
    number = ctypes.get_errno()
    _python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, os.strerror(number))
    return pid
