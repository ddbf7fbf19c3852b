"""A plan with more operations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import unpack_from

from supervisor.launch.operations import plan

HEADER = 16  # bytes, as long as the first numbers of an operation


def inserted(data: bytes, more: Iterable[bytes]) -> bytes:
    """Put each operation before those of later kinds, which are numbered in the order of a plan."""
    operations = list(operations_of(data))
    for new in more:
        at = next(at for at, operation in enumerate(operations) if _kind(operation) > _kind(new))
        operations.insert(at, new)
    return plan(operations)


def operations_of(data: bytes) -> Iterator[bytes]:
    at = HEADER
    while at < len(data):
        (size,) = unpack_from("=I", data, at + 12)
        yield data[at : at + size]
        at += size


def _kind(operation: bytes) -> int:
    (kind,) = unpack_from("=H", operation)
    return int(kind)
