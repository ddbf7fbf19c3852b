"""capabilities(7): calls that python-prctl lacks, or for which alone it would be imported."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable

from supervisor.linux.libc import check, function

# <linux/prctl.h>
PR_SET_NO_NEW_PRIVS = 38

# <linux/capability.h>
LINUX_CAPABILITY_VERSION_3 = 0x20080522
# in the order of their numbers
CAPABILITIES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
    "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
    "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
    "checkpoint_restore",
)  # fmt: skip
SETPCAP = CAPABILITIES.index("setpcap")
_HEADER = struct.pack("=Ii", LINUX_CAPABILITY_VERSION_3, 0)
_DATA = struct.Struct("=6I")  # twice the effective, permitted and inheritable set, with 32 capabilities each

_capget = function("capget", ctypes.c_char_p, ctypes.c_char_p)
_capset = function("capset", ctypes.c_char_p, ctypes.c_char_p)
_prctl = function("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def limit_effective(wanted: Iterable[int]) -> None:
    """Reduce the effective set to the given capabilities, by number.

    The permitted set stays. So a program that root executes has no more capabilities than this process, and the signal
    at the death of the parent remains, which the kernel clears when capabilities are gained. Raises OSError.
    """
    _, low, low_inheritable, _, high, high_inheritable = _DATA.unpack(capget())
    mask = sum(1 << number for number in set(wanted))
    effective = low & mask, high & mask >> 32
    capset(_DATA.pack(effective[0], low, low_inheritable, effective[1], high, high_inheritable))


def drop_inheritable() -> None:
    """Empty the inheritable set, so that executed programs get no capabilities from it, unless root executes them.

    The kernel empties the ambient set with the inheritable one. Raises OSError.
    """
    effective, permitted, _, high_effective, high_permitted, _ = _DATA.unpack(capget())
    capset(_DATA.pack(effective, permitted, 0, high_effective, high_permitted, 0))


def raise_effective() -> None:
    """Make all permitted capabilities effective again after a change of user cleared them. Raises OSError."""
    _, low, low_inheritable, _, high, high_inheritable = _DATA.unpack(capget())
    capset(_DATA.pack(low, low, low_inheritable, high, high, high_inheritable))


def capget() -> bytes:
    """Return the capability sets of the calling thread, in the format of `capset`."""
    data = ctypes.create_string_buffer(_DATA.size)
    check(_capget(_HEADER, data))
    return data.raw


def capset(data: bytes) -> None:
    """Set the capability sets of the calling thread. Raises OSError."""
    check(_capset(_HEADER, data))


def permitted() -> int:
    """Return the permitted set of the calling thread, as a set of bits."""
    sets = _DATA.unpack(capget())
    return int(sets[1] | sets[4] << 32)


def has_effective(number: int) -> bool:
    """Whether a capability is in the effective set of the calling thread."""
    effective = _DATA.unpack(capget())
    return bool((effective[0] | effective[3] << 32) >> number & 1)


def drop_all() -> None:
    """Empty the permitted, effective and inheritable sets; the kernel empties the ambient set with them."""
    capset(bytes(_DATA.size))


def set_no_new_privs() -> None:
    """Permanently prevent programs executed by this process from gaining privileges. Raises OSError."""
    check(_prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
