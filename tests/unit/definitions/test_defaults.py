"""`_DEFAULT` and `_SUPERVISOR`."""

from __future__ import annotations

import grp

import pytest

from supervisor.definitions.service import Settings
from tests.unit.definitions.loading import Files, load_paths

SERVICE = 'x = { exec = "/x", env = { B = 1 } }\n'


def test_a_default_holds_for_keys_that_a_service_has_not(files: Files) -> None:
    text = '_DEFAULT = { cwd = "/srv", nice = 3, env = { A = 1 }, memory_max = 1, cpu_weight = 5 }\n'
    text += f"{SERVICE}y = {{ exec = '/y', cwd = '/', cpu_weight = 6 }}"
    services = files.load(text).services
    assert (services["x"].cwd, services["x"].nice, services["x"].env) == ("/srv", 3, {"B": "1"})
    assert (services["y"].cwd, services["y"].nice, services["y"].env) == ("/", 3, {"A": "1"})
    assert services["y"].resources == {"memory_max": "1", "cpu_weight": "6"}
    assert services["y"].lines == {"exec": 3, "cwd": 3, "cpu_weight": 3, "nice": 1, "env": 1, "memory_max": 1}


def test_a_default_holds_for_its_file_alone(files: Files) -> None:
    files.write(f'_DEFAULT = {{ cwd = "/srv" }}\n{SERVICE}', "a.lua")
    files.write('y = { exec = "/y" }', "b.lua")
    services = load_paths(files.folder).services
    assert (services["x"].cwd, services["y"].cwd) == ("/srv", "/")


def test_a_default_may_come_last(files: Files) -> None:
    assert files.load(f'{SERVICE}_DEFAULT = {{ cwd = "/srv" }}').services["x"].cwd == "/srv"


def test_a_bad_default_is_one_problem(files: Files) -> None:
    problems = files.problems(f'_DEFAULT = {{ nice = 99, foo = 1 }}\n{SERVICE}y = {{ exec = "/y" }}')
    assert problems == [
        "a.lua:1: _DEFAULT: unknown key 'foo'",
        "a.lua:1: _DEFAULT: nice: 99 is out of range, from -20 to 19",
    ]


def test_own_program_replaces_the_default_one(files: Files) -> None:
    text = '_DEFAULT = { worker = "accessory", options = { a = 1 } }\n'
    text += 'x = { exec = "/x" }\ny = {}\nz = { worker = "accessory" }'
    services = files.load(text).services
    assert (services["x"].exec, services["x"].worker, services["x"].options) == ("/x", "", {})
    assert (services["y"].worker, services["y"].options) == ("accessory", {"a": 1})
    assert services["z"].options == {"a": 1}


def test_settings(files: Files) -> None:
    group = grp.getgrgid(0).gr_name
    text = f'_SUPERVISOR = {{ control_group = "{group}", log_level = "debug", cgroup = "/spawn" }}'
    assert files.load(text).settings == Settings(control_group=0, log_level="debug", cgroup="/spawn")
    assert files.load(SERVICE).settings == Settings()


def test_settings_of_two_files(files: Files) -> None:
    files.write('_SUPERVISOR = { log_level = "debug" }', "a.lua")
    files.write('_SUPERVISOR = { log_level = "debug", cgroup = "/x" }', "b.lua")
    assert load_paths(files.folder).settings == Settings(log_level="debug", cgroup="/x")
    files.write('_SUPERVISOR = { log_level = "err" }', "c.lua")
    problems = files.problems_of(lambda: load_paths(files.folder))
    assert problems == [f"c.lua:1: _SUPERVISOR: log_level: has another value at {files.folder}/a.lua:1".replace(f"{files.folder}/", "")]  # fmt: skip  # noqa: E501


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            'log_level = "inf"',
            "log_level: 'inf' is not 'debug' or 'info' or 'notice' or 'warning' or 'err', did you mean",
        ),
        ('control_group = "no-such-group"', "control_group: unknown group 'no-such-group'"),
        ('cgroup = "x"', "cgroup: 'x' is not an absolute path"),
        ('cgroup = "/../x"', "cgroup: '/../x' leads out of the cgroup file system"),
        ("contol_group = 0", "contol_group: unknown setting, did you mean 'control_group'?"),
    ],
)
def test_bad_settings(files: Files, setting: str, message: str) -> None:
    (problem,) = files.problems(f"_SUPERVISOR = {{\n{setting} }}")
    assert problem.startswith(f"a.lua:2: _SUPERVISOR: {message}")
