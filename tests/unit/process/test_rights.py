"""Root's rights end at a link that a user can have set; beyond it count those of the service's user."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.definitions.service import Descriptor
from supervisor.errors import ServedFileError
from supervisor.linux.capabilities import capget
from supervisor.linux.credentials import is_dumpable, set_dumpable
from supervisor.linux.namespaces import CLONE_NEWNS, MS_REC, MS_SLAVE, mount, unshare
from supervisor.notify.untrusted import LocalFileSystems
from supervisor.process.files import Rights, inode_of, open_as
from supervisor.process.held_descriptors import close_descriptor, open_descriptor
from tests.unit.closing import PatientCloser
from tests.unit.process.forked import in_child, open_numbers, step_error
from tests.unit.process.launched import Outcome, service, shell, start, told
from tests.unit.process.requirements import needs_root

pytestmark = needs_root

APP = Rights(1234, 1235, (1236,))
ROOT = Rights(0, 0)


@pytest.fixture
def app(world: Path) -> Path:
    """A folder of the user 1234 beside files of root's and a folder that only root can enter."""
    world.chmod(0o755)
    folder = world / "app"
    folder.mkdir()
    os.chown(folder, APP.uid, APP.gid)
    for name, mode in (("secret", 0o600), ("public", 0o644), ("of_group", 0o640)):
        (world / name).write_text(f"NAME={name}\n")
        (world / name).chmod(mode)
    os.chown(world / "of_group", 0, 1236)
    (world / "closed" / "app").mkdir(parents=True)
    (world / "closed").chmod(0o700)
    os.chown(world / "closed" / "app", APP.uid, APP.gid)
    return folder


def link(path: Path, target: str | Path) -> Path:
    path.symlink_to(target)
    os.lchown(path, APP.uid, APP.gid)
    return path


def read(path: Path, rights: Rights | None = APP) -> bytes:
    fd = open_as(str(path), os.O_RDONLY, rights)
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


def error_of(function: Callable[[], object]) -> int | None:
    try:
        function()
    except OSError as error:
        return error.errno
    return None


def test_beyond_a_link_the_rights_of_the_user_count(app: Path) -> None:
    def look() -> list[object]:
        before = open_numbers(), os.getgroups(), capget(), is_dumpable()
        found: list[object] = [
            read(link(app / "public", "../public")),
            read(link(app / "group", "../of_group")),
            error_of(lambda: read(link(app / "secret", "../secret"))),
            error_of(lambda: read(link(app / "up", "..") / "secret")),
            read(app.parent / "secret"),
        ]
        after = open_numbers(), os.getgroups(), capget(), is_dumpable()
        return [*found, before == after, len(os.listdir("/proc/self/task"))]

    wanted = [b"NAME=public\n", b"NAME=of_group\n", errno.EACCES, errno.EACCES, b"NAME=secret\n", True, 1]
    assert in_child(look) == wanted


def test_before_the_link_they_are_root_s(app: Path) -> None:
    inner = app.parent / "closed" / "app"
    (inner / "1").mkdir()
    (inner / "1" / "env").write_bytes(b"x")
    os.chown(inner / "1", APP.uid, APP.gid)
    link(inner / "current", "1")
    assert read(inner / "current" / "env") == b"x"
    link(inner / "away", "../../secret")
    assert error_of(lambda: read(inner / "away")) == errno.EACCES


def test_a_hard_link_is_read_with_the_rights_of_the_user(app: Path) -> None:
    os.link(app.parent / "secret", app / "hard")
    os.link(app.parent / "public", app / "open")
    assert error_of(lambda: read(app / "hard")) == errno.EACCES
    assert read(app / "open") == b"NAME=public\n"


def test_without_rights_the_link_is_an_error(app: Path) -> None:
    assert error_of(lambda: read(link(app / "public", "../public"), None)) == errno.ELOOP


def test_root_s_own_services_follow_every_link(app: Path) -> None:
    assert read(link(app / "secret", "../secret"), ROOT) == b"NAME=secret\n"


@pytest.mark.parametrize(
    "target", ["/proc/self/maps", "/proc/1/maps", "/proc/self/fd/0", "/proc/self/cwd", "/dev/fd/0"]
)
def test_nothing_of_proc_is_shown(app: Path, target: str) -> None:
    assert error_of(lambda: read(link(app / "proc", target))) in (errno.EACCES, errno.ELOOP)


def test_nor_of_proc_that_is_mounted_elsewhere(app: Path) -> None:
    second = app.parent / "proc"
    second.mkdir()
    (app.parent / "gone").write_text("gone")

    def look() -> list[object]:
        unshare(CLONE_NEWNS)
        mount("none", "/", flags=MS_SLAVE | MS_REC)
        mount("proc", str(second), "proc")
        link(app / "maps", second / "self" / "maps")
        maps = os.open(second / "self" / "maps", os.O_RDONLY)
        return [error_of(lambda: read(app / "maps")), root_s_own_link(), inode_of(maps)]

    def root_s_own_link() -> bytes:
        fd = os.open(app.parent / "gone", os.O_RDONLY)
        (app.parent / "gone").unlink()
        return read(second / "self" / "fd" / str(fd))

    assert in_child(look) == [errno.EACCES, b"gone", None]


def test_a_fifo_behind_a_link_waits_for_nobody(app: Path) -> None:
    os.mkfifo(app / "fifo")
    os.chown(app / "fifo", APP.uid, APP.gid)
    link(app / "in", "fifo")
    fd = open_as(str(app / "in"), os.O_RDONLY, APP)
    os.write(fd, b"both ways")
    assert os.read(fd, 20) == b"both ways"
    os.close(fd)


def test_a_descriptor_of_a_table(app: Path) -> None:
    for name in ("public", "secret"):
        link(app / name, f"../{name}")
    opened = open_descriptor(Descriptor("file", path=f"{app}/public", access="r"), APP)
    assert os.read(opened.fd, 20) == b"NAME=public\n"
    close_descriptor(opened, PatientCloser())
    spec = Descriptor("file", path=f"{app}/secret", access="r")
    assert step_error(lambda: open_descriptor(spec, APP)) == ("open", f"{app}/secret", errno.EACCES)


def test_a_worker_of_root_is_as_it_was_beyond_a_link(app: Path) -> None:
    """It keeps groups and capabilities, and stays dumpable: a successor of spawnd gets its descriptors."""
    link(app / "current", "../public")
    link(app / "here", app)

    def look() -> list[object]:
        return [os.getgroups(), capget().hex(), is_dumpable(), os.getresuid(), os.getcwd(), os.environ["NAME"]]

    set_dumpable(True)
    wanted = [[1, 2], capget().hex(), True, [0, 0, 0], str(app), "public"]
    root = service(uid=0, gid=0, gids=(1, 2), cwd=f"{app}/here", env_file=(f"{app}/current",))
    assert told(root, look, rights=APP) == wanted
    link(app / "stolen", "../secret")
    outcome = start(service(uid=0, gid=0, env_file=(f"{app}/stolen",)), (), load=lambda: lambda: 0, rights=APP)
    assert outcome.failed_step == ("read", f"{app}/stolen", errno.EACCES)


def user(**changes: object) -> dict[str, object]:
    return {"uid": APP.uid, "gid": APP.gid, "gids": APP.gids, **changes}


def test_a_start_reads_its_environment_beyond_a_link(app: Path) -> None:
    link(app / "current", "../public")
    found = shell(service(**user(env_file=(f"{app}/current",))), "echo $NAME")
    assert found == "public\n"
    link(app / "stolen", "../secret")
    outcome = start(service(**user(env_file=(f"{app}/stolen",))), ("/bin/true",))
    assert outcome.failed_step == ("read", f"{app}/stolen", errno.EACCES)


def test_the_folder_of_a_service_is_entered_as_its_user(app: Path) -> None:
    link(app / "current", app)
    assert shell(service(**user(cwd=f"{app}/current")), "pwd -P") == f"{app}\n"
    link(app / "closed", "../closed")
    outcome = start(service(**user(cwd=f"{app}/closed")), ("/bin/true",))
    assert outcome.failed_step == ("change directory", f"{app}/closed", errno.EACCES)
    assert forbidden_folder(outcome) == f"{app.parent}/closed"
    outcome = start(service(**user(cwd=f"{app.parent}/closed")), ("/bin/true",))
    assert outcome.failed_step == ("change directory", f"{app.parent}/closed", errno.EACCES)
    assert forbidden_folder(outcome) == f"{app.parent}/closed"


def forbidden_folder(outcome: Outcome) -> str:
    assert outcome.failure is not None
    begin = "Permission denied: its user may not search "
    assert outcome.failure.cause.startswith(begin)
    return outcome.failure.cause.removeprefix(begin).strip("'")


def test_the_directory_is_named_that_forbids_the_way_to_another(app: Path) -> None:
    closed = app.parent / "closed"
    (closed / "outer" / "inner").mkdir(parents=True)
    link(app / "current", closed / "outer" / "inner")
    for cwd in (closed / "outer" / "inner", closed / "outer", app / "current", closed / ".."):
        outcome = start(service(**user(cwd=str(cwd))), ("/bin/true",))
        assert outcome.failed_step == ("change directory", str(cwd), errno.EACCES)
        assert forbidden_folder(outcome) == str(closed)


def test_a_function_of_root_goes_where_the_user_of_its_service_could(app: Path) -> None:
    link(app / "closed", "../closed")
    link(app / "current", app)
    assert shell(service(uid=0, gid=0, cwd=f"{app}/current"), "pwd -P; id -u", rights=APP) == f"{app}\n0\n"
    outcome = start(service(uid=0, gid=0, cwd=f"{app}/closed"), ("/bin/true",), rights=APP)
    assert outcome.failed_step == ("change directory", f"{app}/closed", errno.EACCES)


def test_a_new_root_beyond_a_link_is_entered_as_the_user(app: Path) -> None:
    link(app / "root", "../closed")
    outcome = start(service(**user(chroot=f"{app}/root")), ("/bin/true",))
    assert outcome.failed_step == ("chroot", f"{app}/root", errno.EACCES)
    link(app / "slash", "/")
    assert shell(service(**user(chroot=f"{app}/slash")), "id -u") == f"{APP.uid}\n"


@pytest.fixture
def server(app: Path) -> socket.socket:
    """A socket that anybody may connect to, and that tells by the peer's user who that is."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{app.parent}/server")
    (app.parent / "server").chmod(0o666)
    listener.listen()
    return listener


def test_nobody_is_connected_as_root_behind_a_link_of_a_user(app: Path, server: socket.socket) -> None:
    link(app / "server", "../server")
    spec = Descriptor("stream", path=f"{app}/server", connect=True)
    with server:
        for rights in (APP, None):
            assert step_error(lambda rights=rights: open_descriptor(spec, rights)) == (  # type: ignore[misc]
                "connect",
                f"{app}/server",
                errno.ELOOP,
            )
        close_descriptor(open_descriptor(spec, ROOT), PatientCloser())
        client = Descriptor("stream", path=f"{app.parent}/server", connect=True)
        close_descriptor(open_descriptor(client, APP), PatientCloser())


def test_nor_behind_a_hard_link(app: Path, server: socket.socket) -> None:
    os.link(app.parent / "server", app / "server")
    spec = Descriptor("stream", path=f"{app}/server", connect=True)
    with server:
        assert step_error(lambda: open_descriptor(spec, APP)) == ("connect", f"{app}/server", errno.EPERM)


def test_each_step_beyond_a_link_of_a_user_is_looked_at_before_it_is_made(app: Path) -> None:
    link(app / "in", "../public")
    link(app / "there", "in")
    asked: list[str] = []

    def is_local(_fd: int, name: str) -> bool:
        asked.append(name)
        return name != "refused"

    os.close(open_as(str(app / "there"), os.O_RDONLY, APP, is_local=is_local))
    assert list(dict.fromkeys(name for name in asked if name in ("in", "..", "public"))) == ["in", "..", "public"]
    with pytest.raises(ServedFileError):
        open_as(str(link(app / "away", "refused/file")), os.O_RDONLY, APP, is_local=is_local)


def test_a_local_mount_behind_a_link_of_a_user(app: Path) -> None:
    local = LocalFileSystems()
    os.close(open_as(str(link(app / "zero", "/dev/zero")), os.O_RDONLY, APP, is_local=local.have))
    local.close()


def test_a_link_of_another_user_in_a_folder_of_all_is_not_followed_there(app: Path) -> None:
    """As the kernel's protected_symlinks has it."""
    shared = app.parent / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "public").symlink_to("../public")
    os.lchown(shared / "public", 4321, 4321)
    assert error_of(lambda: read(link(app / "in", "../shared/public"))) == errno.EACCES
