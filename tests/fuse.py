"""A FUSE file system with one file, whose server leaves the requests unanswered that a test names: fuse(4).

Sockets can be bound on it.
"""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

# <linux/fuse.h>
LOOKUP, FORGET, GETATTR, SETATTR, MKNOD, UNLINK = 1, 2, 3, 4, 8, 10
OPEN, READ, STATFS, RELEASE, FLUSH = 14, 15, 17, 18, 25
INIT, OPENDIR, ACCESS, POLL = 26, 27, 34, 40
NAME = "file"
ROOT_NODE, FILE_NODE = 1, 2
LONGEST = 1 << 20
PAGE = 4096
KEEP_CACHE = 1 << 1  # FOPEN_KEEP_CACHE: an open does not wait for pages that are read

_IN = struct.Struct("=IIQQIIII")  # fuse_in_header
_OUT = struct.Struct("=IiQ")  # fuse_out_header
_ATTR = struct.Struct("=QQQQQQIIIIIIIIII")  # fuse_attr
_MKNOD_IN = struct.Struct("=IIII")  # fuse_mknod_in
_SETATTR_IN = struct.Struct("=I64xIIII")  # fuse_setattr_in: which of them; mode, uid and gid
_INIT_OUT = struct.Struct("=IIIIHHIIHHI7I")
_SILENT = frozenset({FORGET})
_READY = b"mounted\n"


@contextmanager
def unanswering(*opcodes: int, once: bool = False) -> Iterator[str]:
    """The path of a file on a file system that is mounted for the test; these requests are never answered.

    With `once` the first one of each kind is.
    Whoever waits for one is let go at the end: the server ends, and with it the connection.
    """
    with tempfile.TemporaryDirectory(prefix="fuse-") as folder:
        command = [sys.executable, os.path.abspath(__file__), folder, *map(str, opcodes * (1 + once))]
        server = subprocess.Popen(command, stdout=subprocess.PIPE)
        is_mounted = False
        try:
            assert server.stdout is not None
            is_mounted = server.stdout.readline() == _READY
            if not is_mounted:
                raise OSError("cannot mount a FUSE file system")
            yield os.path.join(folder, NAME)
        finally:
            server.kill()
            if server.stdout is not None:
                server.stdout.close()
            server.wait()
            if is_mounted:
                subprocess.run(["umount", "-l", folder], check=True)


def is_possible() -> bool:
    """Whether this process may mount one."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError:
        return False
    return os.geteuid() == 0


class _Tree:
    """The folder, the file, and what has been made beside it."""

    def __init__(self) -> None:
        self._nodes = {NAME.encode(): FILE_NODE}
        self._owned = {ROOT_NODE: (0o40777, 0, 0), FILE_NODE: (0o100777, 0, 0)}

    def entry(self, name: bytes) -> bytes:
        if name not in self._nodes:
            raise FileNotFoundError(errno.ENOENT, name)
        node = self._nodes[name]
        return struct.pack("=QQQQII", node, 0, 3600, 3600, 0, 0) + self._attributes(node)

    def attributes(self, node: int) -> bytes:
        return struct.pack("=QII", 3600, 0, 0) + self._attributes(node)

    def _attributes(self, node: int) -> bytes:
        size = PAGE if node == FILE_NODE else 0
        mode, uid, gid = self._owned[node]
        return _ATTR.pack(node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, uid, gid, 0, 4096, 0)

    def make(self, request: bytes) -> bytes:
        name = request[_MKNOD_IN.size :].rstrip(b"\0")
        if name in self._nodes:
            raise FileExistsError(errno.EEXIST, name)
        self._nodes[name] = node = max(self._owned) + 1
        self._owned[node] = _MKNOD_IN.unpack_from(request)[0], 0, 0
        return self.entry(name)

    def change(self, node: int, request: bytes) -> bytes:
        which, mode, _unused, uid, gid = _SETATTR_IN.unpack_from(request)
        old = self._owned[node]
        new = (old[0] & 0o170000 | mode & 0o7777, uid, gid)
        self._owned[node] = tuple(new[n] if which & 1 << n else old[n] for n in range(3))  # type: ignore[assignment]
        return self.attributes(node)

    def remove(self, name: bytes) -> bytes:
        self.entry(name)
        del self._nodes[name]
        return b""


def _answer(tree: _Tree, opcode: int, node: int, request: bytes) -> bytes:
    """Return the server's answer to a request. Raises OSError."""
    if opcode == INIT:
        return _INIT_OUT.pack(7, 31, 65536, 0, 12, 9, 65536, 1, 1, 0, 0, *[0] * 7)
    if opcode == LOOKUP:
        return tree.entry(request.rstrip(b"\0"))
    if opcode == GETATTR:
        return tree.attributes(node)
    if opcode == SETATTR:
        return tree.change(node, request)
    if opcode == MKNOD:
        return tree.make(request)
    if opcode == UNLINK:
        return tree.remove(request.rstrip(b"\0"))
    if opcode in (OPEN, OPENDIR):
        return struct.pack("=QII", 1, KEEP_CACHE, 0)
    if opcode == READ:
        return bytes(PAGE)
    if opcode == STATFS:
        return bytes(80)  # fuse_statfs_out
    if opcode in (RELEASE, FLUSH, ACCESS):
        return b""
    if opcode == POLL:
        return struct.pack("=II", 1, 0)
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def _serve(folder: str, ignored: Counter[int]) -> None:
    """`ignored` has 1 for an opcode that is never answered, 2 for one that is answered once."""
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40777,user_id=0,group_id=0,allow_other"
    subprocess.run(
        [sys.executable, "-c", _MOUNT, folder, options],
        check=True,
        pass_fds=[device],
    )
    os.write(1, _READY)
    tree = _Tree()
    while True:
        request = os.read(device, LONGEST)
        _size, opcode, unique, node, *_ = _IN.unpack_from(request)
        if opcode in _SILENT or ignored[opcode] == 1:
            continue
        if ignored[opcode]:
            ignored[opcode] -= 1
        body, error = b"", 0
        try:
            body = _answer(tree, opcode, node, request[_IN.size :])
        except OSError as failure:
            error = -(failure.errno or errno.EIO)
        os.write(device, _OUT.pack(_OUT.size + len(body), error, unique) + body)


_MOUNT = """
import ctypes, os, sys
folder, options = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"test", folder.encode(), b"fuse.test", 0, options.encode()):
    sys.exit(os.strerror(ctypes.get_errno()))
"""

if __name__ == "__main__":
    _serve(sys.argv[1], Counter(map(int, sys.argv[2:])))
