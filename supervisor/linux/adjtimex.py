"""adjtimex(2): whether the kernel's clock follows a source of time."""

from __future__ import annotations

import ctypes
import struct

from supervisor.linux.libc import check, function

STA_UNSYNC = 0x0040  # <linux/timex.h>
_SIZE = 256  # bytes; struct timex has 208
_STATUS = struct.Struct("@I4li")  # modes, offset, freq, maxerror, esterror, status

_adjtimex = function("adjtimex", ctypes.c_void_p)


def adjtimex() -> int:
    """Return the status bits of the clock, STA_…, without a change. Raises OSError."""
    buffer = ctypes.create_string_buffer(_SIZE)  # modes is 0
    check(_adjtimex(ctypes.addressof(buffer)))
    status: int = _STATUS.unpack_from(buffer)[-1]
    return status
