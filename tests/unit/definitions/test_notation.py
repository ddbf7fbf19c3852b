"""Services written down again: what is shown can be read, and means the same."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.definitions import scalars
from supervisor.definitions.convert.descriptor import OPTIONS
from supervisor.definitions.notation import keys as notation
from supervisor.definitions.notation import lua
from supervisor.definitions.notation.keys import SHOW
from supervisor.definitions.notation.quantity import SIZE_LIMITS, duration, limit, resource, size
from supervisor.definitions.scalars import LIMIT_UNITS
from supervisor.definitions.service import KEYS, Descriptor, Service
from tests.unit.definitions.loading import Files
from tests.unit.definitions.test_report import FULL

DOCUMENTATION = (Path(__file__).parents[3] / "docs" / "definitions.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```lua\n(.*?)```", DOCUMENTATION, re.S)
DESCRIPTORS = """
x = {
  exec = "/x", netns = "blue", umask = "027", cpu_affinity = { 0, 1, 2, 5, 8, 9 }, start_limit = 3, nice = 0,
  arg = { "a b", 'q"\\\\', "\\n\\t\\27", "\\0651", "größe \\226\\128\\168", 1.5 },
  env = { ["a-b"] = "", ["end"] = "x", A = "1" },
  fd = {
    tcp("*", 80, { name = "web", backlog = 7, nodelay = true, reuseport = true, mark = 4294967295 }),
    tcp("::1", 81, { v6only = true, netns = false, freebind = true, transparent = true }),
    udp("127.0.0.1", "tftp", { sndbuf = "64k", rcvbuf = 1000, netns = "red" }),
    stream("/run/x/s", { mode = "rw-rw----", owner = "root", group = 0, passcred = true }),
    stream("@abstract"), dgram("/run/d", 'connect'), seqpacket("/run/a:b"), dgram("@c", 'connect', { netns = false }),
    file("/etc/x", "r+"), file("/"), file("/var/log/x", "a", { mode = "600", name = "log file" }),
  },
  stdin = stream("/run/in", 'connect'), stderr = file("/var/log/e", "w"),
  limits = { cpu = "5m", data = "5m", rttime = 0.0015, core = 0,
             nofile = { soft = 64, hard = "unlimited" }, nice = 3 },
  memory_max = "512m", memory_high = 5, memory_swap_max = "unlimited", cpu_max = "33.333%", pids_max = "unlimited",
  cpu_weight = 7, io_weight = 10000, stop_signal = 34, reload_signal = "RTMAX", restart_signal = "RTMIN+3",
  healthy_after = 0.0625, backoff = { first = "1ms", factor = 1.5, max = "1d", jitter = 0 }, start_timeout = "90m",
  stop_timeout = 0, watchdog = "1.234567s", capabilities = { keep = {} }, env_file = { "/a", "/b" },
}
"""


def written(service: Service) -> str:
    """A file that defines it, with every key."""
    keys = "".join(f"  {key} = {show(service)},\n" for key, show in SHOW.items())
    return f"_G[{lua.string(service.name)}] = {{\n{keys}}}\n"


def check_round_trip(files: Files, text: str) -> None:
    before = files.load(text).services
    assert before
    after = files.load("".join(map(written, before.values()))).services
    for name, service in before.items():
        assert replace(after[name], file=service.file, line=service.line) == service


# a module is shown with the places of its functions, which nobody could read back
WITHOUT_FUNCTIONS = [text for text in EXAMPLES if "_SUPERVISOR" not in text and "module(" not in text]


@pytest.mark.parametrize("text", [FULL, DESCRIPTORS, *WITHOUT_FUNCTIONS])
def test_what_is_shown_means_the_same(files: Files, text: str) -> None:
    check_round_trip(files, text)


def test_every_key_and_every_option_is_shown() -> None:
    assert list(SHOW) == list(KEYS)
    assert {*notation.OPTIONS, "name", "netns"} == OPTIONS.keys()
    assert SIZE_LIMITS == {name for name, unit in LIMIT_UNITS.items() if unit is scalars.size}


def test_the_control_socket_is_no_part_of_the_definition() -> None:
    own = Descriptor("tcp", "80", host="::1", port=80)
    added = Descriptor("stream", "control", path="/run/spawnd/control.d/x", mode=0o600)
    assert SHOW["fd"](Service("x", control=True, fd=(own, added))) == '{ tcp("::1", 80) }'
    assert SHOW["fd"](Service("x", fd=(replace(own, name="control"),))) == '{ tcp("::1", 80, { name = "control" }) }'


def test_what_a_worker_has_by_default_is_no_file() -> None:
    assert SHOW["stdout"](Service("x", worker="reaper")) == "nil"
    assert SHOW["stdout"](Service("x", worker="reaper", lines={"stdout": 3})) == 'file("/dev/null", "w")'
    assert SHOW["stdin"](Service("x", worker="reaper")) == 'file("/dev/null", "r")'
    assert SHOW["options"](Service("x", worker="reaper")) == "{}"
    assert SHOW["options"](Service("x", exec="/x")) == "nil"


def test_only_keys_that_count_have_a_line(files: Files) -> None:
    text = '_DEFAULT = { worker = "accessory",\n options = { a = 1 },\n cwd = "/srv" }\nx = { exec = "/x" }'
    assert files.load(text).services["x"].lines == {"cwd": 3, "exec": 4}


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (1, "1"), (1000, "1000"), (1024, '"1k"'), (64 << 10, '"64k"'), (3 << 40, '"3t"'), (1 << 50, '"1024t"')],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, '"0s"'),
        (0.001, '"1ms"'),
        (0.1, '"100ms"'),
        (1.0, '"1s"'),
        (1.5, '"1.5s"'),
        (90.0, '"90s"'),
        (60.0, '"1m"'),
        (5400.0, '"90m"'),
        (7200.0, '"2h"'),
        (172800.0, '"2d"'),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e-9, "1e-09"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(0, scalars.LONGEST_S) | st.integers(0, 10**7).map(lambda ms: ms / 1000))
def test_durations_are_exact(seconds: float) -> None:
    text = duration(seconds)
    assert scalars.duration(text.strip('"') if text.startswith('"') else float(text)) == seconds


@given(st.integers(0, scalars.LARGEST))
def test_sizes_are_exact(count: int) -> None:
    text = size(count)
    assert scalars.size(text.strip('"') if text.startswith('"') else int(text)) == count


@pytest.mark.parametrize(
    ("name", "values", "text"),
    [
        ("cpu", (300, 300), '"5m"'),
        ("data", (5 << 20, 5 << 20), '"5m"'),
        ("nofile", (64, -1), '{ soft = 64, hard = "unlimited" }'),
        ("rttime", (1500, 2_000_000), '{ soft = "0.0015s", hard = "2s" }'),
        ("core", (-1, -1), '"unlimited"'),
    ],
)
def test_limits(name: str, values: tuple[int, int], text: str) -> None:
    assert limit(name, values) == text


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("memory_max", None, "nil"),
        ("memory_max", "max", '"unlimited"'),
        ("memory_high", "65536", '"64k"'),
        ("cpu_max", "150000 100000", '"150%"'),
        ("cpu_max", "1333 100000", '"1.333%"'),
        ("cpu_max", "max 100000", '"unlimited"'),
        ("pids_max", "1024", "1024"),
        ("cpu_weight", "100", "100"),
    ],
)
def test_resources(key: str, value: str | None, text: str) -> None:
    assert resource(key, value) == text


@pytest.mark.parametrize("number", [*range(1, 32), *range(34, 65)])
def test_signals(number: int) -> None:
    assert scalars.signal_number(scalars.signal_name(number)) == number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", '""'),
        ('a"b\\', '"a\\"b\\\\"'),
        ("a\nb", '"a\\nb"'),
        ("\x1b[0m\x7f", '"\\027[0m\\127"'),
        ("ü\u202e", '"ü\\226\\128\\174"'),
    ],
)
def test_strings(value: str, text: str) -> None:
    assert lua.string(value) == text


def test_tables() -> None:
    assert lua.data({"a": [1, 2.5, True, "x"], "end": {}, "b-c": 1e300}) == (
        '{ a = { 1, 2.5, true, "x" }, ["end"] = {}, ["b-c"] = 1e+300 }'
    )
    long = ["x" * 40, "y" * 40]
    assert lua.strings(long) == f'{{\n  "{long[0]}",\n  "{long[1]}",\n}}'
    assert lua.data({"a": long}) == f'{{\n  a = {{\n    "{long[0]}",\n    "{long[1]}",\n  }},\n}}'
