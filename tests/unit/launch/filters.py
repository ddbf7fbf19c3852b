"""Filters for system calls, in the form of numbers of an operation: seccomp(2), <linux/bpf_common.h>."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import F_DUPFD_CLOEXEC, fcntl, ioctl
from threading import Event, Thread

from supervisor.linux.capabilities import set_no_new_privs
from supervisor.linux.libc import check, function

LOAD, EQUALS, RETURN = 0x20, 0x15, 0x06  # BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K
PR_SET_SECCOMP, MODE_FILTER = 22, 2  # <linux/prctl.h>, <linux/seccomp.h>
ALLOW, REFUSE, NOTIFY = 0x7FFF0000, 0x00050000, 0x7FC00000
SET_MODE_FILTER, NEW_LISTENER, CONTINUE = 1, 8, 1  # <linux/seccomp.h>
NOTIFICATION, ANSWER = struct.Struct("=Q72x"), struct.Struct("=QqiI")  # struct seccomp_notif, seccomp_notif_resp
RECEIVE, SEND = (3 << 30 | kind.size << 16 | ord("!") << 8 | at for at, kind in enumerate((NOTIFICATION, ANSWER)))
ABOVE = 300  # numbers of descriptors that an acceptor of a test leaves alone before its exec
LOOK = 0.02  # seconds
_ROWS = {  # on x86-64, and where numbers are those of <asm-generic/unistd.h>
    "write": (1, 64),
    "socket": (41, 198),
    "execve": (59, 221),
    "exit_group": (231, 94),
    "accept4": (288, 242),
    "clone": (56, 220),
    "seccomp": (317, 277),
    "landlock_create_ruleset": (444, 444),
}
NUMBERS = {name: row[os.uname().machine != "x86_64"] for name, row in _ROWS.items()}


_syscall = function("syscall", ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_char_p)
_prctl = function("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p)


def instruction(code: int, k: int, when: int = 0, otherwise: int = 0) -> int:
    """Return a `struct sock_filter` as a number."""
    (number,) = struct.unpack("=Q", struct.pack("=HBBI", code, when, otherwise, k))
    return int(number)


def refusing(errno: int, *names: str) -> list[int]:
    """Return the filter that refuses these system calls."""
    return _by_name(names, REFUSE | errno, ALLOW)


def refusing_others(errno: int, *names: str) -> list[int]:
    """Return the filter that refuses all other system calls."""
    return _by_name(names, ALLOW, REFUSE | errno)


def _by_name(names: tuple[str, ...], then: int, otherwise: int) -> list[int]:
    tests = [instruction(EQUALS, NUMBERS[name], when=len(names) - at, otherwise=0) for at, name in enumerate(names)]
    return [instruction(LOAD, 0), *tests, instruction(RETURN, otherwise), instruction(RETURN, then)]


def install(numbers: list[int]) -> None:
    """Install a filter in this process, which is a child of the test. Raises OSError."""
    set_no_new_privs()
    with _program(numbers) as header:
        check(_prctl(PR_SET_SECCOMP, MODE_FILTER, header))


@contextmanager
def _program(numbers: list[int]) -> Iterator[bytes]:
    """Yield a `struct sock_fprog`, whose instructions are there meanwhile."""
    buffer = ctypes.create_string_buffer(struct.pack(f"={len(numbers)}Q", *numbers))
    yield struct.pack("@HP", len(numbers), ctypes.addressof(buffer))


class Faults:
    """Faults of a system call in an acceptor: its next calls fail with `errnos`, in this order, and later ones go on.

    `install` is called in that process. The kernel asks about each call, and a thread answers, until `close`.
    """

    def __init__(self, name: str) -> None:
        self.errnos: list[int] = []
        self._filter = _by_name((name,), NOTIFY, ALLOW)
        self._ours, theirs = socket.socketpair()
        self._theirs = socket.socket(fileno=fcntl(theirs.fileno(), F_DUPFD_CLOEXEC, ABOVE))
        theirs.close()
        self._is_over = Event()
        self._thread = Thread(target=self._answer)
        self._thread.start()

    def install(self) -> None:
        """Begin in this process. Raises OSError."""
        set_no_new_privs()
        with _program(self._filter) as header:
            listener = check(_syscall(NUMBERS["seccomp"], SET_MODE_FILTER, NEW_LISTENER, header))
        socket.send_fds(self._theirs, [b"x"], [listener])

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()
        self._ours.close()
        self._theirs.close()

    def _answer(self) -> None:
        self._ours.settimeout(LOOK)
        listeners: list[int] = []
        while not self._is_over.is_set():
            if not listeners:
                with suppress(TimeoutError):
                    listeners = socket.recv_fds(self._ours, 1, 1)[1]
            elif select.select(listeners, [], [], LOOK)[0]:
                self._answer_one(listeners[0])
        for listener in listeners:
            os.close(listener)

    def _answer_one(self, listener: int) -> None:
        with suppress(OSError):  # the process has ended
            (number,) = NOTIFICATION.unpack(ioctl(listener, RECEIVE, bytes(NOTIFICATION.size)))
            failure = self.errnos.pop(0) if self.errnos else 0
            ioctl(listener, SEND, ANSWER.pack(number, 0, -failure, 0 if failure else CONTINUE))
