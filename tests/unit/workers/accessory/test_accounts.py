from __future__ import annotations

import pytest

from workers.accessory.entry import CONNECTIONS, PART, RESERVE, Accounts
from workers.accessory.options import Quota
from workers.accessory.protocol import Refused

LIMIT = 4096


def test_without_quotas_one_spawner_may_have_all() -> None:
    accounts = Accounts(Quota(), LIMIT)
    most = LIMIT - RESERVE - CONNECTIONS
    accounts.of(0).check("namespaces", most, most, is_shared=True)
    with pytest.raises(Refused, match="too many open files"):
        accounts.of(0).check("namespaces", most, most + 1, is_shared=True)


def test_names_leave_something_to_connections() -> None:
    accounts = Accounts(Quota(), LIMIT)
    accounts.of(0).charge("namespaces", 1, LIMIT - RESERVE - CONNECTIONS)
    with pytest.raises(Refused, match="too many open files"):
        accounts.of(0).check("leases", is_shared=True)
    accounts.of(0).check("connections", CONNECTIONS, CONNECTIONS, is_shared=True)


def test_who_has_names_of_its_own_may_have_a_part() -> None:
    accounts = Accounts(Quota(), LIMIT)
    most = (LIMIT - RESERVE) // PART
    accounts.of(5).check("names", most, 0, is_shared=False)
    with pytest.raises(Refused, match=f"user 5 has too many names: the quota is {most}"):
        accounts.of(5).check("names", most + 1, 0, is_shared=False)


def test_a_quota_is_for_each_user() -> None:
    accounts = Accounts(Quota(leases=2), LIMIT)
    for uid in (1, 2):
        accounts.of(uid).charge("leases", 2, 2)
        with pytest.raises(Refused, match="too many leases"):
            accounts.of(uid).check("leases", is_shared=True)
    accounts.of(1).charge("leases", -1, -1)
    accounts.of(1).check("leases", is_shared=True)


def test_descriptors_are_everybodys() -> None:
    accounts = Accounts(Quota(), LIMIT)
    accounts.of(1).charge("connections", 1, LIMIT - RESERVE)
    assert accounts.descriptors == (LIMIT - RESERVE, LIMIT - RESERVE)
    with pytest.raises(Refused, match="too many open files"):
        accounts.of(2).check("connections", is_shared=True)


def test_nothing_is_left_of_who_has_nothing() -> None:
    accounts = Accounts(Quota(), LIMIT)
    accounts.of(1).charge("names", 1, 0)
    accounts.of(1).charge("namespaces", 2, 3)
    accounts.of(1).charge("namespaces", -2, -3)
    assert {uid: account.used for uid, account in accounts.by_uid.items()} == {
        1: {"connections": 0, "names": 1, "namespaces": 0, "leases": 0}
    }
    accounts.of(1).charge("names", -1, 0)
    accounts.of(2).charge("names", 0, 0)
    assert accounts.by_uid == {}
    assert accounts.descriptors[0] == 0


def test_a_small_limit_leaves_something() -> None:
    assert Accounts(Quota(), 100).descriptors == (0, 50)
