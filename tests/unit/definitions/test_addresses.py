"""One address for one socket."""

from __future__ import annotations

import pytest

from tests.unit.definitions.loading import Files

FREE = [
    ('tcp("127.0.0.1", 1)', 'udp("127.0.0.1", 1)'),
    ('tcp("127.0.0.1", 1)', 'tcp("127.0.0.1", 2)'),
    ('tcp("127.0.0.1", 1)', 'tcp("127.0.0.2", 1)'),
    ('tcp("127.0.0.1", 0)', 'tcp("127.0.0.1", 0)'),
    ('tcp("0.0.0.0", 1)', 'tcp("::1", 1)'),
    ('tcp("0.0.0.0", 1)', 'tcp("::", 1, { v6only = true })'),
    ('tcp("127.0.0.1", 1, { reuseport = true })', 'tcp("127.0.0.1", 1, { reuseport = true })'),
    ('udp("*", 1, { interface = "eth0" })', 'udp("*", 1, { interface = "eth1" })'),
    ('tcp("127.0.0.1", 1, { netns = "a" })', 'tcp("127.0.0.1", 1, { netns = "b" })'),
    ('stream("@x", { netns = "a" })', 'stream("@x")'),
    ('stream("/x")', 'stream("/x", "connect")'),
    ('file("/x")', 'file("/x")'),
]
TAKEN = [
    ('tcp("127.0.0.1", 1)', 'tcp("127.0.0.1", 1)', "tcp 127.0.0.1:1 is taken by 'a' at a.lua:1; reuseport = true"),
    ('tcp("0.0.0.0", 1)', 'tcp("127.0.0.1", 1)', "is taken by 'a' at a.lua:1, which has tcp 0.0.0.0:1; reuseport"),
    ('udp("::1", 1)', 'udp("::", 1)', "udp [::]:1 is taken by 'a' at a.lua:1, which has udp [::1]:1"),
    ('udp("::", 1)', 'udp("127.0.0.1", 1)', "udp 127.0.0.1:1 is taken"),
    ('tcp("127.0.0.1", 1, { reuseport = true })', 'tcp("127.0.0.1", 1)', "is taken"),
    ('tcp("127.0.0.1", 1, { interface = "eth0" })', 'tcp("127.0.0.1", 1)', "is taken"),
    ('tcp("::1", 1, { interface = "eth0" })', 'tcp("::1", 1, { interface = "eth0" })', "is taken"),
    ('udp("127.0.0.1", "tftp")', 'udp("127.0.0.1", 69)', "udp 127.0.0.1:69 is taken by 'a'"),
    ('stream("/x")', 'stream("/x")', "'/x' is taken by 'a' at a.lua:1"),
    ('stream("/x")', 'dgram("/x")', "'/x' is taken by 'a' at a.lua:1"),
    ('stream("@x")', 'stream("@x")', "'@x' is taken by 'a' at a.lua:1"),
]


def both(one: str, other: str, more: str = "") -> str:
    return f'a = {{ exec = "/x", fd = {{ {one} }} }}\nb = {{ exec = "/x", fd = {{ {other} }}, {more} }}'


@pytest.mark.parametrize(("one", "other"), FREE)
def test_free(files: Files, one: str, other: str) -> None:
    assert len(files.load(both(one, other)).services) == 2


@pytest.mark.parametrize(("one", "other", "message"), TAKEN)
def test_taken(files: Files, one: str, other: str, message: str) -> None:
    (problem,) = files.problems(both(one, other))
    assert problem.startswith("a.lua:2: b: fd[1]: ")
    assert message in problem


def test_services_in_other_namespaces(files: Files) -> None:
    call = 'tcp("127.0.0.1", 1)'
    assert files.load(both(call, call, 'netns = "blue"')).services
    assert files.problems(both(call, 'tcp("127.0.0.1", 1, { netns = false })', 'netns = "blue"'))


def test_services_that_are_never_up_together(files: Files) -> None:
    call = 'tcp("127.0.0.1", 1)'
    assert files.load(both(call, call, 'conflicts = "a"')).services


def test_within_one_service(files: Files) -> None:
    (problem,) = files.problems('x = { exec = "/x", stdin = udp("127.0.0.1", 1),\nfd = { udp("127.0.0.1", 1) } }')
    assert problem.startswith("a.lua:2: x: fd[1]: udp 127.0.0.1:1 is taken by this service at a.lua:1")
