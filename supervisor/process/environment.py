"""The environment of a service: its definition's, its environment files', and the protocols'.

Variables of the protocols are those of sd_listen_fds(3), sd_notify(3) and
sd_watchdog_enabled(3).
"""

from __future__ import annotations

import errno
import os
import re

from supervisor.process.launch import Launch
from supervisor.process.step import failed, step

LARGEST_FILE = 1 << 20  # bytes; the kernel takes 2 MiB of arguments and environment with the default stack

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def environment(launch: Launch) -> dict[str, str]:
    """What the service, this process, finds in its environment.  Raises StepError."""
    env = dict(launch.env)
    for path in launch.env_files:
        env.update(read_environment_file(path))
    pid = str(os.getpid())
    if launch.fds:
        env["LISTEN_FDS"] = str(len(launch.fds))
        env["LISTEN_PID"] = pid
        env["LISTEN_FDNAMES"] = ":".join([name for name, _ in launch.fds])
    if launch.notify_socket:
        env["NOTIFY_SOCKET"] = launch.notify_socket
    if launch.watchdog_usec:
        env["WATCHDOG_USEC"] = str(launch.watchdog_usec)
        env["WATCHDOG_PID"] = pid
    return env


def read_environment_file(path: str) -> dict[str, str]:
    """The variables in a file of `KEY=value` lines, `#` comments and empty lines.

    Blanks around key and value are dropped, and one pair of quotes around the value; nothing
    is expanded or unescaped.  Raises StepError, which names a bad line by its number: what
    is in such a file is secret.
    """
    with step("read", path):
        data = _read(path)
    variables = {}
    for number, line in enumerate(os.fsdecode(data).split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        key = key.rstrip()
        if not equals or not _NAME.match(key) or "\0" in value:
            raise failed("read", path, errno.EINVAL, f"line {number} is not KEY=value")
        variables[key] = _unquote(value.lstrip())
    return variables


def _read(path: str) -> bytes:
    # O_NONBLOCK: a FIFO by mistake is an empty file rather than a start that hangs
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        data = b""
        while chunk := os.read(fd, LARGEST_FILE):
            data += chunk
            if len(data) > LARGEST_FILE:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return data
    finally:
        os.close(fd)


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value
