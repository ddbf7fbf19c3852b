"""Users and groups of definitions are those that the user has on this host."""

from __future__ import annotations

import grp
import os
import pwd

import pytest

from importer import accounts
from importer.ledger import Directive, Ledger
from importer.result import Definition, Result

LINE = Directive("f", 1, "user=x")


def _keys(user: str, group: str = "", others: bool = True) -> tuple[dict[str, object], Result]:
    result = Result()
    definition = Definition("web")
    accounts.set_user(Ledger(result), definition, LINE, user, group, others)
    return dict(definition.keys), result


def test_root_has_its_own_group_alone() -> None:
    assert _keys("root")[0] == {"user": "root", "group": "root"}


def test_nobody_needs_no_group() -> None:
    assert _keys("nobody")[0] == {"user": "nobody"}


def test_a_group_that_is_named_counts() -> None:
    assert _keys("no-such-user", "tty") == ({"user": "no-such-user", "group": "tty"}, Result())


def test_an_unknown_user_is_told_of() -> None:
    keys, result = _keys("no-such-user")
    assert keys == {"user": "no-such-user", "group": "no-such-user"}
    assert "unknown on this host" in result.findings[0].text


@pytest.mark.parametrize("others", [True, False])
def test_supplementary_groups(others: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    account = pwd.getpwnam("daemon")
    own, tty = grp.getgrgid(account.pw_gid), grp.getgrnam("tty")
    monkeypatch.setattr(os, "getgrouplist", lambda user, gid: [gid, tty.gr_gid, 4294967])
    keys, _ = _keys(str(account.pw_uid), others=others)
    assert keys.pop("groups", None) == (["4294967", "tty"] if others else None)
    assert keys == {"user": str(account.pw_uid), "group": own.gr_name}
