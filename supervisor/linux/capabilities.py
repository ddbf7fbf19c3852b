"""Limits of the rights of a process: capabilities(7), no_new_privs, and landlock(7).

These are calls that python-prctl lacks, or for which alone it would be imported. The C library has no functions for
those of Landlock; their numbers are the same on all architectures.
"""

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
# <linux/landlock.h>
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1
WRITE_FILE, REMOVE_DIR, REMOVE_FILE = 1 << 1, 1 << 4, 1 << 5
MAKE_ANY = 0x7F << 6  # character devices, folders, files, sockets, FIFOs, block devices, links
REFER, TRUNCATE = 1 << 13, 1 << 14  # from version 2 and 3 on
TRUNCATE_VERSION = 3  # Linux 6.2
ON_FILES = WRITE_FILE | TRUNCATE  # rights that are valid in a rule for a file
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446

_HEADER = struct.pack("=Ii", LINUX_CAPABILITY_VERSION_3, 0)
_DATA = struct.Struct("=6I")  # twice the effective, permitted and inheritable set, with 32 capabilities each

_capget = function("capget", ctypes.c_char_p, ctypes.c_char_p)
_capset = function("capset", ctypes.c_char_p, ctypes.c_char_p)
_prctl = function("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_create = function("syscall", ctypes.c_long, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint)
_add = function("syscall", ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_restrict = function("syscall", ctypes.c_long, ctypes.c_int, ctypes.c_uint)


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


def landlock_version() -> int:
    """Return the version of landlock. Raises OSError: ENOSYS, or EOPNOTSUPP if it is disabled at boot."""
    return check(_create(_CREATE_RULESET, None, 0, CREATE_RULESET_VERSION))


def writing(version: int) -> int:
    """Return all rights to change files that this version can restrict."""
    return WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_ANY | (REFER if version >= 2 else 0) | (
        TRUNCATE if version >= TRUNCATE_VERSION else 0
    )  # fmt: skip


def landlock_create_ruleset(rights: int) -> int:
    """Return a rule set that takes the rights away; the caller owns the descriptor. Raises OSError."""
    attributes = struct.pack("=Q", rights)
    return check(_create(_CREATE_RULESET, attributes, len(attributes), 0))


def landlock_add_rule(ruleset: int, folder: int, rights: int) -> None:
    """Keep rights for the file of the descriptor `folder` and everything below it. Raises OSError."""
    check(_add(_ADD_RULE, ruleset, RULE_PATH_BENEATH, struct.pack("=Qi", rights, folder), 0))


def landlock_restrict_self(ruleset: int) -> None:
    """Enforce the rules for the calling thread and its later children, permanently. Raises OSError.

    From then on, programs gain no privileges by set-user-ID and the like.
    """
    set_no_new_privs()
    check(_restrict(_RESTRICT_SELF, ruleset, 0))
