from __future__ import annotations

import errno
import os
import resource
import socket
from pathlib import Path
from typing import Literal

import pytest

from supervisor.definitions.service import NULL_IN, Descriptor
from supervisor.process.held_descriptors import close_descriptor, is_null, is_rewound, open_descriptor
from tests.unit.closing import PatientCloser
from tests.unit.process.forked import in_child, open_numbers, step_error


def test_null_is_left_to_the_child() -> None:
    assert is_null(NULL_IN)
    assert not is_null(Descriptor("file", path="/dev/zero", access="r"))
    assert not is_null(Descriptor("stream", path="/dev/null"))


def test_a_log_is_none_of_ours() -> None:
    with pytest.raises(ValueError, match="'log'"):
        open_descriptor(Descriptor("log"))


@pytest.mark.parametrize(
    ("spec", "step"),
    [
        (Descriptor("file", path="/etc/passwd", access="r"), "open"),
        (Descriptor("tcp", host="127.0.0.1"), "create tcp 127.0.0.1:0"),
        (Descriptor("stream", path="/nowhere/socket"), "create stream socket"),
        (Descriptor("udp", host="::1", netns="spawnd-nowhere"), "enter network namespace"),
    ],
)
def test_no_descriptor_left(spec: Descriptor, step: str) -> None:
    def open_without_room() -> tuple[tuple[str, str, int], bool]:
        before = open_numbers()
        usual = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(before) + 1, usual[1]))
        fill = [os.dup(0) for _ in range(max(before) + 1 - len(before))]
        error = step_error(lambda: open_descriptor(spec))
        for fd in fill:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)  # the look needs a descriptor of its own
        return error, open_numbers() == before

    (failed, _, number), unchanged = in_child(open_without_room)
    assert (failed, number, unchanged) == (step, errno.EMFILE, True)


@pytest.mark.parametrize(("access", "yes"), [("r", True), ("r+", True), ("a+", True), ("a", False)])
def test_files_for_reading_are_rewound(tmp_path: Path, access: Literal["r", "r+", "a+", "a"], yes: bool) -> None:
    (tmp_path / "file").write_bytes(b"content")
    opened = open_descriptor(Descriptor("file", path=str(tmp_path / "file"), access=access))
    assert is_rewound(opened) is yes
    close_descriptor(opened, PatientCloser())


def test_sockets_are_not_rewound() -> None:
    udp = open_descriptor(Descriptor("udp", host="127.0.0.1"))
    assert not is_rewound(udp)
    close_descriptor(udp, PatientCloser())


def test_numbers_belong_to_the_caller() -> None:
    before = open_numbers()
    opened = open_descriptor(Descriptor("tcp", host="127.0.0.1"))
    with socket.socket(fileno=os.dup(opened.fd)) as sock:
        address = sock.getsockname()
    assert open_numbers() == before | {opened.fd}
    close_descriptor(opened, PatientCloser())
    assert open_numbers() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 5)
