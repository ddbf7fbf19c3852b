"""The slots of a descriptor table: the numbers of a service's descriptors."""

from __future__ import annotations

STDIO = ("stdin", "stdout", "stderr")  # 0, 1 and 2
FIRST = 3  # of the table proper, as systemd's SD_LISTEN_FDS_START

Slot = int


def slot_name(slot: Slot) -> str:
    """Return the name of a slot in messages and in the state file: `stdin`, `stdout`, `stderr`, `3`, `4`, …"""
    return STDIO[slot] if slot < FIRST else str(slot)
