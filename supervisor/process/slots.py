"""The slots of a descriptor table: the numbers that a service finds its descriptors at."""

from __future__ import annotations

STDIO = ("stdin", "stdout", "stderr")  # 0, 1 and 2
FIRST = 3  # of the table proper, as systemd's SD_LISTEN_FDS_START

Slot = int


def slot_name(slot: Slot) -> str:
    """Return what a slot is called in messages and in the state file: `stdin`, `stdout`, `stderr`, `3`, `4`, …"""
    return STDIO[slot] if slot < FIRST else str(slot)
