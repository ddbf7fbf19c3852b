"""SO_ATTACH_FILTER, socket(7): a classic BPF program that the kernel runs for what comes to a socket."""

from __future__ import annotations

import ctypes
import socket
import struct

SO_ATTACH_FILTER = 26
INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter
_PROGRAM = struct.Struct("@HP")  # struct sock_fprog


def attach_filter(fd: int, code: bytes) -> None:
    """Have the socket `fd` filtered, in the place of an earlier filter.  Raises OSError."""
    memory = ctypes.create_string_buffer(code, len(code))
    program = _PROGRAM.pack(len(code) // INSTRUCTION.size, ctypes.addressof(memory))
    sock = socket.socket(fileno=fd)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    finally:
        sock.detach()
