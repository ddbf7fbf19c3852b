"""Every constructor with its options."""

from __future__ import annotations

import os
from typing import Any

import pytest

from supervisor.definitions.convert.descriptor import OPTIONS
from supervisor.definitions.service import Descriptor
from tests.unit.definitions.loading import Files


def D(kind: Any, name: str, **parts: Any) -> Descriptor:
    return Descriptor(kind, name=name, **parts)


GOOD = [
    ('file("/a/b")', D("file", "b", path="/a/b", access="r")),
    ('file("/a/b", "rb")', D("file", "b", path="/a/b", access="r")),
    ('file("/a/b", "a+")', D("file", "b", path="/a/b", access="a+")),
    ('file("/a:b")', D("file", "a_b", path="/a:b", access="r")),
    ('file("/a\\nb")', D("file", "a_b", path="/a\nb", access="r")),
    ('file("/")', D("file", "", path="/", access="r")),
    ('file("/a", "w", { mode = "640", owner = "root", group = 4, name = "n" })',
     D("file", "n", path="/a", access="w", mode=0o640, owner=0, group=4)),
    ('udp("127.0.0.1", 69)', D("udp", "69", host="127.0.0.1", port=69)),
    ('udp("127.0.0.1", "69")', D("udp", "69", host="127.0.0.1", port=69)),
    ('udp("::1", "tftp")', D("udp", "tftp", host="::1", port=69)),
    ('udp("0:0:0:0:0:0:0:1", 0)', D("udp", "0", host="::1", port=0)),
    ('udp("127.0.0.1", "qotd")', D("udp", "qotd", host="127.0.0.1", port=17)),
    ('udp("127.0.0.1", ports.qotd)', D("udp", "qotd", host="127.0.0.1", port=17)),
    ('udp("127.0.0.1", ports[17])', D("udp", "17", host="127.0.0.1", port=17)),
    ('tcp("127.0.0.1", "tftp")', D("tcp", "tftp", host="127.0.0.1", port=69)),
    ('tcp("fe80::1%lo", 1)', D("tcp", "1", host="fe80::1%lo", port=1)),
    ('tcp("::1", 1, { interface = "eth0", defer_accept = "5s" })',
     D("tcp", "1", host="::1", port=1, interface="eth0", defer_accept=5.0)),
    ('tcp("::", 1, { v6only = true, backlog = 5, nodelay = true, reuseport = true, freebind = true })',
     D("tcp", "1", host="::", port=1, v6only=True, backlog=5, nodelay=True, reuseport=True, freebind=True)),
    ('udp("127.0.0.1", 1, { transparent = true, mark = 4294967295, sndbuf = "64k", rcvbuf = 1, netns = "blue" })',
     D("udp", "1", host="127.0.0.1", port=1, transparent=True, mark=2**32 - 1, sndbuf=65536, rcvbuf=1, netns="blue")),
    ('tcp("127.0.0.1", 1, { netns = false })', D("tcp", "1", host="127.0.0.1", port=1)),
    ('tcp("127.0.0.1", 1, {})', D("tcp", "1", host="127.0.0.1", port=1)),
    ('stream("/run/x.sock")', D("stream", "x.sock", path="/run/x.sock")),
    ('stream("@x")', D("stream", "x", path="@x")),
    ('dgram("/dev/log", "connect")', D("dgram", "log", path="/dev/log", connect=True)),
    ('seqpacket("/x", "connect", { passcred = true, sndbuf = 9 })',
     D("seqpacket", "x", path="/x", connect=True, passcred=True, sndbuf=9)),
    ('stream("/x", { backlog = 1, mode = "rw-rw----", owner = 0, group = "root", passcred = true })',
     D("stream", "x", path="/x", backlog=1, mode=0o660, owner=0, group=0, passcred=True)),
    ('dgram("@x", { netns = "blue" })', D("dgram", "x", path="@x", netns="blue")),
    (f'stream("/{"a" * 106}")', D("stream", "a" * 106, path="/" + "a" * 106)),
]  # fmt: skip

BAD = [
    ("3", "has to be made by a constructor"),
    ('"udp"', 'has to be made by a constructor, like udp("0.0.0.0", 69) or file("/a", "r"), not \'udp\''),
    ("ports.qotd", "has to be made by a constructor"),
    ('udp("127.0.0.1", "²")', "udp: unknown port '²'"),
    ('udp("127.0.0.1", "a\\0b")', "udp: 'a\\x00b' holds a NUL character"),
    ('udp("127.0.0.1", ports["a\\0b"])', "udp: 'a\\x00b' holds a NUL character"),
    ('udp("a\\0b", 1)', "udp: 'a\\x00b' holds a NUL character"),
    ('tcp("fe80::1%a/b", 1)', "tcp: 'fe80::1%a/b' is not an address"),
    ("file()", "file: it is called as file(path, mode), with a table of options after that, not with 0 arguments"),
    ('file("a")', "file: 'a' is not an absolute path"),
    ("file(3)", "file: has to be text, not 3"),
    ('file("/a", "x")', "file: 'x' is not a mode, they are r, r+, w, w+, a, a+"),
    ('file("/a", "r", "b")', "file: it is called as file(path, mode)"),
    ('file("/a", { backlog = 3 })', "backlog: this option is for seqpacket, stream, tcp, not for file"),
    ('file("/a", "r", { mode = "600" })', "mode: for a file that is created, not for one opened with 'r'"),
    ('file("/a", "w", { mode = 600 })', "mode: 600 is a number, which Lua reads as decimal"),
    ('udp("127.0.0.1")', "udp: it is called as udp(host, port), with a table of options after that"),
    ('udp("127.0.0.1", 69, "connect")', "udp: it is called as udp(host, port)"),
    ("udp(1, 69)", "udp: the host has to be text"),
    ('udp("", 69)', "udp: '' is not an address"),
    ('udp("127.0.0.1", -1)', "udp: unknown port '-1'"),
    ('udp("127.0.0.1", 65536)', "udp: '65536' is not a port"),
    ('udp("127.0.0.1", 1.5)', "udp: the port has to be a number or a name of the services database, not 1.5"),
    ('udp("127.0.0.1", "tftpp")', "udp: unknown port 'tftpp': the services database has none of that name, did you"),
    ('udp("127.0.0.1", ports.tftpp)', "udp: unknown port 'tftpp'"),
    ('udp("127.0.0.1", 1, { backlog = 3 })', "backlog: this option is for seqpacket, stream, tcp, not for udp"),
    ('udp("127.0.0.1", 1, { passcred = true })', "passcred: this option is for dgram, seqpacket, stream, not for udp"),
    ('udp("127.0.0.1", 1, { v6only = true })', "v6only: for an IPv6 address"),
    ('udp("127.0.0.1", 1, { mark = -1 })', "mark: -1 is out of range"),
    ('udp("127.0.0.1", 1, { sndbuf = 0 })', "sndbuf: 0 is out of range"),
    ('udp("127.0.0.1", 1, { rcvbuf = "2g" })', "rcvbuf: '2g' is out of range"),
    ('udp("127.0.0.1", 1, { name = "a:b" })', "name: 'a:b' is not a name"),
    ('udp("127.0.0.1", 1, { name = "" })', "name: '' is not a name"),
    ('udp("127.0.0.1", 1, { netns = "a/b" })', "netns: 'a/b' is not a name"),
    ('udp("127.0.0.1", 1, { reuseprot = true })', "reuseprot: unknown option, did you mean 'reuseport'?"),
    ('udp("127.0.0.1", 1, { "reuseport" })', "udp: it is called as udp(host, port)"),
    ('udp("127.0.0.1", 1, { defer_accept = true })', "defer_accept: this option is for tcp, not for udp"),
    ('tcp("127.0.0.1", 1, { interface = true })', "interface: has to be the name of a network interface"),
    ('tcp("127.0.0.1", 1, { nodelay = 1 })', "nodelay: has to be true or false, not 1"),
    ('tcp("127.0.0.1", 1, { backlog = 0 })', "backlog: 0 is out of range"),
    ('tcp("127.0.0.1", 1, { mode = "600" })', "mode: this option is for dgram, file, seqpacket, stream, not for tcp"),
    ('stream("x")', "stream: 'x' is neither an absolute path nor an abstract name"),
    ('stream("@")', "stream: '@' is neither an absolute path nor an abstract name"),
    (f'stream("/{"a" * 107}")', "is longer than the 107 bytes"),
    (f'stream("/{"ä" * 54}")', "is longer than the 107 bytes"),
    ('stream("/x", "conect")', "stream: 'conect' is not 'connect', did you mean 'connect'?"),
    (
        'stream("/x", "connect", { backlog = 3 })',
        "backlog: this option is for seqpacket, stream, tcp, not for connected",
    ),
    ('stream("/x", "connect", { mode = "600" })', "not for connected stream"),
    ('dgram("/x", { backlog = 3 })', "backlog: this option is for seqpacket, stream, tcp, not for dgram"),
    ('dgram("@x", { mode = "600" })', "mode: an abstract socket is not a file"),
    ('dgram("/x", { netns = "blue" })', "netns: a socket with a path is the same in every network namespace"),
    ('dgram("/x", { owner = "rooot" })', "owner: unknown user 'rooot', did you mean 'root'?"),
    ('dgram("/x", { group = "rooot" })', "group: unknown group 'rooot'"),
    ("log()", "log() is for stdout and stderr alone"),
]


@pytest.mark.parametrize(("call", "found"), GOOD, ids=[call for call, _ in GOOD])
def test_good(files: Files, call: str, found: Descriptor) -> None:
    assert files.service(f"fd = {{ {call} }}").fd == (found,)


@pytest.mark.parametrize(("call", "message"), BAD, ids=[call for call, _ in BAD])
def test_bad(files: Files, call: str, message: str) -> None:
    problems = files.problems(f'x = {{ exec = "/bin/x",\n fd = {{\n {call} }} }}')
    assert len(problems) == 1
    assert problems[0].startswith("a.lua:3: x: fd[1]"), problems
    assert message in problems[0]


def test_every_option_is_tested() -> None:
    for option in OPTIONS:
        assert any(option in call for call, _ in GOOD)
        assert any(option in call for call, _ in BAD) or option in ("freebind", "transparent")


def test_any_of_them_is_a_standard_stream(files: Files) -> None:
    service = files.service('stdin = tcp("127.0.0.1", 1), stdout = log(), stderr = dgram("/dev/log", "connect")')
    assert service.stdin == Descriptor("tcp", name="stdin", host="127.0.0.1", port=1)
    assert service.stdout == Descriptor("log", name="stdout")
    assert service.stderr == Descriptor("dgram", name="stderr", path="/dev/log", connect=True)


def test_log_is_no_stdin_and_has_no_arguments(files: Files) -> None:
    assert "log() takes no arguments" in files.problems('x = { exec = "/x", stdout = log(3) }')[0]
    assert "log() is for stdout and stderr alone" in files.problems('x = { exec = "/x", stdin = log() }')[0]
    assert "this option is for" in files.problems('x = { exec = "/x", stdout = log({ mark = 3 }) }')[0]


def test_one_call_for_several_services(files: Files) -> None:
    text = 'local null = file("/dev/zero")\nx = { exec = "/x", fd = { null, null } }\ny = { exec = "/x", stdin = null }'
    services = files.load(text).services
    assert [entry.path for entry in services["x"].fd] == ["/dev/zero", "/dev/zero"]
    assert services["y"].stdin.path == "/dev/zero"


def test_every_address(files: Files) -> None:
    (found,) = files.service('fd = { tcp("*", 1) }').fd
    assert (found.host, found.v6only) in (("::", False), ("0.0.0.0", None))


def test_unknown_owner_without_root_is_noted(files: Files) -> None:
    definitions = files.load('x = { exec = "/x", fd = { stream("/x", { owner = "no-such-user" }) } }', root=False)
    assert definitions.services["x"].fd[0].owner is None
    assert "unknown user 'no-such-user'" in definitions.notices[0]
    assert definitions.services["x"].uid == os.geteuid()
