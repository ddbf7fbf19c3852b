"""Opening the descriptors of services, by root, once; they stay open over restarts.

Everything here blocks for no longer than a local system call takes: no name is looked up,
no FIFO waits for its other end, no connect waits for room in a backlog.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from supervisor.definitions.service import Descriptor
from supervisor.process import files, internet_sockets, unix_sockets
from supervisor.process.network_namespace import run_in_namespace

NULL_PATH = "/dev/null"
INTERNET = frozenset({"udp", "tcp"})
UNIX = frozenset({"stream", "dgram", "seqpacket"})


@dataclass(frozen=True, slots=True)
class Opened:
    """A descriptor that is open, and what has to be known to close it: plain data.

    Whoever holds this owns `fd`.  `inode` is device and number of the socket file that
    `bind` made, which fstat on the socket does not tell; None where there is none.
    """

    spec: Descriptor
    fd: int
    inode: tuple[int, int] | None = None


def is_null(spec: Descriptor) -> bool:
    """Whether `spec` is /dev/null: not worth a descriptor of spawnd for each service, the child opens it."""
    return spec.kind == "file" and spec.path == NULL_PATH


def open_descriptor(spec: Descriptor) -> Opened:
    """Open `spec`, close-on-exec and in blocking mode, as daemons expect; the caller owns the descriptor.

    Raises StepError with the step (`open`, `bind tcp 127.0.0.1:80`, `connect`, …), the path and
    the errno; nothing half-made stays.  `log` descriptors are the log worker's to make.
    """
    if spec.kind == "file":
        return Opened(spec, files.open_file(spec))
    if spec.netns:
        return run_in_namespace(spec.netns, lambda: _open_socket(spec))
    return _open_socket(spec)


def _open_socket(spec: Descriptor) -> Opened:
    if spec.kind in INTERNET:
        return Opened(spec, internet_sockets.open_internet(spec))
    if spec.kind in UNIX:
        return Opened(spec, *unix_sockets.open_unix(spec))
    raise ValueError(f"no descriptor of kind {spec.kind!r} is opened here")


def close_descriptor(opened: Opened) -> None:
    """Close a descriptor and remove the socket file that came with it, unless another one took its place."""
    if opened.inode is not None:
        # Before the close: as long as the socket lives, its inode's number is no other file's.
        # A socket file that cannot be removed does no harm: the next bind finds it stale.
        with contextlib.suppress(OSError):
            unix_sockets.unlink_same(opened.spec.path, opened.inode)
    os.close(opened.fd)


def rewind(opened: Opened) -> None:
    """Set a file that is opened to be read back to its beginning, before a start.

    The offset belongs to the open file, which outlives the service.  Files opened with `w`
    and `w+` stay where they are: a new process goes on behind what the last one wrote.
    """
    if opened.spec.kind == "file" and opened.spec.access in files.READ_FROM_START:
        with contextlib.suppress(OSError):  # ESPIPE: a FIFO or a terminal
            os.lseek(opened.fd, 0, os.SEEK_SET)
