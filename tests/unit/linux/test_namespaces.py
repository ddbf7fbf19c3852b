from __future__ import annotations

import errno
import os

import pytest

from supervisor.linux.namespaces import CLONE_NEWNET, CLONE_NEWUTS, ns_get_nstype, setns, unshare
from tests.unit.process.forked import in_child
from tests.unit.process.requirements import needs_root


def inode(name: str) -> int:
    return os.stat(f"/proc/thread-self/ns/{name}").st_ino


@needs_root
def test_there_and_back() -> None:
    def travel() -> list[int]:
        home = os.open("/proc/thread-self/ns/uts", os.O_RDONLY)
        seen = [inode("uts")]
        unshare(CLONE_NEWUTS)
        seen.append(inode("uts"))
        setns(home, CLONE_NEWUTS)
        return [*seen, inode("uts")]

    first, away, back = in_child(travel)
    assert first == back
    assert away != first


def test_setns_wants_the_type_that_it_was_promised() -> None:
    fd = os.open("/proc/self/ns/uts", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Invalid argument") as caught:
            setns(fd, CLONE_NEWNET)
        assert caught.value.errno == errno.EINVAL
    finally:
        os.close(fd)


def test_unshare_refuses_what_is_no_namespace() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        unshare(0x1)


def test_what_kind_of_namespace_a_descriptor_is_of() -> None:
    for name, kind in (("uts", CLONE_NEWUTS), ("net", CLONE_NEWNET)):
        fd = os.open(f"/proc/self/ns/{name}", os.O_RDONLY)
        assert ns_get_nstype(fd) == kind
        os.close(fd)
    read_end, write_end = os.pipe()
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        ns_get_nstype(read_end)
    os.close(read_end)
    os.close(write_end)
