"""`clone3(2)` for a child that is not one's own: `fork()` has no flags.

The same functions of Python's C interface that `os.fork` uses around fork(2) are called here.  glibc's own handlers are
left out: they are for processes with threads, of which there are none here.
"""

from __future__ import annotations

import ctypes
import os
import struct

CLONE_PARENT = 0x00008000  # <linux/sched.h>

_SYS_clone3 = 435  # the same on every architecture
_ARGS = struct.Struct("=8Q")  # struct clone_args, up to `tls`
_SIBLING = _ARGS.pack(CLONE_PARENT, *[0] * 7)  # the exit signal is the caller's own

_python = ctypes.pythonapi
_syscall = ctypes.PyDLL(None, use_errno=True).syscall  # with the interpreter's lock held, as os.fork has it
_syscall.argtypes = (ctypes.c_long, ctypes.c_char_p, ctypes.c_size_t)
_syscall.restype = ctypes.c_long


def fork_sibling() -> int:
    """As `os.fork`, but the new process is a child of the caller's parent, who reaps it.  Raises OSError.

    For a process with one thread that is not the first of its PID namespace.
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
