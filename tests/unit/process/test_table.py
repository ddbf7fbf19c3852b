"""The descriptor table of a service, with real sockets and files."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.definitions.service import NULL_IN, Descriptor, Service
from supervisor.errors import ServedFileError, StepError
from supervisor.notify.untrusted import is_open
from supervisor.process.files import Rights
from supervisor.process.fork import fork
from supervisor.process.held_descriptors import (
    Opened,
    Table,
    claim,
    close_all,
    open_descriptor,
    open_elsewhere,
    open_local,
    wanted,
)
from supervisor.process.paths import Sight
from supervisor.process.run import Run
from tests.unit.closing import PatientCloser
from tests.unit.process.forked import open_numbers


class Host:
    """Names for files and sockets of one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, name: str, access: str = "a+") -> Descriptor:
        return Descriptor("file", name=name, path=str(self.folder / name), access=access)

    def stream(self, name: str) -> Descriptor:
        return Descriptor("stream", name=name, path=str(self.folder / name))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def table() -> Iterator[Table]:
    before = open_numbers()
    closer = PatientCloser()
    closer.file_systems.have(0)  # it keeps the table of mounts open
    table = Table(closer)
    yield table
    table.close()
    closer.file_systems.close()
    assert len(table) == 0
    assert open_numbers() == before


def service(*fd: Descriptor, **keys: Descriptor) -> Service:
    return Service("a", exec="/bin/a", fd=fd, **keys)  # type: ignore[arg-type]


def slots(table: Table) -> dict[int, int]:
    return {slot: opened.fd for slot, opened in table}


def test_wanted_are_the_slots_that_are_spawnd_s_to_hold(host: Host) -> None:
    null = Descriptor("file", path="/dev/null", access="w")
    spec = service(host.stream("s"), null, host.file("f"), stdin=host.file("in"), stdout=Descriptor("log"))
    assert wanted(spec) == {0: host.file("in"), 3: host.stream("s"), 5: host.file("f")}
    assert wanted(service()) == {}


def test_what_is_missing_is_opened_and_what_is_open_stays(table: Table, host: Host) -> None:
    table.open_missing(service(host.stream("s")))
    before = slots(table)
    table.open_missing(service(host.stream("s"), host.file("f")))
    assert table.fd(3) == before[3]
    assert slots(table).keys() == {3, 4}
    assert len(table) == 2
    with pytest.raises(KeyError):
        table.fd(5)


def test_all_or_nothing(table: Table, host: Host) -> None:
    table.open_missing(service(host.file("kept")))
    before = open_numbers()
    missing = Descriptor("file", path=str(host.folder / "no" / "such"), access="r")
    with pytest.raises(StepError, match="No such file"):
        table.open_missing(service(host.file("kept"), host.stream("s"), missing))
    assert open_numbers() == before
    assert slots(table).keys() == {3}
    assert not (host.folder / "s").exists(), "a socket file of nobody"


def test_close_closes_and_removes_the_sockets_files(table: Table, host: Host) -> None:
    table.open_missing(service(host.stream("s"), host.file("f")))
    table.close()
    assert sorted(path.name for path in host.folder.iterdir()) == ["f"]
    table.close()


def test_a_start_reads_files_from_their_beginning_again(table: Table, host: Host) -> None:
    (host.folder / "f").write_text("quotes")
    table.open_missing(service(host.file("f", "r"), host.stream("s"), stdin=host.file("f", "r")))
    assert set(table.rewound()) == {3, 0}


def test_other_definitions_keep_what_both_want(table: Table, host: Host) -> None:
    old = service(host.stream("s"), host.stream("t"), host.file("f"))
    table.open_missing(old)
    before = slots(table)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(host.folder / "s"))
        table.adopt(service(host.file("f"), host.stream("s"), stdin=NULL_IN), {})
        assert slots(table) == {3: before[5], 4: before[3]}, "moved to other numbers"
        with socket.socket(fileno=os.dup(before[3])) as listener:
            listener.settimeout(5)
            listener.accept()[0].close()
    assert not (host.folder / "t").exists()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(before[4])


def test_other_definitions_take_over_what_was_opened_for_them(table: Table, host: Host) -> None:
    old = service(host.stream("s"))
    table.open_missing(old)
    before = slots(table)
    new = service(host.stream("s"), host.stream("t"))
    ready = {4: open_descriptor(host.stream("t"))}
    table.adopt(new, ready)
    assert slots(table) == {3: before[3], 4: ready[4].fd}
    table.open_missing(new)
    assert len(table) == 2


def test_what_was_opened_anew_takes_the_place_of_the_old(table: Table, host: Host) -> None:
    """One socket with other options: the old one goes, the file of the new one stays."""
    old, new = host.stream("s"), replace(host.stream("s"), backlog=7)
    table.open_missing(service(old))
    os.rename(host.folder / "s", host.folder / "aside")
    fresh = open_descriptor(new)
    table.adopt(service(new), {3: fresh})
    assert slots(table) == {3: fresh.fd}
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(host.folder / "s"))


def test_one_descriptor_wanted_twice_is_not_shared(table: Table, host: Host) -> None:
    table.open_missing(service(host.file("f")))
    (before,) = slots(table).values()
    both = service(host.file("f"), host.file("f"))
    table.adopt(both, {})
    assert slots(table) == {3: before}
    table.open_missing(both)
    assert len(set(slots(table).values())) == 2


def test_a_definition_without_descriptors_closes_all(table: Table, host: Host) -> None:
    before = open_numbers()
    table.open_missing(service(host.stream("s"), stdin=host.file("f"), stderr=host.file("e")))
    table.adopt(service(), {})
    assert open_numbers() == before
    assert len(table) == 0


@contextlib.contextmanager
def waiting(path: Path, number: int) -> Iterator[None]:
    """Clients that wait to be accepted."""
    with contextlib.ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
        yield


def test_clients_are_counted_that_go_with_a_socket_that_another_one_replaces(table: Table, host: Host) -> None:
    spec = service(host.stream("s"))
    table.open_missing(spec)
    assert not table.is_awaited
    with waiting(host.folder / "s", 2):
        assert table.is_awaited
        (host.folder / "s").unlink()
        who = f"2 clients of stream {host.folder}/s"
        assert table.adopt(spec, {3: open_descriptor(host.stream("s"))}) == [who]
    with waiting(host.folder / "s", 1):
        (host.folder / "s").unlink()
        (renewal,) = table.renew({3: Sight.DELETED}, None)
        assert (renewal.is_new, renewal.disconnected) == (True, [f"1 client of stream {host.folder}/s"])
    with waiting(host.folder / "s", 1):
        assert table.adopt(service(), {}) == [], "the definition has no such socket any more"


def test_nobody_waits_on_a_socket_without_a_path(table: Table) -> None:
    """An abstract socket leads nowhere else, and neither does one of the internet in a namespace that is there."""
    name = f"spawnd-test-{os.getpid()}"
    table.open_missing(service(Descriptor("stream", path=f"@{name}")))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"\0{name}")
        assert not table.is_awaited


def test_what_is_given_away_is_no_more_the_table_s(table: Table, host: Host) -> None:
    table.open_missing(service(host.stream("s"), host.file("f")))
    fd = table.fd(3)
    given = table.give(3)
    table.close()
    assert given.fd == fd
    os.fstat(fd)
    assert (host.folder / "s").exists()
    opened, closer = {3: given}, PatientCloser()
    close_all(opened, closer)
    closer.file_systems.close()
    assert opened == {}


def test_claiming_takes_what_is_wanted_out_of_the_pool(host: Host) -> None:
    pool = open_local({3: host.file("f"), 4: host.file("g"), 5: host.file("g")}, PatientCloser())
    fds = {slot: opened.fd for slot, opened in pool.items()}
    wanted = {0: host.file("h"), 3: host.file("g"), 4: host.file("f"), 5: host.file("g")}
    claimed = claim(wanted, {5}, pool)
    try:
        assert {slot: opened.fd for slot, opened in claimed.items()} == {3: fds[4], 4: fds[3]}
        assert {slot: opened.fd for slot, opened in pool.items()} == {5: fds[5]}
    finally:
        close_all(claimed, PatientCloser())
        close_all(pool, PatientCloser())


def test_the_table_s_entries_are_plain_data(table: Table, host: Host) -> None:
    table.open_missing(service(host.stream("s")))
    ((slot, opened),) = table
    assert slot == 3
    assert isinstance(opened, Opened)
    assert opened.spec == host.stream("s")
    assert opened.inode == (os.stat(opened.spec.path).st_dev, os.stat(opened.spec.path).st_ino)


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_the_port_that_the_kernel_has_chosen(table: Table, kind: str) -> None:
    spec = Descriptor(kind, name="any", host="127.0.0.1", port=0)  # type: ignore[arg-type]
    service = Service("s", fd=(spec,))
    assert table.as_bound(3, spec) == spec
    table.open_missing(service)
    with socket.socket(fileno=os.dup(table.fd(3))) as sock:
        assert table.as_bound(3, spec) == replace(spec, port=sock.getsockname()[1])
    assert table.as_bound(3, replace(spec, port=1)).port == 1


TYPES = {"stream": socket.SOCK_STREAM, "dgram": socket.SOCK_DGRAM, "seqpacket": socket.SOCK_SEQPACKET}


def serve(kind: str, path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, TYPES[kind])
    server.bind(str(path))
    if kind != "dgram":
        server.listen()
    return server


@pytest.mark.parametrize("accepts", [True, False])
@pytest.mark.parametrize("kind", TYPES)
def test_a_socket_whose_server_is_gone_is_connected_anew(
    tmp_path: Path, table: Table, kind: str, accepts: bool
) -> None:
    path = tmp_path / "server"
    client = service(Descriptor(kind, path=str(path), connect=True))  # type: ignore[arg-type]
    first = serve(kind, path)
    table.open_missing(client)
    peer = first.accept()[0] if accepts and kind != "dgram" else None
    before = slots(table)
    with serve(kind, path):  # one that is replaced serves those that it has
        table.close_disconnected()
        assert slots(table) == before
    for sock in (first, peer):
        if sock is not None:
            sock.close()
    table.close_disconnected()
    assert slots(table) == {}
    with pytest.raises(StepError, match="cannot connect"):
        table.open_missing(client)
    with serve(kind, path) as second:
        table.open_missing(client)
        os.write(table.fd(3), b"x")
        heard = second if kind == "dgram" else second.accept()[0]
        assert heard.recv(10) == b"x"
        heard.close()


def test_sockets_that_are_bound_are_left_alone(host: Host, table: Table) -> None:
    table.open_missing(service(host.stream("one"), host.file("two"), Descriptor("dgram", path=f"{host.folder}/three")))
    before = slots(table)
    table.close_disconnected()
    assert slots(table) == before


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> PatientCloser:
    """A closer for whom no file is local."""
    closer = PatientCloser()
    monkeypatch.setattr(closer.file_systems, "have", lambda _fd, _name="": False)
    return closer


def test_files_of_a_server_are_left_to_a_start(host: Host, far: PatientCloser) -> None:
    table = Table(far)
    wanting = service(host.file("f"), host.stream("s"), Descriptor("stream", path=f"@{host.folder}"))
    table.open_local(wanting)
    assert [slot for slot, _opened in table] == [5]
    with pytest.raises(ServedFileError):
        table.open_missing(wanting)
    assert list(table.missing(wanting)) == [3, 4]
    assert os.listdir(host.folder) == []
    table.close()


def test_a_replaced_file_of_a_server_is_closed_for_the_next_start(host: Host, far: PatientCloser) -> None:
    table = Table(far)
    table.take_back(3, open_descriptor(host.file("f")))
    (renewal,) = table.renew({3: Sight.REPLACED}, None)
    assert renewal.is_new
    assert "the next start opens it anew" in renewal.sentence
    assert len(table) == 0


def test_what_a_child_has_opened(host: Host) -> None:
    """Descriptors without a place are closed: the definition may have changed meanwhile."""
    table, wanting = Table(PatientCloser()), service(host.file("f"), host.file("g"))
    specs = {3: host.file("f"), 9: host.file("g")}
    rights = Rights(os.geteuid(), os.getegid())
    ours, theirs = socket.socketpair()
    pid = fork(lambda: open_elsewhere(specs, rights, theirs.fileno()))
    theirs.close()
    ours.send(b"\n")
    os.waitpid(pid, 0)
    ours.setblocking(False)
    run = Run(pid, error_fd=ours.detach(), files=[])
    assert run.read_errors()
    assert run.files is not None
    assert len(run.files) == 2
    failure = run.setup_error()
    table.take_over(failure, wanting, run.files)
    ((slot, opened),) = table
    assert (slot, opened.spec, opened.fd) == (3, host.file("f"), run.files[0])
    assert opened.inode == (os.fstat(opened.fd).st_dev, os.fstat(opened.fd).st_ino)
    assert not is_open(run.files[1])
    table.close()
    run.close()
