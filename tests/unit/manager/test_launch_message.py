"""A launch that goes over a socket is the same on the other side."""

from __future__ import annotations

import os
import socket
from dataclasses import replace

import pytest

from supervisor.definitions.service import Service
from supervisor.errors import StepError
from supervisor.linux.open_files import identity
from supervisor.manager.launch_message import MOST, receive_launch, send_launch
from supervisor.process.files import Rights
from supervisor.process.launch import Launch
from supervisor.process.paths import Mark

SERVICE = Service("a", user="root", uid=0, gid=0, env={"A": "ü"}, functions=("start",), limits={"core": (0, 1)})


def launch(error_fd: int, fds: int) -> Launch:
    own = [os.memfd_create(f"f{number}") for number in range(fds)]
    return Launch(
        rights=Rights(12, 13, (14,)),
        argv=("/bin/x", "ü"),
        env=SERVICE.env,
        env_files=("/etc/x",),
        service=SERVICE,
        stdio=("/dev/null", *(own[:2] if own else ("/dev/null", "/dev/null"))),
        fds=(("null", "/dev/null"), *((f"f{number}", fd) for number, fd in enumerate(own))),
        error_fd=error_fd,
        nofile_soft=1024,
        is_root=True,
        notify_socket="@x",
        watchdog_usec=5,
        cgroup="/sys/fs/cgroup/x",
        worker=True,
        spared=True,
        marks=(Mark(3, "/etc/ü", 1, 2, False), Mark(0, "/run/x", 1, 3, True)),
        emptied=(1, 4),
        rewound=(0, 5),
    )


@pytest.mark.parametrize("count", [0, 2, MOST - 3, MOST - 2, MOST, 3 * MOST])
def test_a_launch_arrives(count: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sent = launch(theirs.fileno(), count)
        send_launch(ours.fileno(), sent)
        ours.sendall(b"\n")  # the release, which is not part of it
        found = receive_launch(theirs.fileno())
        assert theirs.recv(10) == b"\n"
    assert [name for name, _ in found.fds] == [name for name, _ in sent.fds]
    pairs = list(zip(sent.stdio, found.stdio, strict=True))
    pairs += [(one, other) for (_, one), (_, other) in zip(sent.fds, found.fds, strict=True)]
    for source, arrived in pairs:
        if isinstance(source, int) and isinstance(arrived, int):
            assert arrived != source
            assert identity(arrived) == identity(source)
            assert not os.get_inheritable(arrived)
        else:
            assert source == arrived
    plain = {"stdio": sent.stdio, "fds": sent.fds}
    assert replace(found, **plain) == sent  # type: ignore[arg-type]
    for fd in {fd for pair in pairs for fd in pair if isinstance(fd, int)}:
        os.close(fd)


def test_a_spawnd_that_is_gone() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        with pytest.raises(StepError, match="spawnd is gone"):
            receive_launch(theirs.fileno())
