"""Making a namespace what its plan says, with the kernel's own eyes: ip(8)."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from supervisor.errors import SpawnError
from supervisor.linux.namespaces import inside
from tests.daemon import wait_until
from tests.namespaces import count_links, count_mounts, names
from tests.unit.process.forked import in_child
from tests.unit.process.requirements import needs_ip, needs_root
from tests.unit.workers.netns.space import HOST, INNER, ip, options, plan
from workers.netns import files
from workers.netns.build import build
from workers.netns.files import open_namespace
from workers.netns.observed import observe
from workers.netns.plan import read_plan
from workers.netns.remove import remove
from workers.network.view import View

pytestmark = [needs_root, needs_ip]


def make(wanted: dict[str, Any], before: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the result of work in a child, as in a task; `problem` if it failed."""

    def run() -> dict[str, Any]:
        try:
            built = build(read_plan(wanted), read_plan(before) if before else None)
        except (SpawnError, OSError) as error:
            return {"problem": str(error)}
        return {"did": built.did, "made": [built.made_namespace, built.made_link], "missing": built.missing}

    found: dict[str, Any] = in_child(run)
    return found


def shown(*words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ip("-j", *words))
    return found


def test_all_that_a_plan_can_say(name: str) -> None:
    wanted = options(
        name,
        peer="vb0",
        addresses=[f"{INNER}/24", "fd13::2/64"],
        host_addresses=[f"{HOST}/24", "fd13::1/64"],
        routes=[
            {"to": "0.0.0.0/0", "via": HOST},
            {"to": "::/0", "via": "fd13::1", "metric": 7},
            {"to": "10.77.0.0/16"},
            {"to": "10.78.0.0/16", "metric": 2**32 - 1, "table": 2**32 - 1},
        ],
        mtu=1400,
        mac="02:00:00:00:00:05",
        sysctl={"net/ipv4/ip_forward": "1", "net/ipv4/conf/net0/rp_filter": "2"},
        dns={"nameservers": [HOST], "search": ["a.example"]},
    )
    assert make(wanted)["made"] == [True, True]
    (inner,) = shown("-n", name, "addr", "show", "dev", "vb0")
    assert (inner["ifname"], inner["mtu"], inner["address"]) == ("net0", 1400, "02:00:00:00:00:05")
    assert "UP" in inner["flags"]
    assert {f"{each['local']}/{each['prefixlen']}" for each in inner["addr_info"]} >= {f"{INNER}/24", "fd13::2/64"}
    (host,) = shown("addr", "show", "dev", name)
    assert {f"{each['local']}/{each['prefixlen']}" for each in host["addr_info"]} >= {f"{HOST}/24", "fd13::1/64"}
    assert host["mtu"] == 1400
    assert shown("link", "show", name)[0]["ifalias"] == f"spawnd netns@{name}"
    routes = {(route["dst"], route.get("gateway")) for route in shown("-n", name, "route")}
    assert routes >= {("default", HOST), ("10.77.0.0/16", None)}
    (route,) = shown("-n", name, "-6", "route", "show", "default")
    assert (route["gateway"], route["metric"]) == ("fd13::1", 7)
    settings = ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/conf/net0/rp_filter")
    assert ip("netns", "exec", name, "cat", *settings) == "1\n2\n"
    resolver = Path(f"/etc/netns/{name}/resolv.conf").read_text().splitlines()
    assert resolver[1:] == [f"nameserver {HOST}", "search a.example"]
    assert make(wanted) == {"did": [], "made": [False, False], "missing": []}


def test_the_end_on_the_host_is_left_alone_without_addresses(name: str) -> None:
    make(options(name, host_addresses=[], routes=[]))
    assert "UP" not in shown("link", "show", name)[0]["flags"]


def test_removal_leaves_nothing(name: str) -> None:
    wanted = options(name, dns={"nameservers": [HOST]})
    make(wanted)
    assert remove(read_plan(wanted)) == []
    assert (names(name), count_links(name), count_mounts(name)) == ([], 0, 0)
    assert not os.path.exists(f"/etc/netns/{name}")


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"routes": [{"to": "0.0.0.0/0", "via": "10.99.99.1"}]}, "cannot add route 0.0.0.0/0 via 10.99.99.1"),
        ({"setup": "/nowhere/at/all"}, "cannot run /nowhere/at/all: there is no such file"),
        ({"setup": "/etc/passwd"}, "cannot run /etc/passwd: it is not executable"),
        ({"sysctl": {"net/ipv4/nothing": "1"}}, "the kernel has no such setting"),
        ({"sysctl": {"net/ipv4/ip_forward": "many"}}, "cannot set net/ipv4/ip_forward to 'many'"),
    ],
)
def test_a_failure_leaves_nothing(name: str, more: dict[str, Any], problem: str) -> None:
    assert problem in make(options(name, dns={"nameservers": [HOST]}, **more))["problem"]
    assert (names(name), count_links(name), count_mounts(name)) == ([], 0, 0)
    assert not os.path.exists(f"/etc/netns/{name}")


def test_an_interface_of_somebody_else_is_not_taken(name: str) -> None:
    ip("link", "add", name, "type", "veth", "peer", "name", f"{name}x")
    index = shown("link", "show", name)[0]["ifindex"]
    assert "there is another interface of that name (veth)" in make(options(name))["problem"]
    assert remove(plan(name)) == []
    assert shown("link", "show", name)[0]["ifindex"] == index
    assert names(name) == []


def test_an_interface_of_somebody_else_inside_is_not_taken(name: str) -> None:
    ip("netns", "add", name)
    ip("-n", name, "link", "add", "net0", "type", "veth", "peer", "name", "net1")
    assert "there is another interface of that name" in make(options(name))["problem"]
    assert [link["ifname"] for link in shown("-n", name, "link")] == ["lo", "net1", "net0"]


def test_a_resolver_of_somebody_else_is_not_written_over(name: str) -> None:
    path = Path(f"/etc/netns/{name}/resolv.conf")
    path.parent.mkdir(parents=True)
    path.write_text("nameserver 192.0.2.1\n")
    assert "not written by spawnd" in make(options(name, dns={"nameservers": [HOST]}))["problem"]
    assert path.read_text() == "nameserver 192.0.2.1\n"
    assert names(name) == []


def test_what_others_have_made_in_the_same_way_is_taken_over(name: str) -> None:
    ip("netns", "add", name)
    ip("link", "add", name, "type", "veth", "peer", "name", "net0", "netns", name)
    index = shown("link", "show", name)[0]["ifindex"]
    done = make(options(name))
    assert done["made"] == [False, False]
    found = shown("link", "show", name)[0]
    assert (found["ifindex"], found["ifalias"]) == (index, f"spawnd netns@{name}")


def test_another_resolver_is_seen_by_those_who_have_mounted_the_one_of_before(name: str) -> None:
    path = Path(f"/etc/netns/{name}/resolv.conf")
    first = options(name, dns={"nameservers": [HOST, INNER]})
    make(first)
    with path.open() as mounted:
        assert make(options(name, dns={"nameservers": [HOST]}), first)["did"] == ["resolv.conf"]
        assert mounted.read() == path.read_text()
    assert path.read_text().splitlines()[1:] == [f"nameserver {HOST}"]


def test_a_resolver_that_cannot_be_written_leaves_nothing(name: str) -> None:

    def write() -> int | None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        try:
            files.write_resolver(name, "x" * 100)
        except OSError as error:
            return error.errno
        return None

    assert in_child(write) == errno.EFBIG
    assert not os.path.exists(f"/etc/netns/{name}")


def test_a_folder_that_is_locked_for_a_moment_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = (os.open(tmp_path, os.O_RDONLY) for _ in range(2))
    fcntl.flock(theirs, fcntl.LOCK_EX)
    monkeypatch.setattr("time.sleep", lambda _seconds: os.close(theirs))
    files._lock(ours)
    os.close(ours)


def test_a_folder_that_is_kept_locked_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = (os.open(tmp_path, os.O_RDONLY) for _ in range(2))
    fcntl.flock(theirs, fcntl.LOCK_SH)
    monkeypatch.setattr(files, "LOCK_LIMIT", 0.1)
    with pytest.raises(TimeoutError, match=r"another process has kept /run/netns locked for 0\.1 s; lslocks\(8\)"):
        files._lock(ours)
    os.close(ours)
    os.close(theirs)


def test_a_name_without_a_mount_is_left_over(name: str) -> None:
    ip("netns", "add", name)
    ip("netns", "del", name)
    Path(f"/run/netns/{name}").touch()
    assert make(options(name))["made"] == [True, True]


def test_a_file_that_is_something_else(name: str) -> None:
    path = Path(f"/run/netns/{name}")
    path.write_text("something")
    assert "it is not a network namespace" in make(options(name))["problem"]
    assert path.read_text() == "something"
    path.unlink()


def test_what_another_plan_had_goes(name: str) -> None:
    before = options(name, addresses=[f"{INNER}/24", "10.213.8.2/24"], dns={"nameservers": [HOST]})
    make(before)
    after = options(name, host_addresses=["10.213.9.1/24"], routes=[])
    done = make(after, before)
    assert done["made"] == [False, False]
    (inner,) = shown("-n", name, "-4", "addr", "show", "dev", "net0")
    assert [each["local"] for each in inner["addr_info"]] == [INNER]
    (host,) = shown("-4", "addr", "show", "dev", name)
    assert [each["local"] for each in host["addr_info"]] == ["10.213.9.1"]
    assert not any(route["dst"] == "default" for route in shown("-n", name, "route"))
    assert not os.path.exists(f"/etc/netns/{name}")


@pytest.mark.parametrize(("key", "value"), [("link", "y"), ("inside", "eth7")])
def test_another_name_of_an_end_makes_the_link_anew(name: str, key: str, value: str) -> None:
    make(options(name))
    value = f"{name[:13]}-{value}" if key == "link" else value
    after = options(name, **{key: value})
    assert make(after, options(name))["made"] == [False, True]
    assert count_links(name[:13]) == 1
    assert [link["ifname"] for link in shown("-n", name, "link")] == ["lo", after["inside"]]


def test_a_renamed_end_is_found_and_removed(name: str) -> None:
    make(options(name))
    ip("link", "set", name, "down")
    ip("link", "set", name, "name", f"{name[:12]}-r")
    assert make(options(name))["made"] == [False, True]
    assert count_links(name[:12]) == 1


def test_an_altered_address_and_mtu_are_put_right(name: str) -> None:
    wanted = options(name, mtu=1400, mac="02:00:00:00:00:07")
    make(wanted)
    ip("-n", name, "link", "set", "net0", "mtu", "1300", "address", "02:00:00:00:00:08")
    assert make(wanted)["did"] == ["mtu 1400", "mac 02:00:00:00:00:07"]


def test_what_others_have_done_to_files_is_no_reason_not_to_put_the_rest_right(name: str, tmp_path: Path) -> None:
    script, path = tmp_path / "setup", Path(f"/etc/netns/{name}/resolv.conf")
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    wanted = options(name, setup=str(script), dns={"nameservers": [HOST]})
    make(wanted)
    script.unlink()
    path.write_text("nameserver 192.0.2.1\n")
    ip("-n", name, "addr", "del", f"{INNER}/24", "dev", "net0")
    assert "not written by spawnd" in make(wanted, wanted)["problem"], "the next worker says so"

    def repair() -> list[str]:
        namespace = open_namespace(name)
        assert namespace is not None
        with inside(namespace), socket.socket() as sock:
            inner = os.dup(sock.fileno())
        return build(read_plan(wanted), read_plan(wanted), inner).did

    assert f"address {INNER}/24" in in_child(repair)
    assert path.read_text() == "nameserver 192.0.2.1\n"


def test_an_altered_end_on_the_host_and_a_second_name_that_is_gone_are_put_right(name: str) -> None:
    wanted = options(name, mtu=1400, peer="vb0")
    make(wanted)
    ip("link", "set", name, "mtu", "1300")
    ip("-n", name, "link", "property", "del", "dev", "net0", "altname", "vb0")
    done = make(wanted)
    assert done["missing"] == done["did"] == [f"mtu 1400 of link {name}", "name vb0"]


def test_a_seen_is_of_both_ends(name: str) -> None:
    make(options(name))
    namespace = open_namespace(name)
    assert namespace is not None
    seen = observe(plan(name), namespace)
    os.close(namespace)
    assert seen.is_pair
    assert seen.missing(plan(name)) == []
    assert seen.missing(plan(name, addresses=["10.1.1.1/24"], mtu=1234)) == [
        "mtu 1234",
        f"mtu 1234 of link {name}",
        "address 10.1.1.1/24",
    ]


def test_a_namespace_whose_name_was_taken_gets_it_back(name: str) -> None:
    wanted = options(name)
    make(wanted)
    inode = os.stat(f"/run/netns/{name}").st_ino

    def run() -> list[str]:
        namespace = open_namespace(name)
        assert namespace is not None
        with inside(namespace):
            sock = socket.socket()
        os.close(namespace)
        ip("netns", "del", name)
        return build(read_plan(wanted), None, sock.fileno()).did

    assert in_child(run) == ["the name of the network namespace"]
    assert os.stat(f"/run/netns/{name}").st_ino == inode


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("-n @ route flush dev net0", [f"connected route {INNER[:-1]}0/24", f"route 0.0.0.0/0 via {HOST}"]),
        (f"-n @ route del local {INNER} table local", [f"local route {INNER}/32"]),
        ("-n @ -6 route del local fd13::2 table local", ["local route fd13::2/128"]),
        ("-n @ -6 route del fd13::/64 dev net0", ["connected route fd13::/64"]),
        ("-n @ -6 route del fd14::1 dev net0", ["connected route fd14::1/128"]),
        ("-n @ route del local 10.99.0.1 table local", ["local route 10.99.0.1/32"]),
        ("-n @ -6 route flush dev net0", ["connected route fd13::/64", "connected route fd14::1/128"]),
        (f"route del {HOST[:-1]}0/24 dev @", [f"host connected route {HOST[:-1]}0/24"]),
        (f"route del local {HOST} table local", [f"host local route {HOST}/32"]),
        ("-6 route del fd13::/64 dev @", ["host connected route fd13::/64"]),
        ("-6 route del local fd13::1 table local", ["host local route fd13::1/128"]),
        ("netns exec @ sh -c echo~0~>/proc/sys/net/ipv4/ip_forward", ["net/ipv4/ip_forward = 1"]),
    ],
)
def test_routes_of_the_kernel_and_settings_are_part_of_the_plan(name: str, command: str, missing: list[str]) -> None:
    wanted = options(
        name,
        addresses=[f"{INNER}/24", "fd13::2/64", "10.99.0.1/32", "fd14::1/128"],
        host_addresses=[f"{HOST}/24", "fd13::1/64"],
        sysctl={"net/ipv4/ip_forward": "1"},
    )
    make(wanted)
    # the kernel makes routes of IPv6 addresses a moment later
    wait_until(lambda: make(wanted, wanted)["missing"] == [], "the routes of the kernel")
    added = f"{INNER[:-1]}9/24"
    ip("-n", name, "addr", "add", added, "dev", "net0")
    ip(*[word.replace("~", " ").replace("@", name) for word in command.split()])
    found = make(wanted, wanted)
    assert found["missing"] == missing
    assert found["did"] == missing
    assert make(wanted, wanted) == {"did": [], "made": [False, False], "missing": []}
    assert added.partition("/")[0] in ip("-n", name, "addr", "show", "dev", "net0"), "what others have added stays"


def test_a_link_without_carrier_is_not_missing_routes(name: str) -> None:
    """The other end is somebody else's, and down: the kernel makes no routes of IPv6 addresses yet."""
    wanted = options(name, addresses=["fd13::2/64"], host_addresses=[], routes=[])
    make(wanted)
    assert make(wanted, wanted) == {"did": [], "made": [False, False], "missing": []}


def test_many_routes_of_others_are_not_looked_through(name: str) -> None:
    wanted = options(name)
    make(wanted)
    ip("-n", name, "link", "add", "d0", "type", "veth", "peer", "d1")
    ip("-n", name, "link", "set", "d0", "up")
    batch = "".join(f"route add 10.{a}.{b}.0/24 dev d0\n" for a in range(100, 110) for b in range(200))
    subprocess.run(["ip", "-n", name, "-batch", "-"], input=batch, text=True, check=True)

    def look_over() -> int:
        namespace = open_namespace(name)
        assert namespace is not None
        with inside(namespace), View() as view:
            inner = view.link("net0")
            assert inner is not None
            return len(view.routes_over(inner.index))

    assert in_child(look_over) < 20
