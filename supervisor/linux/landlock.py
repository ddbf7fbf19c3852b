"""landlock(7): a process gives up the right to change files, for itself and its later children.

The C library has no functions for these calls; their numbers are the same on all architectures.
"""

from __future__ import annotations

import ctypes
import struct

from supervisor.linux.capabilities import set_no_new_privs
from supervisor.linux.libc import check, function

# <linux/landlock.h>
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1
WRITE_FILE, REMOVE_DIR, REMOVE_FILE = 1 << 1, 1 << 4, 1 << 5
MAKE_ANY = 0x7F << 6  # character devices, folders, files, sockets, FIFOs, block devices, links
REFER, TRUNCATE = 1 << 13, 1 << 14  # from version 2 and 3 on
TRUNCATE_VERSION = 3  # Linux 6.2
ON_FILES = WRITE_FILE | TRUNCATE  # rights that are valid in a rule for a file
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446

_create = function("syscall", ctypes.c_long, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint)
_add = function("syscall", ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_restrict = function("syscall", ctypes.c_long, ctypes.c_int, ctypes.c_uint)


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
