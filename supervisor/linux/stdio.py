"""fflush(3): what C code of this process has in its buffers, which `os._exit` and `exec` throw away."""

from __future__ import annotations

import ctypes

from supervisor.linux.libc import check, function

_fflush = function("fflush", ctypes.c_void_p)


def fflush() -> None:
    """Write what all streams hold back.  Raises OSError where that fails for one of them."""
    check(_fflush(None))
