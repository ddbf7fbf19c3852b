"""A plan for `launch`: operations in the order of their execution, in the format of `plan.h`.

Each operation has `step` and `path` for the report of its failure, and the `cause` to report for the errno `refused`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

MAGIC = 0x4E4C5053
VERSION = 3
_HEADER = struct.Struct("=4I")
_OPERATION = struct.Struct("=2H3I")
_SIZE = _OPERATION.size
LABELS = 3  # strings before those of the kind
_BITS = 0xFFFFFFFFFFFFFFFF


class Kind:
    """`enum kind` of `plan.h`, which documents the parameters of each.

    Plain numbers, as each access to a member of an enumeration runs Python code before Python 3.12.
    """

    (
        UNDUMPABLE,
        SESSION,
        SIGNALS,
        CLOSE,
        RECEIVE,
        OPEN,
        OPEN_FILE,
        MOVE,
        LOOK,
        LOOKED,
        TRUNCATE,
        REWIND,
        WRITE,
        NICE,
        AFFINITY,
        SCHEDULING,
        IO_PRIORITY,
        TIMER_SLACK,
        LIMIT,
        ENVIRONMENT,
        OWN_PID,
        OWN_START,
        ENV_FILE,
        ENTER_NAMESPACE,
        JOIN_NAMESPACE,
        MAKE_NAMESPACES,
        IF_EXISTS,
        MOUNT_NAMESPACE,
        MOUNT,
        CHROOT,
        KEYRING,
        BOUNDING_SET,
        KEEP_CAPABILITIES,
        GROUPS,
        GID,
        UID,
        CAPABILITIES,
        AMBIENT_CAPABILITY,
        FOLDER,
        UMASK,
        BINDING_LIMIT,
        GO,
        NO_NEW_PRIVS,
        RULESET,
        PATH_RULE,
        DESCRIPTOR_RULE,
        RESTRICT,
        FILTER,
        EXECUTE,
        EXECUTE_DESCRIPTOR,
    ) = range(50)


EXPANDS, HAS_ARGV0 = 1, 2  # flags of EXECUTE: expand variables; argv[0] follows the path


def operation(
    kind: int,
    step: str = "",
    path: str = "",
    numbers: Sequence[int] = (),
    strings: Sequence[str] = (),
    refused: int = 0,
    cause: str = "",
) -> bytes:
    """Encode an operation with signed or unsigned numbers of 64 bits. Raises ValueError for a NUL in a string."""
    text = "\0".join((step, path, cause, *strings, ""))
    words = LABELS + len(strings)
    if text.count("\0") != words:
        raise ValueError("embedded null byte")
    data = text.encode("utf-8", "surrogateescape")
    filling, count = -len(data) % 8, len(numbers)
    size = _SIZE + 8 * count + len(data) + filling
    head = _OPERATION.pack(kind, refused, count, words, size)
    if count:
        head += struct.pack(f"={count}Q", *[number & _BITS for number in numbers])
    return head + data + bytes(filling)


def plan(operations: Sequence[bytes]) -> bytes:
    """Join operations to a plan."""
    body = b"".join(operations)
    return _HEADER.pack(MAGIC, VERSION, _HEADER.size + len(body), len(operations)) + body
