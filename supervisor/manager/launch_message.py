"""The message that carries a launch to a child of the fork server.

It is sent before the fork, over the socket pair on which the child reports: a memfd with the launch as JSON,
then all its descriptors, as many per message as possible.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, replace
from typing import Any

from supervisor.definitions.report import SharedValues, service_record
from supervisor.errors import StepError
from supervisor.linux.descriptors import memfd
from supervisor.process.failure import step
from supervisor.process.files import Rights
from supervisor.process.launch import Launch, Source
from supervisor.process.paths import Mark

MOST = 253  # descriptors per message: SCM_MAX_FD
# fields that are sent as they are; the optional ones have a default in `Launch`
OPTIONAL = ("notify_socket", "watchdog_usec", "cgroup", "worker", "spared", "keyring")
PLAIN = ("argv", "env", "env_files", "nofile_soft", "is_root", "marks", "emptied", "rewound", *OPTIONAL)
Table = list[Source]


def send_launch(fd: int, launch: Launch) -> None:
    """Send a launch on the socket `fd`, without waiting. Raises StepError."""
    sources: Table = [*launch.stdio, *(source for _, source in launch.fds)]
    own = [source for source in sources if isinstance(source, int)]
    record: dict[str, Any] = {key: getattr(launch, key) for key in PLAIN}
    record["service"] = service_record(launch.service)
    record["rights"] = None if launch.rights is None else asdict(launch.rights)
    record["names"] = [name for name, _ in launch.fds]
    record["sources"] = [None if isinstance(source, int) else source for source in sources]
    connection = socket.socket(fileno=fd)
    try:
        with step("hand over descriptors"):
            data = memfd("launch", json.dumps(record).encode())
            try:
                for first in range(0, len(own) + 1, MOST):
                    socket.send_fds(connection, [b"d"], [data, *own][first : first + MOST])
            finally:
                os.close(data)
    finally:
        connection.detach()


def receive_launch(fd: int) -> Launch:
    """Read a launch from the socket `fd`, in the child. Raises StepError if spawnd is gone."""
    with socket.socket(fileno=os.dup(fd)) as connection, step("take over descriptors"):
        fds = _receive(connection)
        with open(fds.pop(0), "rb") as file:
            record = json.load(file)
        sources: Table = record["sources"]
        while len(fds) < sources.count(None):  # type: ignore[arg-type]
            fds += _receive(connection)
    numbers = iter(fds)
    complete: Table = [next(numbers) if source is None else source for source in sources]
    service = SharedValues().service(record["service"])
    stdin, stdout, stderr, *others = complete
    rights = record["rights"]
    launch = Launch(
        argv=tuple(record["argv"]),
        env=record["env"],
        env_files=tuple(record["env_files"]),
        service=service,
        stdio=(stdin, stdout, stderr),
        fds=tuple(zip(record["names"], others, strict=True)),
        error_fd=fd,
        nofile_soft=record["nofile_soft"],
        is_root=record["is_root"],
        rights=None if rights is None else Rights(**rights | {"gids": tuple(rights["gids"])}),
        marks=tuple(Mark(*mark) for mark in record["marks"]),
        emptied=tuple(record["emptied"]),
        rewound=tuple(record["rewound"]),
    )
    return replace(launch, **{key: record[key] for key in OPTIONAL})


def _receive(connection: socket.socket) -> list[int]:
    message, fds, _flags, _address = socket.recv_fds(connection, 1, MOST)
    if not message:
        raise StepError("take over descriptors", "", 0, "spawnd is gone")
    for fd in fds:
        os.set_inheritable(fd, False)
    return fds
