"""keyctl(2): the keyrings of a process, see session-keyring(7).  By its number, as libkeyutils is not everywhere."""

from __future__ import annotations

import ctypes
import os
import struct

from supervisor.linux.libc import check, function

KEYCTL_JOIN_SESSION_KEYRING = 1  # <linux/keyctl.h>

# <asm/unistd.h>
_NUMBERS = {"x86_64": 250, "ppc64le": 271, "s390x": 280}
_NUMBERS_OF_32_BITS = {"i686": 288, "x86_64": 288}
_GENERIC = 219  # aarch64, riscv64, loongarch64: <asm-generic/unistd.h>
_ARM = 311

_syscall = function("syscall", ctypes.c_long, ctypes.c_int, ctypes.c_char_p)


def join_session_keyring() -> None:
    """Have a new session keyring, which belongs to the real user of this process, instead of the inherited one.

    Raises OSError: ENOSYS on a kernel without keyrings, EPERM where a container forbids them, EDQUOT.
    """
    check(_syscall(_number(), KEYCTL_JOIN_SESSION_KEYRING, None))


def _number() -> int:
    if struct.calcsize("P") == 4:
        return _NUMBERS_OF_32_BITS.get(os.uname().machine, _ARM)
    return _NUMBERS.get(os.uname().machine, _GENERIC)
