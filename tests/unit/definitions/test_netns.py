"""`netns.NAME = { … }`: the service that keeps a network namespace."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.definitions.netns.options import is_interface_name, link_name
from supervisor.definitions.service import Service
from supervisor.lifecycle.life import Cause
from tests.unit.definitions.loading import Files, load_paths


def namespace(files: Files, keys: str) -> Service:
    return files.load(f"netns.a = {{ {keys} }}").services["netns@a"]


def options(files: Files, keys: str) -> dict[str, Any]:
    return namespace(files, keys).options


def test_it_is_a_service_of_its_worker(files: Files) -> None:
    service = namespace(files, "")
    assert (service.worker, service.user, service.uid, service.ready) == ("netns", "root", 0, "notify")
    signals = (service.restart_signal, service.reload_signal, service.handover_signal, service.stop_signal)
    assert signals == (37, 1, 10, 15)
    assert service.control
    assert (service.kill_mode, service.fdstore_max, service.stdout.kind) == ("process", 2, "log")
    assert service.options == {
        "name": "a",
        "link": "a",
        "inside": "net0",
        "loopback": True,
        "addresses": [],
        "host_addresses": [],
        "routes": [],
        "setup_timeout": 30.0,
    }


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("netns.a = {}\nnetns.b = {}", {"netns@a": 1, "netns@b": 2}),
        ('netns["a"] = {}\n\nnetns["b-1.x"] = {\n}', {"netns@a": 1, "netns@b-1.x": 3}),
        ("netns = {\n  a = {},\n  b = {} }", {"netns@a": 2, "netns@b": 3}),
        ("netns = { a = {} }\nnetns.b = {}", {"netns@a": 1, "netns@b": 2}),
        ('for _, name in ipairs { "a", "b" } do\n  netns[name] = {}\nend', {"netns@a": 2, "netns@b": 2}),
        ("netns = netns\nnetns.a = {}", {"netns@a": 2}),
        ('rawset(netns, "a", {})', {"netns@a": 1}),
    ],
)
def test_notations(files: Files, text: str, lines: dict[str, int]) -> None:
    services = files.load(text).services
    assert {name: max(service.line, 1) for name, service in services.items()} == lines


def test_what_was_assigned_can_be_read_and_changed(files: Files) -> None:
    assert files.load("netns.a = {}\nnetns.a.mtu = 1400").services["netns@a"].options["mtu"] == 1400


def test_several_files_add_to_it(files: Files) -> None:
    paths = [files.write("netns.a = {}", "a.lua"), files.write("netns.b = {}", "b.lua")]
    assert set(load_paths(*paths).services) == {"netns@a", "netns@b"}


def test_one_namespace_in_two_files(files: Files) -> None:
    paths = [files.write("netns.a = {}", "a.lua"), files.write("\nnetns.a = {}", "b.lua")]
    problems = files.problems_of(lambda: load_paths(*paths))
    assert problems == ["b.lua:2: netns@a: is defined at a.lua:1 as well"]


@pytest.mark.parametrize(
    ("keys", "key", "value"),
    [
        ('addresses = "192.0.2.2/24"', "addresses", ["192.0.2.2/24"]),
        ('addresses = { "192.0.2.2", "2001:DB8:0::2/64" }', "addresses", ["192.0.2.2/32", "2001:db8::2/64"]),
        ('addresses = { "192.0.2.0/31" }', "addresses", ["192.0.2.0/31"]),
        ('host_addresses = { "192.0.2.1/24" }', "host_addresses", ["192.0.2.1/24"]),
        ('addresses = "192.0.2.2/24", gateway = "192.0.2.1"', "routes", [{"to": "0.0.0.0/0", "via": "192.0.2.1"}]),
        ('gateway = "fe80::1"', "routes", [{"to": "::/0", "via": "fe80::1"}]),
        ('routes = { "198.51.100.0/24" }', "routes", [{"to": "198.51.100.0/24"}]),
        (
            'routes = { "198.51.100.0/24", "default via 198.51.100.1" }',
            "routes",
            [{"to": "198.51.100.0/24"}, {"to": "0.0.0.0/0", "via": "198.51.100.1"}],
        ),
        (
            'routes = { { to = "default", via = "fd00::1", onlink = true, metric = 5, table = 9, source = "::2" } }',
            "routes",
            [{"to": "::/0", "via": "fd00::1", "onlink": True, "metric": 5, "table": 9, "source": "::2"}],
        ),
        ("mtu = 9000", "mtu", 9000),
        ('mac = "02:00:00:00:00:AB"', "mac", "02:00:00:00:00:ab"),
        ("loopback = false", "loopback", False),
        ('sysctl = { ["net.ipv4.ip_forward"] = true }', "sysctl", {"net/ipv4/ip_forward": "1"}),
        ('sysctl = { ["net/ipv4/conf/a.1/rp_filter"] = 2 }', "sysctl", {"net/ipv4/conf/a.1/rp_filter": "2"}),
        ('dns = { "192.0.2.53" }', "dns", {"nameservers": ["192.0.2.53"]}),
        ('dns = { search = "a.example", options = "edns0" }', "dns", {"search": ["a.example"], "options": ["edns0"]}),
        ("setup = false", "setup", False),
        ('setup = "/bin/true"', "setup", "/bin/true"),
        ('setup_timeout = "2m"', "setup_timeout", 120.0),
        ('link = "ve-a"', "link", "ve-a"),
        ('inside = "eth0"', "inside", "eth0"),
        ('peer = "vp-a"', "peer", "vp-a"),
    ],
)
def test_options(files: Files, keys: str, key: str, value: object) -> None:
    assert options(files, keys)[key] == value


@pytest.mark.parametrize(
    ("keys", "field", "value"),
    [
        ('description = "of customer 1"', "description", "of customer 1"),
        ('status = "stop"', "autostart", False),
        ("", "start_limit", None),
        ("start_limit = 3", "start_limit", 3),
        ("", "healthy_after", 0.1),
        ('healthy_after = "1m"', "healthy_after", 60.0),
        ('stop_timeout = "1m"', "stop_timeout", 60.0),
    ],
)
def test_keys_of_every_service(files: Files, keys: str, field: str, value: object) -> None:
    assert getattr(namespace(files, keys), field) == value


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("mtuu = 1", "unknown key 'mtuu', did you mean 'mtu'?"),
        ('user = "root"', "unknown key 'user'"),
        ('addresses = "192.0.2.0/24"', "'192.0.2.0/24' is the address of the network itself"),
        ('addresses = "192.0.2.255/24"', "is the address of all that are in it"),
        ('addresses = { "x" }', "addresses[1]: 'x' is not an address of an interface"),
        ('addresses = { "224.0.0.1/4" }', "cannot be the address of an interface"),
        ('addresses = { "192.0.2.2/24", "192.0.2.2/24" }', "192.0.2.2/24 is given twice"),
        ('addresses = "192.0.2.2/24", host_addresses = "192.0.2.2/24"', "is an address of the end inside as well"),
        ('gateway = "192.0.2.1"', "192.0.2.1 is in the network of none of the addresses"),
        ('gateway = { "192.0.2.1", "192.0.2.3" }', "there is one gateway for each family"),
        ('routes = { "198.51.100.1/24" }', "is not a network, did you mean '198.51.100.0/24'?"),
        ('routes = { "198.51.100.0/24 by 192.0.2.1" }', "is not a route"),
        ('routes = { { to = "::/0", vai = "fe80::1" } }', "routes[1].vai: unknown key 'vai', did you mean 'via'?"),
        ('routes = { { to = "198.51.100.0/24", via = "fe80::1" } }', "are not of one family"),
        ('routes = { "default" }', 'says of which family it is: "0.0.0.0/0" or "::/0"'),
        ('routes = { { via = "192.0.2.1" } }', "has no destination"),
        ('routes = { "default via 192.0.2.1" }', "onlink = true sends it there all the same"),
        (
            'addresses = "192.0.2.2/24", gateway = "192.0.2.1", routes = { "default via 192.0.2.3" }',
            "routes[1]: 0.0.0.0/0 has a route already, gateway; a second one has a metric or a table of its own",
        ),
        (
            'routes = { "198.51.100.0/24", { to = "198.51.100.0/24", table = 254 } }',
            "routes[2]: 198.51.100.0/24 has a route already, routes[1]",
        ),
        (
            'routes = { { to = "::/0", via = "fe80::1" }, { to = "::/0", via = "fe80::2", metric = 1024 } }',
            "routes[2]: ::/0 has a route already, routes[1]",
        ),
        ('addresses = "192.0.2.2/24", gateway = "192.0.2.2"', "192.0.2.2 is an address of the end inside itself"),
        ("mtu = 12", "12 is out of range, from 68 to 65535"),
        ('mtu = 576, addresses = "2001:db8::2/64"', "576 is too small for IPv6"),
        ('mac = "03:00:00:00:00:01"', "cannot be the hardware address of an interface"),
        ('mac = "02-00-00-00-00-01"', "is not a hardware address"),
        ('sysctl = { ["kernel.panic"] = 1 }', "those begin with 'net.'"),
        ('sysctl = { ["net/../kernel/panic"] = 1 }', "is not the name of a setting"),
        ('dns = { "localhost" }', "dns[1]: 'localhost' is not the address of a name server"),
        ('dns = { serch = { "a" } }', "dns.serch: unknown key, did you mean 'search'?"),
        ('link = "much-too-long-a-name"', "cannot be the name of an interface"),
        ('inside = "lo"', "cannot be the name of an interface"),
        ('peer = "net0"', "is the name inside already"),
        ('setup = "relative"', "is not an absolute path"),
        ("setup_timeout = 0", "0 is too short"),
    ],
)
def test_problems(files: Files, keys: str, problem: str) -> None:
    found = files.problems(f"netns.a = {{ {keys} }}")
    assert any(text.startswith("a.lua:1: netns@a: ") and problem in text for text in found), found


def test_every_problem_has_its_line(files: Files) -> None:
    text = 'netns.a = {\n  mtu = 1,\n  dns = {\n    "x",\n  },\n}\nnetns["b/c"] = {}\nnetns.d = 5\nnetns.a = {}'
    lines = [problem.split(": ")[0] for problem in files.problems(text)]
    assert lines == ["a.lua:7", "a.lua:8", "a.lua:9"]
    lines = [problem.split(": ")[0] for problem in files.problems(text.rpartition("\n")[0])]
    assert lines == ["a.lua:2", "a.lua:4", "a.lua:7", "a.lua:8"]


def test_netns_itself_is_no_service(files: Files) -> None:
    assert files.problems("netns = 5")[0].startswith("a.lua:1: 'netns' is 5, not a table")


@pytest.mark.parametrize(
    ("name", "link"),
    [("customer1", "customer1"), ("a" * 15, "a" * 15), ("all", None), ("lo", None), ("a" * 16, None), ("x@y", None)],
)
def test_link_names(name: str, link: str | None) -> None:
    found = link_name(name)
    assert is_interface_name(found)
    assert found == link if link is not None else found != name
    assert link_name(name) == found


def test_long_names_that_begin_alike_have_other_links() -> None:
    assert len({link_name(f"a-customer-with-a-long-name-{number}") for number in range(500)}) == 500


def test_two_namespaces_with_one_link(files: Files) -> None:
    problems = files.problems('netns.a = {}\nnetns.b = {\n  link = "a" }')
    assert problems == ["a.lua:3: netns@b: link: 'a' is the link of netns@a at a.lua:1 as well"]


SERVICE = 'x = {{ exec = "/x", {} }}\n'


@pytest.mark.parametrize(
    "keys",
    [
        'netns = "a"',
        'fd = { tcp("127.0.0.1", 80, { netns = "a" }) }',
        'netns = "b", fd = { tcp("127.0.0.1", 80, { netns = "a" }) }',
        'netns = "a", depends = "netns@a"',
    ],
)
def test_what_is_inside_depends_on_who_keeps_it(files: Files, keys: str) -> None:
    assert files.load(SERVICE.format(keys) + "netns.a = {}").services["x"].depends == ("netns@a",)


def test_a_namespace_that_nobody_keeps_has_to_be_there_by_itself(files: Files) -> None:
    definitions = files.load(SERVICE.format('netns = "other"') + "netns.a = {}")
    assert definitions.services["x"].depends == ()
    assert definitions.notices == ()


def test_a_name_that_is_near(files: Files) -> None:
    definitions = files.load(SERVICE.format('netns = "custmer"') + "netns.customer = {}")
    assert [text.partition(": ")[2] for text in definitions.notices] == [
        "x: netns: no file defines netns.custmer, did you mean 'customer'?"
    ]


def test_a_cycle_through_a_namespace(files: Files) -> None:
    problems = files.problems(SERVICE.format('netns = "a"') + 'netns.a = { depends = "x" }')
    assert "cannot be ordered: x -> netns@a -> x" in problems[0]


def test_defaults_of_a_file_are_for_its_services(files: Files) -> None:
    text = '_DEFAULT = { depends = "y" }\ny = { exec = "/y", depends = {} }\nnetns.a = {}'
    assert files.load(text).services["netns@a"].depends == ()


def test_it_is_the_same_as_the_service_written_out(files: Files) -> None:
    """The output of `spawnctl show` is a definition, too."""
    from supervisor.definitions.notation.keys import SHOW

    service = namespace(files, 'addresses = "192.0.2.2/24", gateway = "192.0.2.1", dns = "192.0.2.53", mtu = 1400')
    keys = ", ".join(f"{key} = {show(service)}" for key, show in SHOW.items())
    assert files.load(f'_G["netns@a"] = {{ {keys} }}').services["netns@a"] == service


def test_a_namespace_made_anew_is_a_cause() -> None:
    assert Cause("namespace") is Cause.NAMESPACE
