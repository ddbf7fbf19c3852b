"""The processes of this host, as `/proc` shows them: proc(5)."""

from __future__ import annotations

import os
from contextlib import suppress

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


def processes() -> bytes:
    """One after the other, each field with a NUL behind it, in the order that the Lua part knows.

    pid, ppid, uid, gid, state, memory (bytes), CPU time (seconds), name, command line (words between blanks).
    """
    rows = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                rows.append((int(name), _row(name)))
    rows.sort()
    return b"".join(row for _pid, row in rows)


def _row(pid: str) -> bytes:
    status = os.stat(f"/proc/{pid}")
    text = _read(f"/proc/{pid}/stat")
    # the name may hold anything, so count from its closing bracket: field 3 follows it
    name = text[text.index(b"(") + 1 : text.rindex(b")")]
    fields = text[text.rindex(b")") + 2 :].split()
    command = _read(f"/proc/{pid}/cmdline").rstrip(b"\0").replace(b"\0", b" ")
    memory = int(fields[21]) * PAGE_SIZE
    cpu = (int(fields[11]) + int(fields[12])) / TICKS
    ids = b"%s %s %d %d" % (pid.encode(), fields[1], status.st_uid, status.st_gid)
    numbers = (*ids.split(), fields[0], b"%d" % memory, b"%.2f" % cpu)
    return b"".join(field + b"\0" for field in (*numbers, name, command))


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        data = b""
        while chunk := file.read(1 << 16):
            data += chunk
        return data
