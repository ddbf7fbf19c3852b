"""`unix`: users and groups by name and number."""

from __future__ import annotations

import grp
import pwd

import pytest

from tests.unit.workers.lua.calls import failed, said


@pytest.mark.parametrize("key", ['"root"', "0", '"0"'])
def test_users(key: str) -> None:
    root = pwd.getpwuid(0)
    body = f'local u = unix.users[{key}] return table.concat({{ u.name, u.uid, u.gid, u.gecos, u.home, u.shell }}, "|")'
    assert said(body) == f"{root.pw_name}|0|0|{root.pw_gecos}|{root.pw_dir}|{root.pw_shell}"


def test_by_field() -> None:
    assert said("return unix.users.daemon.uid .. unix.groups.daemon.gid") == "11"


def test_groups() -> None:
    found = max(grp.getgrall(), key=lambda group: len(group.gr_mem))
    body = f"""
    local g = unix.groups["{found.gr_name}"]
    return g.name .. "|" .. g.gid .. "|" .. table.concat(g.members, ",")
    """
    assert said(body) == f"{found.gr_name}|{found.gr_gid}|{','.join(found.gr_mem)}"
    assert said("return unix.groups[0].name") == grp.getgrgid(0).gr_name


def test_who_is_not_there_is_nil() -> None:
    assert said('return unix.users["nobody-there"] == nil and unix.groups[4000000] == nil') == ""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return unix.users[{}]", "users: a name or a number expected, got table"),
        ("return unix.users[1.5]", "bad argument #1 to 'users' (an integer from 0"),
        ("unix.groups.x = 1", "groups is the database of this host, it cannot be changed"),
    ],
)
def test_wrong_calls(body: str, message: str) -> None:
    assert failed(body).startswith(message)
