"""In which network namespace a socket of a service is made."""

from __future__ import annotations

import pytest

from tests.unit.definitions.loading import Files


@pytest.mark.parametrize(
    ("call", "netns"),
    [
        ('udp("127.0.0.1", 7995)', "x"),
        ('tcp("127.0.0.1", 7995)', "x"),
        ('stream("@a")', "x"),
        ('dgram("@a", "connect")', "x"),
        ('tcp("127.0.0.1", 7995, { netns = "y" })', "y"),
        ('tcp("127.0.0.1", 7995, { netns = false })', None),
        ('stream("@a", { netns = false })', None),
        ('stream("/a")', None),
        ('seqpacket("/a", "connect")', None),
        ('file("/a", "w")', None),
    ],
)
def test_of_a_service_that_has_one(files: Files, call: str, netns: str | None) -> None:
    service = files.load(f'a = {{ exec = "/a", netns = "x", fd = {{ {call} }} }}').services["a"]
    assert [descriptor.netns for descriptor in service.fd] == [netns]


@pytest.mark.parametrize("slot", ["stdin", "stdout", "stderr"])
def test_of_the_standard_descriptors(files: Files, slot: str) -> None:
    call = "file('/a', 'r+')" if slot == "stdin" else "log()"
    text = 'a = {{ exec = "/a", netns = "x", {} = {} }}'
    assert getattr(files.load(text.format(slot, 'tcp("127.0.0.1", 1)')).services["a"], slot).netns == "x"
    assert getattr(files.load(text.format(slot, call)).services["a"], slot).netns is None


@pytest.mark.parametrize("option", ["", ", { netns = false }"])
def test_of_a_service_that_has_none(files: Files, option: str) -> None:
    service = files.load(f'a = {{ exec = "/a", fd = {{ udp("127.0.0.1", 7995{option}) }} }}').services["a"]
    assert service.fd[0].netns is None


def test_a_default_descriptor_is_made_where_each_service_is(files: Files) -> None:
    calls = 'udp("127.0.0.1", 1), udp("127.0.0.1", 2, { netns = "y", reuseport = true })'
    text = f'_DEFAULT = {{ exec = "/a", fd = {{ {calls} }} }}'
    services = files.load(f'{text}\na = {{ netns = "x" }}\nb = {{}}').services
    found = {name: [descriptor.netns for descriptor in service.fd] for name, service in services.items()}
    assert found == {"a": ["x", "y"], "b": [None, "y"]}


def test_a_default_namespace(files: Files) -> None:
    text = '_DEFAULT = { netns = "x" }\na = { exec = "/a", fd = { udp("127.0.0.1", 1) } }'
    assert files.load(text).services["a"].fd[0].netns == "x"
