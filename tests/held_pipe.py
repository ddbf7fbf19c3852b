"""A process that keeps the lock of a pipe until it is killed: it writes to the pipe from a page that nobody fills.

The page is one of userfaultfd(2).  As a program, for a service: `held_pipe.py FD TEXT` writes the text first.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import platform
import signal
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

USERFAULTFD = 323 if platform.machine() == "x86_64" else 282  # <asm/unistd.h>
UFFDIO_API, UFFDIO_REGISTER = 0xC018AA3F, 0xC020AA00  # <linux/userfaultfd.h>
UFFD_API, UFFDIO_REGISTER_MODE_MISSING = 0xAA, 1
PATIENCE = 60.0  # seconds
LAST = 4096  # a number above those of descriptors here

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.write.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]


def is_possible() -> bool:
    """Whether this process may handle page faults of the kernel."""
    fd = libc.syscall(USERFAULTFD, os.O_CLOEXEC)
    if fd >= 0:
        os.close(fd)
    return fd >= 0 and os.geteuid() == 0


@contextmanager
def held(fd: int) -> Iterator[int]:
    """While a child, which has no other pipe, keeps that of `fd`; its pid.  It is killed and reaped at the end."""
    pid = os.fork()
    if pid == 0:
        try:
            os.closerange(3, fd)
            os.closerange(fd + 1, LAST)
            hold(fd)
        finally:
            os._exit(1)
    try:
        wait_held(pid)
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def is_held(pid: int) -> bool:
    """Whether a process waits for its page."""
    with open(f"/proc/{pid}/stack", encoding="ascii") as stack:
        return "handle_userfault" in stack.read()


def wait_held(pid: int) -> None:
    end = time.monotonic() + PATIENCE
    while not is_held(pid):
        assert time.monotonic() < end, "it does not wait for its page"
        time.sleep(0.001)


def hold(fd: int) -> None:
    """Keep the pipe of `fd` for ever."""
    fault = libc.syscall(USERFAULTFD, os.O_CLOEXEC)
    if fault < 0:
        raise OSError(ctypes.get_errno(), "userfaultfd")
    fcntl.ioctl(fault, UFFDIO_API, struct.pack("=QQQ", UFFD_API, 0, 0))
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    span = struct.pack("=QQQQ", address, mmap.PAGESIZE, UFFDIO_REGISTER_MODE_MISSING, 0)
    fcntl.ioctl(fault, UFFDIO_REGISTER, span)
    libc.write(fd, address, 1)


if __name__ == "__main__":
    os.write(int(sys.argv[1]), sys.argv[2].encode())
    hold(int(sys.argv[1]))
