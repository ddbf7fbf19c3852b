"""The rules of `accept` for clients, and the messages for rules that are wrong."""

from __future__ import annotations

import os

import pytest

from supervisor.definitions.service import NETWORK, Accept
from tests.unit.definitions.loading import Files
from tests.unit.definitions.test_notation import check_round_trip

TCP = 'tcp("127.0.0.1", 80)'
UNIX = 'stream("/s")'

GOOD: list[tuple[str, Accept]] = [
    ('rate = "50/s"', Accept(rate=(50, 1))),
    ('rate = " 10 / M ", burst = 3', Accept(rate=(10, 60), burst=3)),
    ('source_rate = "1/d", rate = false', Accept(source_rate=(1, 86400))),
    ('only_from = "10.0.0.0/8"', Accept(only_from=(("10.0.0.0/8", NETWORK),))),
    ('only_from = { "10.1.2.3/32", "10.1.2.3" }', Accept(only_from=(("10.1.2.3", NETWORK),))),
    ('no_access = { "2001:DB8:0::/32", "::1" }', Accept(no_access=(("2001:db8::/32", NETWORK), ("::1", NETWORK)))),
    ('only_from = { "0.0.0.0/0", "::/0" }', Accept(only_from=(("0.0.0.0/0", NETWORK), ("::/0", NETWORK)))),
    ("only_from = {}", Accept(only_from=())),
    ('hours = "08:00-18:00"', Accept(hours=tuple((day * 1440 + 480, day * 1440 + 1080) for day in range(7)))),
    ('hours = { "Sat 10:00-12:00" }', Accept(hours=((7800, 7920),))),
    ('hours = { "fri-mon 9:30 - 24:00" }', Accept(hours=((570, 1440), (6330, 7200), (7770, 8640), (9210, 10080)))),
    ('hours = "sun 22:00-06:00"', Accept(hours=((9960, 10440),))),
    ('hours = { "mon 00:00-24:00", "mon 00:00-24:00" }', Accept(hours=((0, 1440),))),
    ("load_max = 2.5", Accept(load_max=2.5)),
    ('load_max = false, memory_min = "64m"', Accept(memory_min=64 << 20)),
    ('banner = "/etc/x", banner_refused = "/etc/y"', Accept(banner="/etc/x", banner_refused="/etc/y")),
    ("defer_accept = true", Accept(defer_accept=60.0)),
    ('defer_accept = "5s", interface = false', Accept(defer_accept=5.0)),
    ('interface = "eth0.12"', Accept(interface="eth0.12")),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "expected"), GOOD, ids=[rules for rules, _ in GOOD])
def test_good_rules(files: Files, rules: str, expected: Accept) -> None:
    text = f'x = {{ exec = "/x", fd = {{ {TCP} }}, accept = {{ {rules} }} }}'
    assert files.load(text).services["x"].accept == expected
    check_round_trip(files, text)


def test_users_and_groups_are_clients_of_unix_sockets(files: Files) -> None:
    rules = 'only_from = { "root", "@daemon", 4711, "@4712" }, no_access = "@nobody"'
    text = f'x = {{ exec = "/x", fd = {{ {UNIX} }}, accept = {{ {rules} }} }}'
    accept = files.load(text).services["x"].accept
    assert accept is not None
    assert accept.only_from == (("root", 0), ("@daemon", 1), ("4711", 4711), ("@4712", 4712))
    assert accept.no_access == (("@nogroup", 65534),)
    check_round_trip(files, text)


BAD: list[tuple[str, str]] = [
    ('rate = "50/x"', "rate: '50/x' is not a rate (like \"50/s\", \"10/m\"; h and d are units, too)"),
    ('rate = "50/min"', "rate: '50/min' is not a rate, write '50/m'"),
    ("rate = 50", "rate: 50 is not a rate (like"),
    ('rate = "0/s"', "rate: '0/s' is out of range, from 1 to 1000000"),
    ("rate = true", "rate: true is not a rate"),
    ("burst = 3", "burst: goes with rate alone"),
    ("rate = false, burst = 3", "burst: goes with rate alone"),
    ('rate = "1/s", burst = 0', "burst: 0 is out of range"),
    ('source_rate = "1/month"', "source_rate: '1/month' is not a rate (like"),
    ('only_from = "www.example.com"', "only_from: 'www.example.com' is neither an address nor a network: write"),
    ('only_from = "www.example.com"', "write \"192.0.2.7\" or \"192.0.2.0/24\", as names are never looked up"),
    ('only_from = { "localhost" }', "only_from[1]: unknown user 'localhost'"),
    ('only_from = { "localhost" }', "hosts have addresses here, as names are never looked up"),
    ('only_from = { "10.0.0.1/8" }', "only_from[1]: '10.0.0.1/8' has bits behind its prefix, write '10.0.0.0/8' for"),
    ('only_from = { "10.0.0.1/8" }', "for the network, or '10.0.0.1' for the address"),
    ('only_from = { "10.0.0.0/33" }', "only_from[1]: '33' is not the length of a prefix, they go from 0 to 32"),
    ('only_from = { "10.0.0.0/255.0.0.0" }', "only_from[1]: '10.0.0.0/255.0.0.0' has a mask, write '10.0.0.0/8'"),
    ('only_from = { "10.0.0.0/" }', "only_from[1]: '' is not the length of a prefix"),
    ('only_from = { "0.0.0.0" }', "only_from[1]: '0.0.0.0' is no client's address, write '0.0.0.0/0' for all of them"),
    ('only_from = { "::ffff:10.0.0.0/104" }', "only_from[1]: an IPv4 client has an IPv4 address, write '10.0.0.0/8'"),
    ('only_from = { "fe80::1%eth0" }', "only_from[1]: 'fe80::1%eth0' has a scope: say by accept.interface"),
    ('only_from = { "192.168." }', "only_from[1]: '192.168.' is neither an address nor a network"),
    ("only_from = false", "only_from: has to be an address, a network, a user or an @group, not false"),
    ('only_from = { "root" }', "only_from[1]: 'root' is a user or a group, and no socket in fd is a Unix socket"),
    ('no_access = { "::1", "@root" }', "no_access[2]: '@root' is a user or a group, and no socket"),
    ('no_access = { "@nosuchgroup" }', "no_access[1]: unknown group 'nosuchgroup'"),
    ('hours = "8-18"', "hours: '8-18' are not hours (like \"08:00-18:00\", \"sat 10:00-12:00\")"),
    ('hours = { "25:00-26:00" }', "hours[1]: '25:00' is not a time of day"),
    ('hours = { "10:60-11:00" }', "hours[1]: '10:60' is not a time of day"),
    ('hours = { "24:00-06:00" }', "hours[1]: '24:00' is not a time of day; 24:00 is the last end"),
    ('hours = { "10:00-10:00" }', "hours[1]: '10:00-10:00' ends when it begins; a whole day is \"00:00-24:00\""),
    ('hours = { "saturday 10:00-12:00" }', "hours[1]: 'saturday' is not a day, write sat"),
    ('hours = { "xyz 10:00-12:00" }', "hours[1]: 'xyz' is not a day, they are mon, tue, wed, thu, fri, sat, sun"),
    ("hours = {}", "hours: has no entry, so nobody would ever be let in"),
    ("load_max = 0", "load_max: has to be a load average above 0, as uptime(1) shows it, not 0"),
    ('load_max = "2"', "load_max: has to be a load average above 0, as uptime(1) shows it, not '2'"),
    ("memory_min = 0", "memory_min: 0 is no limit; false means none"),
    ('memory_min = "10%"', "memory_min: '10%' is not a size"),
    ('banner = "issue"', "banner: 'issue' is not an absolute path"),
    ('banner_refused = "sorry"', "banner_refused: 'sorry' is not an absolute path"),
    ("deny_time = 60", "deny_time: goes with trap alone"),
    ("trap = false, deny_time = 60", "deny_time: goes with trap alone"),
    ('defer_accept = "1h"', "defer_accept: '1h' is out of range, from 1s to 10m"),
    ('interface = "eth0:1/x"', "interface: has to be the name of a network interface, like \"eth0\", not 'eth0:1/x'"),
    ("interface = 1", "interface: has to be the name of a network interface"),
    ("trap = true", "x: exec: does not go with accept.trap: a trap serves nobody"),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "message"), BAD, ids=[rules for rules, _ in BAD])
def test_bad_rules(files: Files, rules: str, message: str) -> None:
    problems = files.problems(f'x = {{ exec = "/x", fd = {{ {TCP} }}, accept = {{\n {rules} }} }}')
    assert any(message in problem for problem in problems), problems


ON_UNIX: list[tuple[str, str]] = [
    ("defer_accept = true", "defer_accept: is an option of TCP: the kernel cannot hold back clients of stream /s"),
    ('interface = "lo"', "interface: is about a network, and clients of stream /s come from this host"),
    ('only_from = { "root", "10.0.0.0/8" }', "only_from[2]: '10.0.0.0/8' is an address, and stream /s has users as"),
    ('no_access = { "nosuchuser" }', "no_access[1]: unknown user 'nosuchuser'"),
]


@pytest.mark.parametrize(("rules", "message"), ON_UNIX)
def test_rules_that_unix_sockets_cannot_have(files: Files, rules: str, message: str) -> None:
    problems = files.problems(f'x = {{ exec = "/x", fd = {{ {UNIX} }}, accept = {{ {rules} }} }}')
    assert any(message in problem for problem in problems), problems


def test_a_trap_needs_no_program(files: Files) -> None:
    service = files.load(f"x = {{ fd = {{ {TCP} }}, accept = {{ trap = true }} }}").services["x"]
    assert (service.exec, service.has_process, service.is_trap) == ("", True, True)
    assert service.accept == Accept(trap=True)
    forever = files.load(f"x = {{ fd = {{ {TCP} }}, accept = {{ trap = true, deny_time = false }} }}").services["x"]
    assert forever.accept == Accept(trap=True, deny_time=None)


@pytest.mark.parametrize("rule", ["max = 3", "banner = '/b'", "rate = '1/s'", "per_source = 1", "nodelay = true"])
def test_a_trap_has_no_sessions(files: Files, rule: str) -> None:
    [problem] = files.problems(f"x = {{ fd = {{ {TCP} }}, accept = {{ trap = true, {rule} }} }}")
    assert problem == f"a.lua:1: x: accept.{rule.split()[0]}: is about sessions, and a trap has none"


def test_a_trap_needs_addresses(files: Files) -> None:
    [problem] = files.problems(f"x = {{ fd = {{ {UNIX} }}, accept = {{ trap = true }} }}")
    assert problem == "a.lua:1: x: accept.trap: denies addresses, and clients of stream /s have none"


def notices(files: Files, text: str) -> list[str]:
    return [notice.replace(os.fspath(files.folder) + "/", "") for notice in files.load(text).notices]


@pytest.mark.parametrize(
    ("rule", "notice"),
    [
        ('only_from = "10.0.0.0/8"', "only_from lists networks alone, so no client of stream /s is let in"),
        ('only_from = "root"', 'lists users alone, so no TCP client is let in: "0.0.0.0/0" and "::/0" are all'),
        ('no_access = "10.0.0.0"', "'10.0.0.0' is one address; a network has a prefix, like '10.0.0.0/24'"),
    ],
)
def test_likely_mistakes_are_noted(files: Files, rule: str, notice: str) -> None:
    text = f'x = {{ exec = "/bin/true", fd = {{ {TCP}, {UNIX} }}, accept = {{ {rule} }} }}'
    assert f"a.lua:1: x: accept: {notice}" in notices(files, text)


def test_options_of_all_sockets(files: Files) -> None:
    own = 'tcp("127.0.0.1", 81, { interface = "eth1", defer_accept = 3 })'
    text = f'x = {{ exec = "/x", fd = {{ {TCP}, {own} }}, accept = {{ interface = "eth0", defer_accept = true }} }}'
    first, second = files.load(text).services["x"].fd
    assert (first.interface, first.defer_accept) == ("eth0", 60.0)
    assert (second.interface, second.defer_accept) == ("eth1", 3.0)
    check_round_trip(files, text)


def test_the_place_of_an_entry_is_told_where_it_is_known(files: Files) -> None:
    text = f'x = {{ exec = "/x", fd = {{ {TCP} }}, accept = {{\n only_from = {{ "10.0.0.0/99", "@daemon" }} }} }}'
    wrong, unfit = files.problems(text)
    assert "only_from[1]: '99' is not the length" in wrong
    assert "only_from: '@daemon' is a user or a group" in unfit


def test_the_bits_of_a_source_are_named(files: Files) -> None:
    rules = "per_source = { n = 3, v4 = 33, v6 = 129 }"
    first, second = files.problems(f'x = {{ exec = "/x", fd = {{ {TCP} }}, accept = {{ {rules} }} }}')
    assert "accept.per_source.v4: 33 is out of range, from 1 to 32" in first
    assert "accept.per_source.v6: 129 is out of range, from 1 to 128" in second


def test_defaults_of_others_do_not_hold_for_sessions(files: Files) -> None:
    default = '_DEFAULT = { stdout = log(), stderr = log(), kill_mode = "group", reload_signal = "HUP" }\n'
    both = f'other = {{ exec = "/x" }}\nx = {{ exec = "/x", fd = {{ {TCP} }}, accept = ACCEPT }}'
    services = files.load(default + both.replace("ACCEPT", "true")).services
    assert (services["other"].stdout.kind, services["other"].kill_mode) == ("log", "group")
    assert (services["x"].stdout.path, services["x"].stderr.kind) == ("/dev/null", "log")
    assert (services["x"].kill_mode, services["x"].reload_signal) == ("all", None)
    at_three = files.load(default + both.replace("ACCEPT", "{ descriptor = 3 }")).services["x"]
    assert at_three.stdout.kind == "log"
    [problem] = files.problems(f'x = {{ exec = "/x", fd = {{ {TCP} }}, accept = true, stdout = log() }}')
    assert "stdout: does not go with accept" in problem
