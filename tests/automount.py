"""A folder that an automounter is to mount at the first access, which it never does: autofs in the kernel's documents.

Whoever accesses the folder waits until the automounter ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_READY = b"mounted\n"
# The kernel lets the automounter's own process group through, so it has one for itself.  Its end alone would leave
# those waiting whose requests are in the pipe.
_AUTOMOUNTER = """
import ctypes, fcntl, os, signal, sys

CATATONIC = 0x9362  # AUTOFS_IOC_CATATONIC: <linux/auto_fs.h>
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
folder, ready = sys.argv[1:]
read_end, write_end = os.pipe()
options = f"fd={write_end},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
if libc.mount(b"test", os.fsencode(folder), b"autofs", 0, options.encode()):
    sys.exit(os.strerror(ctypes.get_errno()))
root = os.open(folder, os.O_RDONLY)
os.write(1, ready.encode())
signal.sigwait([signal.SIGTERM])
fcntl.ioctl(root, CATATONIC)
"""


@contextmanager
def unanswering() -> Iterator[str]:
    """The path of such a folder, with a blank in it."""
    with tempfile.TemporaryDirectory(prefix="auto mount-") as folder:
        command = [sys.executable, "-ISc", _AUTOMOUNTER, folder, _READY.decode()]
        automounter = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        is_mounted = False
        try:
            assert automounter.stdout is not None
            is_mounted = automounter.stdout.readline() == _READY
            if not is_mounted:
                raise OSError("cannot mount an autofs")
            yield folder
        finally:
            automounter.terminate()
            if automounter.stdout is not None:
                automounter.stdout.close()
            automounter.wait()
            if is_mounted:
                subprocess.run(["umount", "-l", folder], check=True)


def is_possible() -> bool:
    """Whether this process may mount one."""
    with open("/proc/filesystems", encoding="ascii") as known:
        return os.geteuid() == 0 and any(line.split()[-1] == "autofs" for line in known)
