"""Network namespaces by name, as ip-netns(8) keeps them: mounted on /run/netns/NAME.

Files in `/etc/netns/NAME` replace those in `/etc` for processes inside.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from typing import TypeVar

from supervisor.linux.glance import read_link
from supervisor.linux.namespaces import CLONE_NEWNET, setns
from supervisor.process.failure import step
from supervisor.process.fork import in_thread

FOLDER = "/run/netns"
FILES = "/etc/netns"
RESOLVER = "resolv.conf"
SIOCGSKNS = 0x894C  # <linux/sockios.h>
T = TypeVar("T")

Identity = tuple[int, int]  # device and inode, unique among the namespaces of a moment


def enter_namespace(name: str) -> None:
    """Move the calling thread into the network namespace `name`. Raises StepError."""
    path = f"{FOLDER}/{name}"
    with step("enter network namespace", path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(fd, CLONE_NEWNET)
        finally:
            os.close(fd)


def namespace_of_name(name: str) -> Identity | None:
    """Return the namespace that has the name now; None if there is none."""
    try:
        found = os.stat(f"{FOLDER}/{name}")
    except OSError:
        return None
    return found.st_dev, found.st_ino


def namespace_of_process(pid: int) -> Identity | None:
    """Return the namespace of a process; None if the process is gone or hides it."""
    try:
        link = read_link(f"/proc/{pid}/ns/net")
        device = os.stat("/proc/self/ns/net").st_dev
    except OSError:
        return None
    return device, int(link.removeprefix("net:[").removesuffix("]"))


def namespace_of_socket(sock: int) -> Identity | None:
    """Return the namespace in which a socket was made; None if the kernel does not tell (not root)."""
    try:
        fd = fcntl.ioctl(sock, SIOCGSKNS)
    except OSError:
        return None
    try:
        found = os.fstat(fd)
    finally:
        os.close(fd)
    return found.st_dev, found.st_ino


def run_in_namespace(name: str, function: Callable[[], T]) -> T:
    """Return the result of `function`, called inside the network namespace `name`.

    Raises StepError, and the exceptions of `function`. A socket belongs to the namespace in which it was
    made, for good. A short-lived thread enters the namespace, because spawnd itself might fail to return. The
    thread has ended when this returns, so that the next fork finds a single thread.
    """

    def call_inside() -> T:
        enter_namespace(name)
        return function()

    return in_thread(call_inside, f"netns {name}")
