"""Which messages of rtnetlink(7) a worker hears of: a classic BPF program.

The host may have a thousand interfaces that come and go, and a namespace a million routes;
nobody is to be woken for what is of others, or has only come to be.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from supervisor.linux.socket_filter import INSTRUCTION

LD_W, LD_H, LD_B, JEQ, JSET, RET = 0x20, 0x28, 0x30, 0x15, 0x45, 0x06
# offsets: nlmsg_type, nlmsg_flags, ifi_index (ifa_index is there as well), rtm_dst_len
TYPE, FLAGS, INDEX, PREFIX = 4, 6, 20, 17
RTM_NEWLINK, RTM_DELLINK, RTM_DELADDR, RTM_NEWROUTE, RTM_DELROUTE = 16, 17, 21, 24, 25
NLM_F_REPLACE = 0x100


def program(links: Iterable[int], prefixes: Iterable[int]) -> bytes:
    """Let pass what has become of these interfaces and their addresses, and of routes with these prefixes."""
    by_index = _any_of(LD_W, INDEX, [_word(link) for link in links])
    by_prefix = _any_of(LD_B, PREFIX, list(prefixes))
    replaced = [(LD_H, 0, 0, FLAGS), (JSET, 1, 0, _short(NLM_F_REPLACE)), (RET, 0, 0, 0)]
    code = [
        (LD_H, 0, 0, TYPE),
        (JEQ, 5, 0, _short(RTM_NEWLINK)),
        (JEQ, 4, 0, _short(RTM_DELLINK)),
        (JEQ, 3, 0, _short(RTM_DELADDR)),
        (JEQ, 2 + len(by_index), 0, _short(RTM_NEWROUTE)),
        (JEQ, 1 + len(by_index) + len(replaced), 0, _short(RTM_DELROUTE)),
        (RET, 0, 0, 0),
        *by_index,
        *replaced,
        *by_prefix,
    ]
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in code)


def _any_of(load: int, offset: int, values: list[int]) -> list[tuple[int, int, int, int]]:
    """Let pass what has one of the values there."""
    jumps = [(JEQ, len(values) - position, 0, value) for position, value in enumerate(values)]
    return [(load, 0, 0, offset), *jumps, (RET, 0, 0, 0), (RET, 0, 0, 0xFFFFFFFF)]


def _short(value: int) -> int:
    """What the program has after it has loaded a number of the host's byte order: it loads as the network writes."""
    return int.from_bytes(struct.pack("=H", value), "big")


def _word(value: int) -> int:
    return int.from_bytes(struct.pack("=I", value), "big")
