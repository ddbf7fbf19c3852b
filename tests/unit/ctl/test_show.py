"""`show`: the definition in force, in its own notation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from supervisor.ctl.errors import ExitCode
from supervisor.definitions.notation.keys import SHOW
from supervisor.definitions.service import Descriptor, Service
from tests.unit.control.fake_core import FakeCore, FakeUnit

Spawnctl = Callable[..., int]
Supervise = Callable[..., None]
Capture = pytest.CaptureFixture[str]
SERVICE = Service(
    "netns@blue",
    file="/etc/spawnd/services.d/a.lua",
    line=3,
    lines={"exec": 4, "fd": 5, "env_file": 1},
    exec="/usr/sbin/x",
    env_file=("/etc/secret",),
    fd=tuple(Descriptor("tcp", "web", host="127.0.0.1", port=8000 + number) for number in range(2)),
)


@pytest.fixture
def shown(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> Callable[..., str]:
    def set_up(core: FakeCore) -> None:
        core.units["netns@blue"] = FakeUnit(SERVICE, 0)
        core.units["web"] = FakeUnit(replace(SERVICE, name="web", fd=()), 0)
        core.units["web"].next_service = replace(SERVICE, name="web", cwd="/srv", lines={"cwd": 9})

    supervise(set_up)

    def show(*arguments: str) -> str:
        assert spawnctl("show", *arguments) == ExitCode.DONE
        return capsys.readouterr().out

    return show


def test_the_keys_that_the_definition_has(shown: Callable[..., str]) -> None:
    assert shown("netns@blue").splitlines() == [
        '_G["netns@blue"] = {                             -- /etc/spawnd/services.d/a.lua:3',
        '  exec = "/usr/sbin/x",                          -- /etc/spawnd/services.d/a.lua:4',
        '  env_file = { "/etc/secret" },                  -- /etc/spawnd/services.d/a.lua:1',
        "  fd = {                                         -- /etc/spawnd/services.d/a.lua:5",
        '    tcp("127.0.0.1", 8000, { name = "web" }),',
        '    tcp("127.0.0.1", 8001, { name = "web" }),',
        "  },",
        "}",
    ]


def test_defaults(shown: Callable[..., str]) -> None:
    lines = shown("--all", "netns@blue").splitlines()
    assert '  stop_timeout = "10s",                          -- default' in lines
    assert len(lines) == len(SHOW) + len(["{", *SERVICE.fd, "},", "}"])


def test_a_changed_definition_that_waits(shown: Callable[..., str]) -> None:
    assert shown("web").splitlines()[4:] == [
        "}",
        "",
        "-- a changed definition waits until the present process is gone:",
        '--   cwd = "/srv",                                  -- /etc/spawnd/services.d/a.lua:9',
        "--   fd = {                                         -- default",
        '--     tcp("127.0.0.1", 8000, { name = "web" }),',
        '--     tcp("127.0.0.1", 8001, { name = "web" }),',
        "--   },",
    ]


def test_json(shown: Callable[..., str]) -> None:
    reply = json.loads(shown("netns@blue", "--json"))
    assert [setting["key"] for setting in reply["settings"]] == ["exec", "env_file", "fd"]
    assert reply["settings"][0] == {
        "key": "exec",
        "value": '"/usr/sbin/x"',
        "file": "/etc/spawnd/services.d/a.lua",
        "line": 4,
    }
    assert len(json.loads(shown("netns@blue", "--json", "-a"))["settings"]) == len(SHOW)


def test_what_is_built_in(shown: Callable[..., str]) -> None:
    lines = shown("log").splitlines()
    assert lines[0] == "log = {                                          -- built in"
    assert '  cwd = "/",                                     -- default' in lines


def test_a_module(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    def set_up(core: FakeCore) -> None:
        lines = {"cwd": 4, "start()": 5, "stop()": 8}
        service = Service("net", file="/a.lua", line=3, lines=lines, cwd="/srv", functions=("start", "stop"))
        core.units["net"] = FakeUnit(service, 0)

    supervise(set_up)
    assert spawnctl("show", "net") == ExitCode.DONE
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == [
        'module("net", package.seeall) -- /a.lua:3',
        'cwd = "/srv" -- /a.lua:4',
        "function start() … end -- /a.lua:5",
        "function stop() … end -- /a.lua:8",
    ]
