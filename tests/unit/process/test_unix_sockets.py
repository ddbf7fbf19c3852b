from __future__ import annotations

import errno
import os
import select
import signal
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from supervisor.definitions.service import Descriptor
from supervisor.errors import ServedFileError
from supervisor.process import sockets
from supervisor.process.held_descriptors import Opened, close_descriptor, open_descriptor
from tests import fuse
from tests.unit.closing import PatientCloser
from tests.unit.process.forked import in_child, open_numbers, step_error
from tests.unit.process.requirements import needs_root
from tests.unit.waiting import HELD_UP

KINDS = ("stream", "dgram", "seqpacket")
TYPES = {"stream": socket.SOCK_STREAM, "dgram": socket.SOCK_DGRAM, "seqpacket": socket.SOCK_SEQPACKET}


def spec(kind: str, path: Path | str, **options: Any) -> Descriptor:
    return Descriptor(kind, path=str(path), **options)  # type: ignore[arg-type]


def connect(kind: str, path: Path | str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, TYPES[kind])
    try:
        sock.connect(str(path))
    except BaseException:
        sock.close()
        raise
    return sock


def leave_stale(kind: str, path: Path) -> None:
    with socket.socket(socket.AF_UNIX, TYPES[kind]) as sock:
        sock.bind(str(path))


@pytest.mark.parametrize("kind", KINDS)
def test_bound_open_to_clients_and_removed_at_the_end(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "socket"
    opened = open_descriptor(spec(kind, path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert opened.inode == (path.stat().st_dev, path.stat().st_ino)
    assert os.get_blocking(opened.fd)
    assert not os.get_inheritable(opened.fd)
    connect(kind, path).close()
    close_descriptor(opened, PatientCloser())
    assert not path.exists()


@needs_root
@pytest.mark.parametrize("kind", KINDS)
def test_mode_and_owner(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "socket"
    opened = open_descriptor(spec(kind, path, mode=0o620, owner=12, group=13))
    status = path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o620, 12, 13)
    close_descriptor(opened, PatientCloser())


@needs_root
def test_nobody_gets_in_before_the_mode_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "socket"
    seen = []

    def look(*_arguments: object) -> None:
        seen.append(stat.S_IMODE(path.stat().st_mode))

    umask = os.umask(0)
    try:
        monkeypatch.setattr(sockets, "_set_owner_and_mode", look)
        close_descriptor(open_descriptor(spec("dgram", path)), PatientCloser())
        assert os.umask(0) == 0
    finally:
        os.umask(umask)
    assert seen == [0]


@pytest.mark.parametrize("kind", KINDS)
def test_abstract(kind: str) -> None:
    name = f"@spawnd-test-{os.getpid()}-{kind}"
    opened = open_descriptor(spec(kind, name))
    assert opened.inode is None
    connect(kind, "\0" + name[1:]).close()
    before = open_numbers()
    assert step_error(lambda: open_descriptor(spec(kind, name))) == (f"bind {kind}", name, errno.EADDRINUSE)
    assert open_numbers() == before
    close_descriptor(opened, PatientCloser())


def test_passcred(tmp_path: Path) -> None:
    opened = open_descriptor(spec("dgram", tmp_path / "socket", passcred=True))
    with socket.socket(fileno=os.dup(opened.fd)) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED) == 1
    close_descriptor(opened, PatientCloser())


@pytest.mark.parametrize("stale", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_stale_file_is_replaced(tmp_path: Path, kind: str, stale: str) -> None:
    path = tmp_path / "socket"
    leave_stale(stale, path)
    opened = open_descriptor(spec(kind, path))
    connect(kind, path).close()
    close_descriptor(opened, PatientCloser())


@pytest.mark.parametrize("alive", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_living_one_stays_and_hears_nothing_of_it(tmp_path: Path, kind: str, alive: str) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, TYPES[alive]) as server:
        server.bind(str(path))
        if alive != "dgram":
            server.listen()
        before = open_numbers()
        assert step_error(lambda: open_descriptor(spec(kind, path))) == (f"bind {kind}", str(path), errno.EADDRINUSE)
        assert open_numbers() == before
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.recv(1) if alive == "dgram" else server.accept()
        connect(alive, path).close()


def test_one_that_does_not_listen_yet_is_alive(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        assert step_error(lambda: open_descriptor(spec("stream", path))) == (
            "bind stream",
            str(path),
            errno.EADDRINUSE,
        )


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_socket_is_never_removed(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "socket"
    make(path)
    before = os.lstat(path).st_ino
    assert step_error(lambda: open_descriptor(spec("stream", path))) == ("bind stream", str(path), errno.EEXIST)
    assert os.lstat(path).st_ino == before


@needs_root
def test_a_link_of_a_user_leads_to_no_stale_socket(world: Path) -> None:
    world.chmod(0o755)
    app, other = world / "app", world / "other"
    app.mkdir()
    other.mkdir()
    os.chown(app, 65534, 65534)
    leave_stale("stream", other / "socket")
    (app / "run").symlink_to(other)
    path = app / "run" / "socket"
    before = open_numbers()
    for name in ("socket", "new"):
        path = app / "run" / name
        assert step_error(lambda path=path: open_descriptor(spec("stream", path))) == (  # type: ignore[misc]
            "bind stream",
            str(path),
            errno.ELOOP,
        )
    assert open_numbers() == before
    assert [entry.name for entry in other.iterdir()] == ["socket"]


def test_links_of_root_on_the_way_to_a_socket(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var").symlink_to("run")
    path = tmp_path / "var" / "socket"
    leave_stale("stream", path)
    opened = open_descriptor(spec("stream", path))
    with socket.socket(fileno=os.dup(opened.fd)) as sock:
        assert sock.getsockname() == str(path)
    close_descriptor(opened, PatientCloser())
    assert not path.exists()


def test_a_missing_folder(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "socket"
    assert step_error(lambda: open_descriptor(spec("stream", path))) == ("bind stream", str(path), errno.ENOENT)


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    path = str(tmp_path / ("x" * 108))
    assert step_error(lambda: open_descriptor(spec("dgram", path))) == ("bind dgram", path, errno.ENAMETOOLONG)


def test_one_that_cannot_be_given_away_does_not_stay(world: Path) -> None:
    path = world / "socket"

    def as_nobody() -> tuple[tuple[str, str, int], bool]:
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        before = open_numbers()
        error = step_error(lambda: open_descriptor(spec("stream", path, owner=0)))
        return error, open_numbers() == before

    assert in_child(as_nobody) == (("change owner", str(path), errno.EPERM), True)
    assert not path.exists()


def test_another_file_in_its_place_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    opened = open_descriptor(spec("stream", path))
    path.unlink()
    leave_stale("stream", path)
    close_descriptor(opened, PatientCloser())
    assert path.exists()


def test_a_file_that_is_gone_is_no_error(tmp_path: Path) -> None:
    opened = open_descriptor(spec("stream", tmp_path / "socket"))
    (tmp_path / "socket").unlink()
    close_descriptor(opened, PatientCloser())


@pytest.mark.parametrize("kind", KINDS)
def test_connected(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "socket"
    server = open_descriptor(spec(kind, path))
    client = open_descriptor(spec(kind, path, connect=True))
    assert isinstance(client, Opened)
    assert client.inode is None
    assert os.get_blocking(client.fd)
    os.write(client.fd, b"hello")
    with socket.socket(fileno=os.dup(server.fd)) as sock:
        sock.settimeout(5)
        if kind == "dgram":
            assert sock.recv(10) == b"hello"
        else:
            with sock.accept()[0] as connection:
                assert connection.recv(10) == b"hello"
    close_descriptor(client, PatientCloser())
    assert path.exists(), "it is the server's"
    close_descriptor(server, PatientCloser())


def test_connecting_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    before = open_numbers()
    missing = spec("stream", path, connect=True)
    assert step_error(lambda: open_descriptor(missing)) == ("connect", str(path), errno.ENOENT)
    leave_stale("stream", path)
    assert step_error(lambda: open_descriptor(missing)) == ("connect", str(path), errno.ECONNREFUSED)
    assert open_numbers() == before
    assert path.exists()


def test_a_full_backlog_does_not_hold_us_up(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = open_descriptor(spec("stream", path, backlog=0))
    first = open_descriptor(spec("stream", path, connect=True))
    assert step_error(lambda: open_descriptor(spec("stream", path, connect=True))) == (
        "connect",
        str(path),
        errno.EAGAIN,
    )
    close_descriptor(first, PatientCloser())
    close_descriptor(server, PatientCloser())


@pytest.fixture
def theirs(world: Path) -> Path:
    """A folder of another user, who can mount something there."""
    world.chmod(0o755)
    folder = world / "theirs"
    folder.mkdir()
    os.chown(folder, 1234, 1234)
    return folder


@needs_root
@pytest.mark.parametrize("kind", KINDS)
def test_in_a_folder_of_a_user_it_is_the_same(theirs: Path, kind: str) -> None:
    path = theirs / "socket"
    leave_stale("dgram", path)
    umask, before = os.umask(0o022), open_numbers()
    opened = open_descriptor(spec(kind, path, mode=0o620, owner=12), is_local=lambda _fd, _name: True)
    status = path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o620, 12)
    assert opened.inode == (status.st_dev, status.st_ino)
    with socket.socket(fileno=os.dup(opened.fd)) as sock:
        assert sock.getsockname() == str(path)
    connect(kind, path).close()
    found = step_error(lambda: open_descriptor(spec(kind, path), is_local=lambda _fd, _name: True))
    assert found == (f"bind {kind}", str(path), errno.EADDRINUSE)
    assert open_numbers() - before == {opened.fd}
    close_descriptor(opened, PatientCloser())
    assert os.umask(umask) == 0o022


@needs_root
def test_a_path_that_is_too_long_in_a_folder_of_a_user(theirs: Path) -> None:
    path = theirs / ("x" * 108)
    found = step_error(lambda: open_descriptor(spec("stream", path), is_local=lambda _fd, _name: True))
    assert found == ("bind stream", str(path), errno.ENAMETOOLONG)


@pytest.mark.skipif(not fuse.is_possible(), reason="needs FUSE")
def test_a_user_who_exchanges_a_folder_of_the_path_keeps_nobody_waiting(theirs: Path) -> None:
    """The exchange comes between the look at the path and the bind, which the file system then does not answer."""
    with fuse.unanswering(fuse.MKNOD) as path:

        def exchange(fd: int, _name: str) -> bool:
            if os.readlink(f"/proc/self/fd/{fd}") == str(theirs) and not theirs.is_symlink():
                theirs.rename(theirs.parent / "before")
                theirs.symlink_to(os.path.dirname(path))
            return True

        def bind() -> None:
            with pytest.raises(ServedFileError):
                open_descriptor(spec("stream", theirs / "socket"), is_local=exchange)

        pid = os.fork()
        if pid == 0:
            status = 1
            with suppress(BaseException):
                bind()
                status = 0
            os._exit(status)
        pidfd = os.pidfd_open(pid)
        is_in_time = bool(select.select([pidfd], [], [], HELD_UP)[0])
        os.close(pidfd)
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert is_in_time
    assert status == 0
