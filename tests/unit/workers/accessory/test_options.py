from __future__ import annotations

import grp
import logging
import pwd
from typing import Any

import pytest

from supervisor.log.logger import log
from workers.accessory.id_map import Ids
from workers.accessory.options import Allowance, Options, Quota, parse_options
from workers.accessory.protocol import OptionsError

NOBODY = pwd.getpwnam("nobody").pw_uid
DAEMONS = grp.getgrnam("daemon").gr_gid


def test_the_defaults() -> None:
    assert parse_options({}) == Options({0: Allowance(any=True)}, {}, 60.0, Quota())


def test_all_of_it() -> None:
    options = parse_options(
        {
            "allow": {"root": "any", "nobody": ["100-199", "7"], "@daemon": "own"},
            "expiry": "2m",
            "quota": {"names": 5, "connections": 0},
        }
    )
    assert options.users == {0: Allowance(any=True), NOBODY: Allowance(ids=(Ids(100, 199), Ids(7, 7)))}
    assert options.groups == {DAEMONS: Allowance(own=True)}
    assert (options.expiry, options.quota) == (120.0, Quota(names=5, connections=0))


def test_nobody_may_is_possible_too() -> None:
    assert parse_options({"allow": []}).users == {}  # an empty table of Lua


def test_who_does_not_exist_is_skipped_with_a_notice(caplog: pytest.LogCaptureFixture) -> None:
    propagated, log.propagate = log.propagate, True
    try:
        with caplog.at_level(logging.DEBUG, logger=log.name):
            options = parse_options({"allow": {"no-such-user": "any", "@no-such-group": "own", "nobody": "1-2"}})
    finally:
        log.propagate = propagated
    assert options.users == {NOBODY: Allowance(ids=(Ids(1, 2),))}
    assert [record.levelname for record in caplog.records] == ["NOTICE", "NOTICE"]
    assert "no such group" in caplog.text


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("1.5s", 1.5), (90, 90.0), ("1h", 3600.0), ("1d", 86400.0)]
)
def test_expiry(text: Any, seconds: float) -> None:
    assert parse_options({"expiry": text}).expiry == seconds


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"alow": {}}, "options.alow: unknown"),
        ({"allow": "root"}, "options.allow: not a table"),
        ({"allow": ["root"]}, "options.allow: not a table"),
        ({"allow": {"root": "all"}}, "'root'"),
        ({"allow": {"root": True}}, "'root'"),
        ({"allow": {"root": ["1-x"]}}, "'root'.*'1-x'"),
        ({"allow": {"root": [1]}}, "'root'"),
        ({"expiry": "soon"}, "options.expiry"),
        ({"expiry": 0}, "options.expiry"),
        ({"expiry": True}, "options.expiry"),
        ({"expiry": "999999d"}, "options.expiry"),
        ({"quota": {"fingers": 1}}, "options.quota.fingers: unknown"),
        ({"quota": {"names": -1}}, "options.quota.names"),
        ({"quota": {"names": True}}, "options.quota.names"),
        ({"quota": 5}, "options.quota: not a table"),
    ],
)
def test_what_is_wrong(options: dict[str, Any], where: str) -> None:
    with pytest.raises(OptionsError, match=where):
        parse_options(options)
