"""A plan for `launch`: operations in the order of their execution, in the format of `plan.h`.

Each operation has `step` and `path` for the report of its failure, and the `cause` to report for the errno `refused`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from enum import IntEnum, auto

MAGIC = 0x4E4C5053
VERSION = 2
_HEADER = struct.Struct("=4I")
_SIZE = 16  # bytes of an operation before its numbers
_BITS = 0xFFFFFFFFFFFFFFFF


class Kind(IntEnum):
    """`enum kind` of `plan.h`, which documents the parameters of each."""

    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[int]) -> int:
        return count

    UNDUMPABLE = auto()
    SESSION = auto()
    SIGNALS = auto()
    CLOSE = auto()
    RECEIVE = auto()
    OPEN = auto()
    MOVE = auto()
    LOOK = auto()
    LOOKED = auto()
    TRUNCATE = auto()
    REWIND = auto()
    WRITE = auto()
    NICE = auto()
    AFFINITY = auto()
    SCHEDULING = auto()
    IO_PRIORITY = auto()
    TIMER_SLACK = auto()
    LIMIT = auto()
    ENVIRONMENT = auto()
    OWN_PID = auto()
    OWN_START = auto()
    ENV_FILE = auto()
    ENTER_NAMESPACE = auto()
    JOIN_NAMESPACE = auto()
    MAKE_NAMESPACES = auto()
    IF_EXISTS = auto()
    MOUNT_NAMESPACE = auto()
    MOUNT = auto()
    CHROOT = auto()
    KEYRING = auto()
    BOUNDING_SET = auto()
    KEEP_CAPABILITIES = auto()
    GROUPS = auto()
    GID = auto()
    UID = auto()
    CAPABILITIES = auto()
    AMBIENT_CAPABILITY = auto()
    FOLDER = auto()
    UMASK = auto()
    BINDING_LIMIT = auto()
    GO = auto()
    NO_NEW_PRIVS = auto()
    RULESET = auto()
    PATH_RULE = auto()
    DESCRIPTOR_RULE = auto()
    RESTRICT = auto()
    FILTER = auto()
    EXECUTE = auto()


def operation(
    kind: Kind,
    step: str = "",
    path: str = "",
    numbers: Sequence[int] = (),
    strings: Iterable[str] = (),
    refused: int = 0,
    cause: str = "",
) -> bytes:
    """Encode an operation with signed or unsigned numbers of 64 bits. Raises ValueError for a NUL in a string."""
    words = [step, path, cause, *strings]
    text = "\0".join(words)
    if text.count("\0") >= len(words):
        raise ValueError("embedded null byte")
    data = text.encode("utf-8", "surrogateescape") + b"\0"
    filling = -len(data) % 8
    size = _SIZE + 8 * len(numbers) + len(data) + filling
    head = struct.pack(
        f"=2H3I{len(numbers)}Q", kind, refused, len(numbers), len(words), size, *[number & _BITS for number in numbers]
    )
    return head + data + bytes(filling)


def plan(operations: Sequence[bytes]) -> bytes:
    """Join operations to a plan."""
    body = b"".join(operations)
    return _HEADER.pack(MAGIC, VERSION, _HEADER.size + len(body), len(operations)) + body
