"""Rules on who may connect and when, and limits, of the acceptor; where xinetd has them, too, they have its effect."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from supervisor.launch.acceptor import Entry, Rate, User, local_offset, zone_changes
from tests.unit.launch.accepting import Acceptor, is_answered, is_let_in, networks, port_of, read_to_end, wait_until
from tests.unit.launch.xinetd import Xinetd, has_xinetd

SOURCES = ("127.0.0.1", "127.0.0.2", "127.0.1.1")
LISTS: dict[str, tuple[str | None, str]] = {
    "everybody": (None, ""),
    "an address": ("127.0.0.1", ""),
    "a network": ("127.0.0.0/24", ""),
    "several": ("127.0.0.1 127.0.1.0/24", ""),
    "nobody": ("", ""),
    "all but an address": (None, "127.0.0.2"),
    "all but a network": (None, "127.0.0.0/24"),
    "a network but an address of it": ("127.0.0.0/24", "127.0.0.2"),
    "an address of a network that has no access": ("127.0.0.2", "127.0.0.0/24"),
    "an address of a network, another one is in no list": ("127.0.0.1 127.0.0.2", "127.0.0.0/16"),
    "a small network of a large one that has no access": ("127.0.1.0/24", "127.0.0.0/8"),
    "a large network but a small one": ("127.0.0.0/8", "127.0.1.0/24"),
    "the same network in both": ("127.0.0.0/24", "127.0.0.0/24"),
    "the same address in both": ("127.0.0.2", "127.0.0.2"),
}
@pytest.fixture(scope="module")
def xinetd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Xinetd]:
    folder = tmp_path_factory.mktemp("xinetd")
    (folder / "welcome").write_text("welcome\n")
    (folder / "sorry").write_text("sorry\n")
    now = datetime.now()
    services = {name: _lists(*lists) for name, lists in LISTS.items()}
    services |= {f"{name} hours": f" access_times = {ranges}" for name, (ranges, _) in hours_around(now).items()}
    services |= {
        "instances": " instances = 2",
        "per_source": " per_source = 1",
        "cps": " cps = 3 1",
        "banners": f" banner_success = {folder}/welcome\n banner_fail = {folder}/sorry\n no_access = 127.0.0.2",
    }
    server = Xinetd(services, folder)
    yield server
    server.close()


def _lists(only_from: str | None, no_access: str) -> str:
    lines = [] if only_from is None else [f" only_from = {only_from}"]
    return "\n".join([*lines, f" no_access = {no_access}"] if no_access else lines)


def hours_around(now: datetime) -> dict[str, tuple[str, tuple[tuple[int, int], ...]]]:
    """Return hours that hold now, and hours that do not, for xinetd and for us."""
    other = (now.hour + 3) % 24
    days = range(7)
    return {
        "all": ("00:00-23:59", tuple((1440 * day, 1440 * day + 1440) for day in days)),
        "other": (
            f"{other:02}:00-{other:02}:30",
            tuple((1440 * day + 60 * other, 1440 * day + 60 * other + 30) for day in days),
        ),
    }


def lists(name: str) -> dict[str, Any]:
    only_from, no_access = LISTS[name]
    return {"only_from": None if only_from is None else networks(only_from), "no_access": networks(no_access)}


# xinetd.conf(5) says that the better match decides, as here; xinetd 2.3.15 refuses whatever is in `no_access`.
AS_IN_THE_MANUAL = {
    "an address of a network that has no access": [False, True, False],
    "an address of a network, another one is in no list": [True, True, False],
    "a small network of a large one that has no access": [False, False, True],
}


@pytest.mark.parametrize("name", AS_IN_THE_MANUAL)
def test_the_better_match_decides(name: str) -> None:
    with Acceptor(("/bin/cat",), **lists(name)) as acceptor:
        assert [is_let_in(port_of(acceptor), source) for source in SOURCES] == AS_IN_THE_MANUAL[name]


@has_xinetd
@pytest.mark.parametrize("name", sorted(LISTS.keys() - AS_IN_THE_MANUAL))
def test_the_lists_let_in_those_that_xinetd_lets_in(name: str, xinetd: Xinetd) -> None:
    with Acceptor(("/bin/cat",), **lists(name)) as acceptor:
        ours = [is_let_in(port_of(acceptor), source) for source in SOURCES]
        assert ours == [is_let_in(xinetd.ports[name], source) for source in SOURCES]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("an address of a network that has no access", ["no_access", "", "only_from"]),
        ("a large network but a small one", ["", "", "no_access"]),
        ("the same address in both", ["only_from", "no_access", "only_from"]),
    ],
)
def test_a_refusal_has_its_rule(name: str, expected: list[str]) -> None:
    with Acceptor(("/bin/cat",), **lists(name)) as acceptor:
        for source, rule in zip(SOURCES, expected, strict=True):
            before = acceptor.counters().refused
            assert is_let_in(port_of(acceptor), source) == (not rule)
            after = acceptor.counters().refused
            assert {key for key in after if after[key] != before[key]} == ({rule} if rule else set())


@pytest.mark.parametrize(
    ("only_from", "is_in"),
    [
        ("::1/128", True),
        ("::/0", True),
        ("::/1", True),
        ("8000::/1", False),
        ("0.0.0.0/0", False),
        ("fe80::/10", False),
    ],
)
def test_ipv6_networks(only_from: str, is_in: bool) -> None:
    listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    with Acceptor(listener=listener, only_from=networks(only_from)) as acceptor:
        assert acceptor.ask() == (b"ok\n" if is_in else b"")


ME = User(os.getuid())
MINE = User(os.getgid(), is_group=True)
STRANGER, STRANGERS = User(54321), User(54321, is_group=True)


@pytest.mark.parametrize(
    ("only_from", "no_access", "is_in"),
    [
        (None, (), True),
        ((ME,), (), True),
        ((MINE,), (), True),
        ((STRANGER, STRANGERS), (), False),
        (None, (ME,), False),
        (None, (MINE,), False),
        ((ME,), (MINE,), True),
        ((MINE,), (ME,), False),
        ((ME,), (ME,), False),
        (networks("0.0.0.0/0 ::/0"), (), False),
    ],
)
def test_users_of_unix_sockets(
    tmp_path: Path, only_from: tuple[Entry, ...] | None, no_access: tuple[Entry, ...], is_in: bool
) -> None:
    with unix(tmp_path) as listener, Acceptor(listener=listener, only_from=only_from, no_access=no_access) as acceptor:
        assert acceptor.ask() == (b"ok\n" if is_in else b"")


def unix(folder: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
    listener.listen()
    return listener


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have other groups")
def test_supplementary_groups_count(tmp_path: Path) -> None:
    groups = os.getgroups()
    with unix(tmp_path) as listener, Acceptor(listener=listener, only_from=(STRANGERS,)) as acceptor:
        try:
            os.setgroups([1, STRANGERS.id])
            assert acceptor.ask() == b"ok\n"
        finally:
            os.setgroups(groups)


@has_xinetd
@pytest.mark.parametrize("name", ["all", "other"])
def test_hours_are_those_of_xinetd(name: str, xinetd: Xinetd) -> None:
    hours = hours_around(datetime.now())[name][1]
    with Acceptor(("/bin/cat",), hours=hours, zone=zone_changes(local_offset, int(time.time()))) as acceptor:
        assert is_let_in(port_of(acceptor)) == is_let_in(xinetd.ports[f"{name} hours"]) == (name == "all")


def minute_of_week(offset: int) -> int:
    now = datetime.now(timezone(timedelta(seconds=offset)))
    return now.weekday() * 1440 + now.hour * 60 + now.minute


@pytest.mark.parametrize("offset", [0, 3600, -12 * 3600, 14 * 3600, 20700])
def test_hours_are_of_local_time(offset: int) -> None:
    minute = minute_of_week(offset)
    now = int(time.time())
    zone = ((0, 7200), (now - 100, offset), (now + 1_000_000, 0))
    with Acceptor(hours=((minute, minute + 3),), zone=zone) as acceptor:
        assert acceptor.ask() == b"ok\n"
    with Acceptor(hours=((0, minute), (minute + 3, 10080)), zone=zone) as acceptor:
        assert acceptor.ask() == b""
        assert acceptor.counters().refused["hours"] == 1


@pytest.mark.parametrize("name", ["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Tokyo", "UTC"])
def test_changes_of_a_zone(name: str) -> None:
    zone = ZoneInfo(name)

    def offset_at(second: int) -> int:
        return int((datetime.fromtimestamp(second, zone).utcoffset() or timedelta()).total_seconds())

    now = int(datetime(2026, 7, 1, tzinfo=UTC).timestamp())
    changes = zone_changes(offset_at, now, 3)
    assert changes[0][0] == now
    for since, offset in changes:
        assert offset_at(since) == offset
    for since, _ in changes[1:]:
        assert offset_at(since - 1) != offset_at(since)
    summers = {"Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"}
    assert len(changes) == (7 if name in summers else 1)


def test_the_local_zone_is_that_of_the_host() -> None:
    for second in (0, 1_000_000_000, int(time.time()), 2_000_000_000):
        offset = datetime.fromtimestamp(second).astimezone().utcoffset()
        assert offset is not None
        assert local_offset(second) == offset.total_seconds()


def test_hours_after_the_end_of_the_week_are_at_its_beginning() -> None:
    now = int(time.time())
    sunday = 6 * 1440
    to_monday = ((now // 60 + 3 * 1440) % 10080 - 30) * -60  # the offset at which it is half past midnight on Monday
    with Acceptor(hours=((sunday + 1380, sunday + 1440 + 60),), zone=((0, to_monday),)) as acceptor:
        assert acceptor.ask() == b"ok\n"
    with Acceptor(hours=((sunday + 1380, sunday + 1440),), zone=((0, to_monday),)) as acceptor:
        assert acceptor.ask() == b""


def open_clients(port: int, sources: list[str], stack: ExitStack) -> list[bool]:
    """Connect from each source in turn and stay; return whether each is let in."""
    found = []
    for source in sources:
        client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30, (source, 0)))
        try:
            client.send(b"x")
            found.append(client.recv(1) == b"x")
        except ConnectionError:
            found.append(False)
    return found


@has_xinetd
@pytest.mark.parametrize(
    ("attribute", "options"),
    [("instances", {"max": 2, "refuses": True}), ("per_source", {"per_source": 1})],
)
def test_limits_are_those_of_xinetd(attribute: str, options: dict[str, Any], xinetd: Xinetd) -> None:
    sources = ["127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.3"]
    with Acceptor(("/bin/cat",), **options) as acceptor, ExitStack() as stack:
        ours = open_clients(port_of(acceptor), sources, stack)
        assert ours == open_clients(xinetd.ports[attribute], sources, stack)


@has_xinetd
def test_a_rate_is_that_of_xinetd(xinetd: Xinetd) -> None:
    def ask(port: int) -> list[bool]:
        return [is_let_in(port) for _ in range(6)]

    with Acceptor(("/bin/cat",), rate=Rate(60, 3), refuses=True) as acceptor:
        assert ask(port_of(acceptor)) == xinetd.within_a_second("cps", ask)


@has_xinetd
def test_banners_are_those_of_xinetd(xinetd: Xinetd, tmp_path: Path) -> None:
    (tmp_path / "welcome").write_text("welcome\n")
    (tmp_path / "sorry").write_text("sorry\n")
    with open(tmp_path / "welcome") as welcome, open(tmp_path / "sorry") as sorry:
        files = {"banner": welcome.fileno(), "refused_banner": sorry.fileno()}
        with Acceptor(("/bin/cat",), no_access=networks("127.0.0.2"), **files) as acceptor:
            for port in (port_of(acceptor), xinetd.ports["banners"]):
                with socket.create_connection(("127.0.0.1", port), 30) as client:
                    assert client.recv(100) == b"welcome\n"
                with socket.create_connection(("127.0.0.1", port), 30, ("127.0.0.2", 0)) as client:
                    client.send(b"are you there?")
                    assert read_to_end(client) == b"sorry\n"


def test_a_client_that_sends_gets_its_banner(tmp_path: Path) -> None:
    """A close with unread data would reset the connection, and the client may not see the banner."""
    (tmp_path / "sorry").write_text("sorry\n")
    with open(tmp_path / "sorry") as sorry, Acceptor(only_from=(), refused_banner=sorry.fileno()) as acceptor:
        with acceptor.connect() as client:
            client.send(bytes(1000))
            wait_until(lambda: acceptor.counters().refused["only_from"] == 1)
            assert client.recv(100) == b"sorry\n"
            assert client.recv(100) == b""  # no ECONNRESET
        clients = [acceptor.connect() for _ in range(200)]
        assert [read_to_end(client) for client in clients] == [b"sorry\n"] * 200
        for client in clients:
            client.close()


@pytest.mark.parametrize("v6_bits", [1, 64, 127, 128])
def test_sources_of_ipv6(v6_bits: int) -> None:
    listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    with Acceptor(("/bin/cat",), listener=listener, per_source=2, v6_bits=v6_bits) as acceptor:
        clients = [acceptor.connect() for _ in range(3)]
        assert [is_answered(client) for client in clients] == [True, True, False]
        for client in clients:
            client.close()


def test_networks_can_be_sources() -> None:
    with Acceptor(("/bin/cat",), per_source=1, v4_bits=24) as acceptor, ExitStack() as stack:
        assert open_clients(port_of(acceptor), list(SOURCES), stack) == [True, False, True]


def test_a_source_is_let_in_again() -> None:
    with Acceptor(("/bin/cat",), per_source=1) as acceptor:
        for _ in range(5):
            assert is_let_in(port_of(acceptor))
            wait_until(lambda: acceptor.counters().ended == acceptor.counters().accepted)


def test_a_user_is_a_source(tmp_path: Path) -> None:
    with unix(tmp_path) as listener, Acceptor(("/bin/cat",), listener=listener, per_source=1) as acceptor:
        with acceptor.connect() as client, acceptor.connect() as other:
            assert [is_answered(client), is_answered(other)] == [True, False]
        assert acceptor.counters().refused["per_source"] == 1


def test_a_rate_for_each_source() -> None:
    with Acceptor(("/bin/cat",), source_rate=Rate(60, 2)) as acceptor:
        found = [is_let_in(port_of(acceptor), source) for source in ("127.0.0.1", "127.0.0.2") for _ in range(4)]
        assert found == [True, True, False, False] * 2
        assert acceptor.counters().refused["source_rate"] == 4


def test_a_rate_lasts_over_acceptors() -> None:
    with Acceptor(("/bin/cat",), source_rate=Rate(60, 1), linger=0.01) as acceptor:
        assert is_let_in(port_of(acceptor))
        assert acceptor.wait() == 0
        acceptor.start()
        assert not is_let_in(port_of(acceptor))


def test_clients_wait_for_their_turn() -> None:
    with Acceptor(rate=Rate(0.1, 1)) as acceptor:
        begin = time.monotonic()
        assert [acceptor.ask() for _ in range(4)] == [b"ok\n"] * 4
        assert time.monotonic() - begin >= 0.3
        assert acceptor.counters().refusal is None


def test_a_source_over_its_limit_is_refused_while_others_wait() -> None:
    with Acceptor(("/bin/cat",), max=2, per_source=2) as acceptor, ExitStack() as stack:

        def connect(source: str) -> socket.socket:
            return stack.enter_context(acceptor.connect(source))

        first = [connect("127.0.0.1") for _ in range(2)]
        assert [is_answered(client) for client in first] == [True, True]
        waits = connect("127.0.0.2")
        waits.send(b"x")
        wait_until(lambda: acceptor.counters().held == 1)
        refused = [acceptor.ask("127.0.0.1") for _ in range(100)]
        assert refused == [b""] * 100
        assert acceptor.counters().refused["per_source"] == 100
        assert acceptor.ask("127.0.0.2") == b""  # one of each source waits
        assert acceptor.counters().refused["max"] == 1
        first[0].close()
        assert waits.recv(1) == b"x"


def test_clients_of_a_source_without_limits_wait() -> None:
    with Acceptor(("/bin/cat",), max=1, only_from=networks("127.0.0.0/8")) as acceptor, ExitStack() as stack:
        clients = [stack.enter_context(acceptor.connect()) for _ in range(5)]
        for client in clients:
            client.send(b"x")
        wait_until(lambda: acceptor.counters().held == 4)
        for client in clients:
            assert client.recv(1) == b"x"
            client.close()
        assert acceptor.counters().refusal is None


def test_some_clients_are_held_and_the_rest_wait_in_the_backlog() -> None:
    with Acceptor(("/bin/cat",), max=1, per_source=5) as acceptor, ExitStack() as stack:
        clients = [stack.enter_context(acceptor.connect(f"127.0.0.{number}")) for number in range(1, 81)]
        for client in clients:
            client.send(b"x")
        wait_until(lambda: acceptor.counters().held == 64)
        assert acceptor.counters().accepted == 65
        for client in clients:
            assert client.recv(1) == b"x"
            client.close()


@pytest.mark.parametrize(("limit", "rule"), [({"load_max": 0}, "load_max"), ({"memory_min": 1 << 60}, "memory_min")])
def test_a_busy_host_lets_nobody_in(limit: dict[str, Any], rule: str) -> None:
    if os.getloadavg()[0] < 0.05:
        pytest.skip("needs a host with some load")
    with open("/proc/meminfo") as memory, Acceptor(refuses=True, memory=memory.fileno(), **limit) as acceptor:
        assert acceptor.ask() == b""
        assert acceptor.counters().refused[rule] == 1


@pytest.mark.parametrize("limit", [{"load_max": 1e6}, {"memory_min": 1 << 20}])
def test_a_host_with_room_lets_clients_in(limit: dict[str, Any]) -> None:
    with open("/proc/meminfo") as memory, Acceptor(refuses=True, memory=memory.fileno(), **limit) as acceptor:
        assert acceptor.ask() == b"ok\n"


def test_clients_wait_for_memory(tmp_path: Path) -> None:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal: 9 kB\nMemAvailable:    5 kB\n")
    with open(path) as memory, Acceptor(memory_min=6 * 1024, memory=memory.fileno(), linger=0.1) as acceptor:
        with acceptor.connect() as client:
            assert not acceptor.ends_within(0.5)
            path.write_text("MemTotal: 9 kB\nMemAvailable:    7 kB\n")
            assert read_to_end(client) == b"ok\n"


def test_options_of_connections() -> None:
    script = (
        "import socket; s = socket.socket(fileno=0); "
        "print(s.getsockopt(6, socket.TCP_NODELAY), s.getsockopt(1, socket.SO_KEEPALIVE))"
    )
    for options, expected in (({}, b"0 0\n"), ({"nodelay": True, "keepalive": True}, b"1 1\n")):
        with Acceptor(("/usr/bin/python3", "-ISc", script), **options) as acceptor:
            assert acceptor.ask() == expected


def test_the_longest_life_of_a_session() -> None:
    with Acceptor(("/bin/cat",), session_timeout=0.1) as acceptor, acceptor.connect() as client:
        assert client.recv(1) == b""
        wait_until(lambda: acceptor.counters().ended == 1)
        assert acceptor.text().endswith("killed by signal 15\n")


def test_a_session_that_ignores_its_end_is_killed() -> None:
    script = "trap '' TERM; echo x; sleep 1000"
    with Acceptor(("/bin/sh", "-c", script), session_timeout=0.3, stop_timeout=0.1) as acceptor:
        with acceptor.connect() as client:
            assert read_to_end(client) == b"x\n"
        wait_until(lambda: acceptor.counters().ended == 1)
        assert acceptor.text().endswith("killed by signal 9\n")
