"""The results of a look at the paths of open descriptors."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from supervisor.definitions.service import Descriptor
from supervisor.linux.socket_state import queue_length
from supervisor.process.held_descriptors import close_descriptor, has_waiting, mark, open_descriptor, waiting
from supervisor.process.paths import Mark, Sight, look
from tests.unit.closing import PatientCloser


def file_mark(path: Path) -> Mark:
    opened = open_descriptor(Descriptor("file", path=str(path), access="r"))
    found = mark(3, opened)
    close_descriptor(opened, PatientCloser())
    assert found is not None
    return found


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    seen = file_mark(path)
    assert look([seen]) == {}
    other = tmp_path / "other"
    other.write_text("two")
    other.rename(path)
    assert look([seen]) == {3: Sight.REPLACED}
    path.unlink()
    assert look([seen]) == {3: Sight.DELETED}
    path.symlink_to("nowhere")
    assert look([seen]) == {3: Sight.DELETED}


def test_a_socket_whose_folder_is_gone(tmp_path: Path) -> None:
    """No other one can be bound there, so there is nothing to make way for."""
    folder = tmp_path / "folder"
    folder.mkdir()
    opened = open_descriptor(Descriptor("stream", path=str(folder / "sock")))
    seen = mark(3, opened)
    assert seen is not None
    folder.rename(tmp_path / "elsewhere")
    assert look([seen]) == {3: Sight.CUT_OFF}
    folder.mkdir()
    assert look([seen]) == {3: Sight.DELETED}
    close_descriptor(opened, PatientCloser())


def test_a_file_behind_a_link_that_leads_elsewhere(tmp_path: Path) -> None:
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(name)
    (tmp_path / "current").symlink_to("1")
    seen = file_mark(tmp_path / "current/key")
    assert look([seen]) == {}
    (tmp_path / "next").symlink_to("2")
    (tmp_path / "next").rename(tmp_path / "current")
    assert look([seen]) == {3: Sight.REPLACED}


@pytest.mark.parametrize("path", ["/dev/zero", "/proc/self/status", "/proc/sys/kernel/hostname"])
def test_what_is_no_file_on_a_disk_is_not_looked_at(path: str) -> None:
    opened = open_descriptor(Descriptor("file", path=path, access="r"))
    assert mark(3, opened) is None
    close_descriptor(opened, PatientCloser())


@pytest.mark.parametrize("kind", ["stream", "dgram", "seqpacket"])
def test_a_socket(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "sock"
    opened = open_descriptor(Descriptor(kind, path=str(path)))  # type: ignore[arg-type]
    seen = mark(0, opened)
    assert seen is not None
    assert look([seen]) == {}
    path.unlink()
    assert look([seen]) == {0: Sight.DELETED}
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        assert look([seen]) == {0: Sight.TAKEN}
    assert look([seen]) == {0: Sight.REPLACED}  # nobody has it bound any more
    path.unlink()
    path.write_text("no socket")
    assert look([seen]) == {0: Sight.TAKEN}
    close_descriptor(opened, PatientCloser())
    assert path.read_text() == "no socket"


def test_a_path_that_cannot_be_looked_at_counts_as_unchanged(tmp_path: Path) -> None:
    assert look([Mark(3, str(tmp_path / ("x" * 300)), 1, 2, False)]) == {}


def test_clients_in_a_backlog_are_counted(tmp_path: Path) -> None:
    opened = open_descriptor(Descriptor("stream", path=str(tmp_path / "sock")))
    assert (has_waiting(opened), waiting(opened)) == (False, "")
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        one.connect(str(tmp_path / "sock"))
        try:
            assert queue_length(opened.fd) == 1
        except FileNotFoundError:
            pytest.skip("this kernel has no sock_diag of Unix sockets")
        assert (has_waiting(opened), waiting(opened)) == (True, "1 client")
        two.connect(str(tmp_path / "sock"))
        assert waiting(opened) == "2 clients"
    close_descriptor(opened, PatientCloser())


def test_datagrams_that_nobody_has_read(tmp_path: Path) -> None:
    opened = open_descriptor(Descriptor("dgram", path=str(tmp_path / "sock")))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", str(tmp_path / "sock"))
    assert waiting(opened) == "datagrams"
    close_descriptor(opened, PatientCloser())


def test_queue_length_of_what_is_no_socket() -> None:
    read_end, write_end = os.pipe()
    with pytest.raises(OSError, match=r"Errno"):
        queue_length(read_end)
    os.close(read_end)
    os.close(write_end)
