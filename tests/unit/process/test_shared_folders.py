"""Files that any user can have put into a folder such as /tmp before root opens them there for a service."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from supervisor.definitions.service import Descriptor
from supervisor.errors import StepError
from supervisor.linux.place import Place
from supervisor.process import sockets
from supervisor.process.files import Rights
from supervisor.process.held_descriptors import close_descriptor, open_descriptor
from supervisor.process.rotation import begin_anew
from tests.unit.closing import PatientCloser
from tests.unit.process.forked import in_child, open_numbers
from tests.unit.process.launched import service, shell, start
from tests.unit.process.requirements import needs_root

pytestmark = needs_root

APP = Rights(1234, 1235)
STRANGER, FOLDER_OWNER, GIVEN = 1300, 1301, 1302
MODES = ("r", "r+", "w", "w+", "a", "a+")


@pytest.fixture
def shared(world: Path) -> Path:
    """A folder as /tmp is, but with an owner of its own."""
    folder = world / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    os.chown(folder, FOLDER_OWNER, FOLDER_OWNER)
    world.chmod(0o755)
    return folder


def put(path: Path, owner: int, make: Callable[[Path], object] = Path.touch) -> Path:
    make(path)
    os.lchown(path, owner, owner)
    return path


def put_folder(path: Path, owner: int) -> Path:
    put(path, owner, Path.mkdir)
    path.chmod(0o777)
    return path


def opens(path: Path, access: str, rights: Rights | None = APP, owner: int | None = None) -> None:
    spec = Descriptor("file", path=str(path), access=access, owner=owner)
    close_descriptor(open_descriptor(spec, rights), PatientCloser())


def refused(work: Callable[[], object], path: Path, owner: int = STRANGER) -> bool:
    """Whether it fails, says whose the file is and what to do, and leaves no descriptor open."""
    before = open_numbers()
    with pytest.raises(StepError) as caught:
        work()
    assert open_numbers() == before
    assert f"'{path}' belongs to uid {owner}, who can have put it there: remove it, or choose" in str(caught.value)
    return caught.value.errno == errno.EACCES


@pytest.mark.parametrize("access", MODES)
@pytest.mark.parametrize("make", [Path.touch, os.mkfifo])
def test_a_file_of_a_stranger_is_not_opened(shared: Path, access: str, make: Callable[[Path], object]) -> None:
    path = put(shared / "log", STRANGER, make)
    for rights in (APP, Rights(0, 0), None):
        assert refused(lambda rights=rights: opens(path, access, rights), path)  # type: ignore[misc]


def test_what_was_in_it_is_still_there(shared: Path) -> None:
    path = put(shared / "log", STRANGER, lambda path: path.write_text("kept"))
    assert refused(lambda: opens(path, "w"), path)
    assert path.read_text() == "kept"


@pytest.mark.parametrize("owner", [0, FOLDER_OWNER, APP.uid])
@pytest.mark.parametrize("access", MODES)
def test_files_of_others_are(shared: Path, owner: int, access: str) -> None:
    opens(put(shared / "log", owner), access)


def test_a_file_that_was_given_away_is_opened_again(shared: Path) -> None:
    path = shared / "log"
    opens(path, "a", owner=GIVEN)
    opens(path, "a", owner=GIVEN)
    assert refused(lambda: opens(path, "a"), path, GIVEN)


@pytest.mark.parametrize(
    ("mode", "is_shared"), [(0o777, True), (0o1775, True), (0o757, True), (0o775, False), (0o755, False)]
)
def test_which_folders_are_meant(shared: Path, mode: int, is_shared: bool) -> None:
    path = put(shared / "log", STRANGER)
    shared.chmod(mode)
    if is_shared:
        assert refused(lambda: opens(path, "a"), path)
    else:
        opens(path, "a")


@pytest.mark.parametrize("access", MODES)
def test_nor_are_files_in_a_folder_of_a_stranger(shared: Path, access: str) -> None:
    folder = put_folder(shared / "svc", STRANGER)
    put(folder / "log", 0)
    assert refused(lambda: opens(folder / "log", access), folder)
    assert refused(lambda: opens(folder / "new", access), folder)
    assert not (folder / "new").exists()


def test_the_way_up_from_a_shared_folder(shared: Path) -> None:
    os.chown(shared.parent, STRANGER, STRANGER)
    put(shared / "log", 0)
    opens(shared / ".." / shared.name / "." / "log", "a")


@pytest.mark.parametrize("access", ["r", "w"])
def test_a_link_of_a_stranger(shared: Path, access: str) -> None:
    target = put(shared.parent / "target", APP.uid)
    last = put(shared / "last", STRANGER, lambda path: path.symlink_to(target))
    way = put(shared / "way", STRANGER, lambda path: path.symlink_to(shared.parent))
    for rights in (APP, Rights(0, 0)):
        assert refused(lambda rights=rights: opens(last, access, rights), last)  # type: ignore[misc]
        assert refused(lambda rights=rights: opens(way / "target", access, rights), way)  # type: ignore[misc]


def test_an_environment_file(shared: Path) -> None:
    path = put(shared / "env", STRANGER, lambda path: path.write_text("LD_PRELOAD=/tmp/mine.so"))
    user = service(uid=APP.uid, gid=APP.gid, env_file=(str(path),))
    outcome = start(user, ("/bin/true",))
    assert outcome.failed_step == ("read", str(path), errno.EACCES)
    assert f"{str(path)!r} belongs to uid {STRANGER}" in str(outcome.failure)


@pytest.fixture
def server(shared: Path) -> Iterator[Path]:
    path = shared / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o666)
        os.chown(path, STRANGER, STRANGER)
        yield path


def test_nobody_is_connected_to_a_stranger(server: Path) -> None:
    spec = Descriptor("stream", path=str(server), connect=True)
    for rights in (APP, Rights(0, 0)):
        assert refused(lambda rights=rights: open_descriptor(spec, rights), server)  # type: ignore[misc]
    os.chown(server, APP.uid, APP.gid)
    close_descriptor(open_descriptor(spec, APP), PatientCloser())


def test_whose_socket_is_in_the_way_is_said(server: Path) -> None:
    whose = f"; it belongs to uid {STRANGER}, who can have put it there"
    spec = Descriptor("stream", path=str(server))
    with pytest.raises(StepError, match=f"Address already in use{whose}"):
        open_descriptor(spec, APP)
    server.unlink()
    put(server, STRANGER)
    with pytest.raises(StepError, match=f"the path exists and is not a socket{whose}") as refusal:
        open_descriptor(spec, APP)
    assert refusal.value.errno == errno.EEXIST  # no process to be found has the address


def test_a_stale_socket_is_replaced_whoever_made_it(shared: Path) -> None:
    path = shared / "socket"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    os.chown(path, STRANGER, STRANGER)
    close_descriptor(open_descriptor(Descriptor("stream", path=str(path)), APP), PatientCloser())


def test_no_socket_is_bound_in_a_folder_of_a_stranger(shared: Path) -> None:
    folder = put_folder(shared / "run", STRANGER)
    spec = Descriptor("stream", path=f"{folder}/socket")
    assert refused(lambda: open_descriptor(spec, APP), folder)
    assert not (folder / "socket").exists()


@pytest.mark.parametrize("hard", [True, False])
def test_a_file_that_takes_the_place_of_the_bound_one_keeps_its_mode(
    shared: Path, monkeypatch: pytest.MonkeyPatch, hard: bool
) -> None:
    path, secret = shared / "socket", shared.parent / "secret"
    secret.touch(0o600)
    original = sockets._status

    def exchange(place: Place) -> os.stat_result:
        path.unlink()
        if hard:
            path.hardlink_to(secret)
        else:
            secret.rename(path)
        return original(place)

    monkeypatch.setattr(sockets, "_status", exchange)
    with pytest.raises(StepError, match="the socket file was replaced"):
        open_descriptor(Descriptor("stream", path=str(path)), APP)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_service_begins_in_a_folder_of_a_stranger(shared: Path) -> None:
    folder = put_folder(shared / "work", STRANGER)
    for user in (APP, Rights(0, 0)):
        outcome = start(service(uid=user.uid, gid=user.gid, cwd=str(folder)), ("/bin/true",), rights=user)
        assert outcome.failed_step == ("change directory", str(folder), errno.EACCES)
        outcome = start(service(uid=user.uid, gid=user.gid, chroot=str(folder)), ("/bin/true",), rights=user)
        assert outcome.failed_step == ("chroot", str(folder), errno.EACCES)
    os.chown(folder, APP.uid, APP.gid)
    assert shell(service(uid=APP.uid, gid=APP.gid, cwd=str(folder)), "pwd") == f"{folder}\n"


def test_a_new_log_of_a_stranger_is_no_new_log(shared: Path) -> None:
    path = put(shared / "log", APP.uid)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    path.rename(shared / "log.1")
    put(path, STRANGER)
    assert refused(lambda: begin_anew(fd, str(path), nullcontext), path)
    assert os.fstat(fd).st_uid == APP.uid
    os.close(fd)


def test_an_ordinary_user_takes_nothing_of_strangers_either(shared: Path) -> None:
    path = put(shared / "log", STRANGER)
    path.chmod(0o666)

    def as_user() -> bool:
        os.setresuid(APP.uid, APP.uid, APP.uid)
        return refused(lambda: opens(path, "a"), path)

    assert in_child(as_user)
