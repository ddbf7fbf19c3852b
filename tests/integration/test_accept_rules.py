"""The rules of `accept` on who is let in, from the definition to the client of a real spawnd."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from supervisor.ctl.completion import candidates
from supervisor.process.network_namespace import run_in_namespace
from tests import fuse
from tests.daemon import Daemon, wait_until
from tests.integration.conftest import Start, shared, telling
from tests.integration.test_accept import PATIENCE
from tests.integration.test_demand import port
from tests.unit.process.netns import network_namespace
from tests.unit.process.requirements import needs_ip, needs_root

DEFINITIONS = """
local function service(rules)
  return { exec = "/bin/cat", fd = { tcp("127.0.0.1", 0) }, accept = rules }
end
open = service(true)
listed = service({ only_from = { "127.0.0.0/24" }, no_access = "127.0.0.2" })
better = service({ only_from = { "127.0.0.2" }, no_access = "127.0.0.0/8" })
nobody_at_all = service({ only_from = {} })
now = service({ hours = "00:00-24:00" })
never = service({ hours = NEVER })
seldom = service({ rate = "3/h", on_limit = "refuse" })
bursts = service({ rate = "1/d", burst = 2, on_limit = "refuse" })
slowly = service({ rate = "5/s", burst = 1 })
per_source = service({ source_rate = "2/h" })
idle_host = service({ load_max = 0.000001, on_limit = "refuse" })
busy_host = service({ load_max = 100000, memory_min = "1m", on_limit = "refuse" })
large_host = service({ memory_min = "1024t", on_limit = "refuse" })
for _, on_limit in ipairs({ "wait", "refuse" }) do
  _G["full_" .. on_limit] = service({
    max = 2, per_source = 1, source_rate = "2/h", no_access = "127.0.9.0/24", on_limit = on_limit,
  })
end
greeting = service({ banner = "@/welcome", banner_refused = "@/sorry", no_access = "127.0.0.2" })
users = { exec = "/bin/cat", fd = { stream("@/users") }, accept = { only_from = { "root", "\\64daemon" } } }
strangers = { exec = "/bin/cat", fd = { stream("@/strangers") }, accept = { no_access = "\\64root" } }
silent = service({ defer_accept = "30s" })
short = service({ defer_accept = "1s" })
named = { exec = "/bin/sh", argv0 = "in.test", arg = { "-c", "tr '\\\\0' ' ' < /proc/$$/cmdline" },
  fd = { tcp("127.0.0.1", 0) }, accept = true }
place = { exec = "/usr/bin/env", fd = { stream("@/place"), stream("\\64spawnd-test-PID") }, accept = true }
"""


def never() -> str:
    """Hours that are over, or have not begun, for some time: those of a day that is neither today nor near."""
    return '"' + ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[(time.localtime().tm_wday + 3) % 7] + ' 00:00-24:00"'


@pytest.fixture(scope="module")
def rules_of_all() -> Iterator[Daemon]:
    text = DEFINITIONS.replace("NEVER", never()).replace("PID", str(os.getpid()))
    with shared(text) as daemon:
        (daemon.folder / "welcome").write_text("welcome\n")
        (daemon.folder / "sorry").write_text("sorry\n")
        wait_until(lambda: {each["state"] for each in daemon.services().values()} == {"asleep"}, "all to be asleep")
        yield daemon


@pytest.fixture
def rules(rules_of_all: Daemon) -> Iterator[Daemon]:
    with telling(rules_of_all) as daemon:
        yield daemon


def connect(address: int | str, source: str = "127.0.0.1") -> socket.socket:
    if isinstance(address, str):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE)
        client.connect(address)
        return client
    return socket.create_connection(("127.0.0.1", address), PATIENCE, (source, 0))


def is_let_in(address: int | str, source: str = "127.0.0.1") -> bool:
    """Whether a client gets back what it sends."""
    with connect(address, source) as client:
        return is_served(client)


def is_served(client: socket.socket) -> bool:
    try:
        client.sendall(b"x")
        return client.recv(1) == b"x"
    except ConnectionError:
        return False


def read(client: socket.socket) -> str:
    data = b""
    while part := client.recv(65536):
        data += part
    return data.decode()


SOURCES = ("127.0.0.1", "127.0.0.2", "127.0.1.1")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("open", [True, True, True]),
        ("listed", [True, False, False]),
        ("better", [False, True, False]),  # the more specific entry counts
        ("nobody_at_all", [False, False, False]),
        ("now", [True, True, True]),
        ("never", [False, False, False]),
    ],
)
def test_clients_have_to_be_listed_and_come_in_time(rules: Daemon, name: str, expected: list[bool]) -> None:
    assert [is_let_in(port(rules, name), source) for source in SOURCES] == expected


def test_refusals_are_logged_by_rule(rules: Daemon) -> None:
    is_let_in(port(rules, "listed"), "127.0.0.2")
    rules.wait_log(": no_access")
    is_let_in(port(rules, "listed"), "127.0.1.1")
    rules.wait_log(": only_from")
    is_let_in(port(rules, "never"))
    rules.wait_log(": hours")


@pytest.mark.parametrize(("name", "served"), [("seldom", 3), ("bursts", 2)])
def test_starts_beyond_a_rate_are_refused(rules: Daemon, name: str, served: int) -> None:
    found = [is_let_in(port(rules, name), source) for source in (*SOURCES, *SOURCES)]
    assert found == [True] * served + [False] * (6 - served)


def test_starts_beyond_a_rate_wait(rules: Daemon) -> None:
    begin = time.monotonic()
    assert all(is_let_in(port(rules, "slowly")) for _ in range(4))
    assert time.monotonic() - begin >= 0.6


def test_the_rate_of_a_source_is_its_own(rules: Daemon) -> None:
    found = [is_let_in(port(rules, "per_source"), source) for source in SOURCES for _ in range(3)]
    assert found == [True, True, False] * 3


@pytest.mark.parametrize(("name", "expected"), [("busy_host", True), ("large_host", False), ("idle_host", False)])
def test_the_host_has_to_have_room(rules: Daemon, name: str, expected: bool) -> None:
    if name == "idle_host" and os.getloadavg()[0] < 0.05:
        pytest.skip("needs a host with some load")
    assert is_let_in(port(rules, name)) == expected
    if name == "large_host":
        assert "Limit: memory_min: clients are refused" in rules.ctl("status", name).stdout
        assert "; clients are refused: memory_min" in rules.ctl("why", name).stdout
    if name == "busy_host":
        assert "Limit: " not in rules.ctl("status", name).stdout


@pytest.mark.parametrize("on_limit", ["wait", "refuse"])
def test_rules_about_one_client_refuse_while_others_wait(rules: Daemon, on_limit: str) -> None:
    address = port(rules, f"full_{on_limit}")
    with ExitStack() as stack:
        first, second = (stack.enter_context(connect(address, source)) for source in SOURCES[:2])
        assert is_served(first)
        assert is_served(second)
        # `max` is reached
        assert not is_let_in(address, SOURCES[0])  # per_source
        assert not is_let_in(address, "127.0.9.9")  # no_access
        third = stack.enter_context(connect(address, SOURCES[2]))
        third.sendall(b"x")
        if on_limit == "refuse":
            assert not is_served(third)
        else:
            third.settimeout(0.3)
            with pytest.raises(TimeoutError):
                third.recv(1)
            assert "Limit: max: clients wait" in rules.ctl("status", "full_wait").stdout
            assert "; clients wait: max" in rules.ctl("why", "full_wait").stdout
            third.settimeout(PATIENCE)
            first.close()
            assert third.recv(1) == b"x"
            third.close()
    # the starts of the first source are used up by its second client, which source_rate let in
    wait_until(lambda: "Sessions: 0" in rules.ctl("status", f"full_{on_limit}").stdout, "the ends of all sessions")
    found = [is_let_in(address, SOURCES[0]) for _ in range(3)]
    assert found.count(False) >= 2


def test_hours_and_lists_of_a_new_definition_refuse_while_max_is_reached(spawnd: Start, folder: Path) -> None:
    text = 'x = { exec = "/bin/cat", fd = { tcp("127.0.0.1", 0) }, accept = { max = 1 RULES } }'
    daemon = spawnd(text.replace("RULES", ""))
    address = port(daemon, "x")
    with connect(address) as client:
        assert is_served(client)
        for rule in (f", hours = {never()}", ', only_from = "127.0.0.2"', ', no_access = { "127.0.0.0/24" }'):
            before = daemon.wait_running("x")
            daemon.definitions.write_text(text.replace("RULES", rule))
            assert daemon.ctl("apply").returncode == 0
            daemon.wait_running("x", other_than=before)
            assert is_served(client)  # nobody who is in is put out
            assert not is_let_in(address)
        before = daemon.wait_running("x")
        daemon.definitions.write_text(text.replace("RULES", ""))
        assert daemon.ctl("apply").returncode == 0
        daemon.wait_running("x", other_than=before)
        with connect(address) as other:
            other.sendall(b"x")
            client.close()
            assert other.recv(1) == b"x"


def test_banners(rules: Daemon) -> None:
    with connect(port(rules, "greeting")) as client:
        assert client.recv(100) == b"welcome\n"
        assert is_served(client)
    with connect(port(rules, "greeting"), "127.0.0.2") as client:
        client.sendall(b"hello")
        assert read(client) == "sorry\n"


def test_a_banner_is_read_at_the_start_of_the_acceptor(spawnd: Start, folder: Path) -> None:
    (folder / "root").mkdir()
    (folder / "root").chmod(0o755)
    (folder / "sorry").write_text("first\n")
    (folder / "sorry").chmod(0o600)  # root opens it, before the root of the service is another one
    daemon = spawnd("""
        x = { exec = "/none", chroot = "@/root", fd = { tcp("127.0.0.1", 0) },
              accept = { only_from = {}, banner_refused = "@/sorry" } }
    """)
    address = port(daemon, "x")
    for text in ("first\n", "second\n"):
        with connect(address) as client:
            assert read(client) == text
        (folder / "sorry").write_text("second\n")
        daemon.ctl("restart", "x")


@pytest.mark.parametrize(
    ("what", "cause"),
    [
        ("missing", "No such file or directory (ENOENT)"),
        ("folder", "it is not a regular file (EINVAL)"),
        ("fifo", "it is not a regular file (EINVAL)"),
        ("large", "File too large (EFBIG)"),
    ],
)
def test_a_banner_that_cannot_be_read_is_the_cause(spawnd: Start, folder: Path, what: str, cause: str) -> None:
    banner = folder / "banner"
    make: dict[str, Callable[[], object]] = {
        "folder": banner.mkdir,
        "fifo": lambda: os.mkfifo(banner),
        "large": lambda: banner.write_bytes(bytes(8193)),
    }
    make.get(what, lambda: None)()
    daemon = spawnd("""
        x = { exec = "/bin/cat", fd = { tcp("127.0.0.1", 0) }, backoff = { max = "100ms" },
              accept = { banner = "@/banner" } }
    """)
    with connect(port(daemon, "x")) as client:
        client.sendall(b"x")
        daemon.wait_log(f"cannot open '{banner}': {cause}")
        wait_until(lambda: f"could not open '{banner}': " in daemon.ctl("why", "x").stdout, "the cause")
        if what == "folder":
            banner.rmdir()
        else:
            banner.unlink(missing_ok=True)
        banner.write_bytes(b"hello\n")
        assert client.recv(6) == b"hello\n"  # the client has waited
        assert client.recv(1) == b"x"


@pytest.mark.skipif(not fuse.is_possible(), reason="needs FUSE")
def test_a_banner_that_hangs_holds_up_nobody_else(spawnd: Start) -> None:
    with fuse.unanswering(fuse.OPEN) as banner:
        daemon = spawnd(f"""
            x = {{ exec = "/bin/cat", fd = {{ tcp("127.0.0.1", 0) }}, accept = {{ banner = "{banner}" }} }}
            y = {{ exec = "/bin/cat", fd = {{ tcp("127.0.0.1", 0) }}, accept = true }}
        """)
        with connect(port(daemon, "x")) as client:
            client.sendall(b"x")
            wait_until(lambda: daemon.state("x") != "asleep", "x to be woken")
            assert is_let_in(port(daemon, "y"))
            assert daemon.ctl("status", timeout=10).returncode == 0


def test_users_and_groups_of_unix_sockets(rules: Daemon) -> None:
    is_root = os.geteuid() == 0
    assert is_let_in(str(rules.folder / "users")) == is_root
    assert is_let_in(str(rules.folder / "strangers")) != is_root


def test_a_client_is_let_in_once_it_has_sent_something(rules: Daemon) -> None:
    address = port(rules, "silent")
    with connect(address) as client:
        client.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert rules.state("silent") == "asleep"
        client.settimeout(PATIENCE)
        assert is_served(client)
    with connect(port(rules, "short")):  # the kernel lets it in after that time
        wait_until(lambda: rules.state("short") == "running", "short to be woken")


def test_a_session_may_have_another_name(rules: Daemon) -> None:
    with connect(port(rules, "named")) as client:
        assert read(client).startswith("in.test -c ")


@pytest.mark.parametrize("name", ["path", "abstract"])
def test_a_session_knows_its_unix_socket(rules: Daemon, name: str) -> None:
    path = str(rules.folder / "place")
    address, told = (path, path) if name == "path" else (f"\0spawnd-test-{os.getpid()}", f"@spawnd-test-{os.getpid()}")
    with connect(address) as client:
        assert f"UNIXLOCALPATH={told}\n" in read(client)


INTERFACES = """
inner = { exec = "/bin/cat", fd = { tcp("127.0.0.1", 7007, { netns = "NAME" }) }, accept = { interface = "lo" } }
outer = { exec = "/bin/cat", fd = { tcp("127.0.0.1", 7007, { netns = "NAME" }) }, accept = { interface = "v0" } }
alone = { exec = "/bin/cat", fd = { tcp("127.0.0.1", 7008, { netns = "NAME" }) }, accept = { interface = "ALONE" } }
"""


@needs_root
@needs_ip
def test_clients_come_from_one_interface(spawnd: Start) -> None:
    with network_namespace() as name:
        subprocess.run(["ip", "-n", name, "link", "add", "v0", "type", "veth", "peer", "name", "v1"], check=True)
        text = INTERFACES.replace("NAME", name)
        daemon = spawnd(text.replace("ALONE", "v0"))
        wait_until(lambda: {daemon.state(each) for each in ("inner", "outer", "alone")} == {"asleep"}, "all to sleep")
        assert run_in_namespace(name, lambda: is_let_in(7007))
        assert daemon.state("outer") == "asleep"
        with pytest.raises(ConnectionRefusedError):
            run_in_namespace(name, lambda: is_let_in(7008))
        daemon.definitions.write_text(text.replace("ALONE", "lo"))
        assert daemon.ctl("apply").returncode == 0
        assert run_in_namespace(name, lambda: is_let_in(7008))


def test_a_missing_interface_is_the_cause(spawnd: Start) -> None:
    daemon = spawnd('x = { exec = "/bin/cat", fd = { tcp("127.0.0.1", 0) }, accept = { interface = "nowhere0" } }')
    wait_until(lambda: "no interface 'nowhere0'" in daemon.ctl("why", "x").stdout, "the cause")


TRAP = """
early = { exec = "/bin/cat", fd = { tcp("127.0.0.1", 0) }, accept = { linger = false } }
other = { exec = "/bin/cat", fd = { tcp("127.0.0.1", 0) }, accept = true }
"""
WITH_TRAP = f"""{TRAP}
trap = {{ fd = {{ tcp("127.0.0.1", 0) }}, accept = {{ trap = true, no_access = "127.0.0.1", deny_time = TIME }} }}
"""


def test_a_trap_denies_all_services_to_its_clients(spawnd: Start) -> None:
    daemon = spawnd(TRAP)
    assert is_let_in(port(daemon, "early"), "127.0.0.2")  # its acceptor is older than the trap
    daemon.definitions.write_text(WITH_TRAP.replace("TIME", '"1h"'))
    assert daemon.ctl("apply").returncode == 0
    trap = port(daemon, "trap")
    for source in ("127.0.0.1", "127.0.0.2"):
        assert not is_let_in(trap, source)

    def denials() -> list[bool]:
        return [not is_let_in(port(daemon, name), source) for name in ("early", "other") for source in SOURCES]

    expected = [False, True, False] * 2
    assert denials() == expected
    daemon.ctl("reexec")
    assert denials() == expected
    for name in ("early", "trap"):
        daemon.ctl("stop", name)
        daemon.ctl("start", name)
    assert denials() == expected
    daemon.lose()
    daemon.again()
    assert denials() == expected
    assert daemon.stop() == 0
    daemon.again()
    assert denials() == expected


def test_a_denial_ends(spawnd: Start) -> None:
    daemon = spawnd(WITH_TRAP.replace("TIME", "0.5"))

    def is_denied() -> bool:
        begun = time.monotonic()
        assert not is_let_in(port(daemon, "trap"), "127.0.0.2")
        let_in = is_let_in(port(daemon, "other"), "127.0.0.2")
        assert not let_in or time.monotonic() - begun > 0.5, "let in during the denial"
        return not let_in  # a busy machine lets it pass

    wait_until(is_denied, "a denial")
    wait_until(lambda: is_let_in(port(daemon, "other"), "127.0.0.2"), "the end of the denial")


def test_an_operator_forgives_an_address(spawnd: Start) -> None:
    daemon = spawnd(WITH_TRAP.replace("TIME", "false"))
    assert daemon.ctl("sessions", "--denied").stdout == "No address is denied\n"
    assert not is_let_in(port(daemon, "trap"), "127.0.0.2")
    assert not is_let_in(port(daemon, "other"), "127.0.0.2")
    assert daemon.ctl("sessions", "--denied").stdout == "ADDRESS    DENIED FOR\n127.0.0.2  until boot\n"
    socket_path = str(daemon.socket)
    assert list(candidates(["--socket", socket_path, "sessions", "--forgive", ""])) == [
        ("127.0.0.2", "until boot"),
        ("all", "every address that is denied"),
    ]
    done = daemon.ctl("sessions", "--forgive", "127.0.0.2", "--forgive", "127.0.0.9")
    assert (done.returncode, done.stdout) == (1, "127.0.0.2 is let in again\n")
    assert done.stderr == "127.0.0.9 is not denied: `spawnctl sessions --denied` shows those that are\n"
    assert is_let_in(port(daemon, "other"), "127.0.0.2")
    assert "forgive of 127.0.0.2, 127.0.0.9: asked for by " in daemon.log()
