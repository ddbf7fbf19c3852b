from __future__ import annotations

import pytest

from workers.accessory.accounts import CONNECTIONS, PART, RESERVE, Accounts
from workers.accessory.errors import Refused
from workers.accessory.options import Quota

LIMIT = 4096


def test_without_quotas_one_spawner_may_have_all() -> None:
    accounts = Accounts(Quota(), LIMIT)
    most = LIMIT - RESERVE - CONNECTIONS
    accounts.check(0, "namespaces", most, most, is_shared=True)
    with pytest.raises(Refused, match="too many open files"):
        accounts.check(0, "namespaces", most, most + 1, is_shared=True)


def test_names_leave_something_to_connections() -> None:
    accounts = Accounts(Quota(), LIMIT)
    accounts.add(0, "namespaces", 1, LIMIT - RESERVE - CONNECTIONS)
    with pytest.raises(Refused, match="too many open files"):
        accounts.check(0, "leases", is_shared=True)
    accounts.check(0, "connections", CONNECTIONS, CONNECTIONS, is_shared=True)


def test_who_has_names_of_its_own_may_have_a_part() -> None:
    accounts = Accounts(Quota(), LIMIT)
    most = (LIMIT - RESERVE) // PART
    accounts.check(5, "names", most, 0, is_shared=False)
    with pytest.raises(Refused, match=f"user 5 has too many names: the quota is {most}"):
        accounts.check(5, "names", most + 1, 0, is_shared=False)


def test_a_quota_is_for_each_user() -> None:
    accounts = Accounts(Quota(leases=2), LIMIT)
    for uid in (1, 2):
        accounts.add(uid, "leases", 2, 2)
        with pytest.raises(Refused, match="too many leases"):
            accounts.check(uid, "leases", is_shared=True)
    accounts.add(1, "leases", -1, -1)
    accounts.check(1, "leases", is_shared=True)


def test_descriptors_are_everybodys() -> None:
    accounts = Accounts(Quota(), LIMIT)
    accounts.add(1, "connections", 1, LIMIT - RESERVE)
    assert accounts.descriptors == (LIMIT - RESERVE, LIMIT - RESERVE)
    with pytest.raises(Refused, match="too many open files"):
        accounts.check(2, "connections", is_shared=True)


def test_nothing_is_left_of_who_has_nothing() -> None:
    accounts = Accounts(Quota(), LIMIT)
    accounts.add(1, "names", 1, 0)
    accounts.add(1, "namespaces", 2, 3)
    accounts.add(1, "namespaces", -2, -3)
    assert accounts.used() == {1: {"connections": 0, "names": 1, "namespaces": 0, "leases": 0}}
    accounts.add(1, "names", -1, 0)
    accounts.add(2, "names", 0, 0)
    assert accounts.used() == {}
    assert accounts.descriptors[0] == 0


def test_a_small_limit_leaves_something() -> None:
    assert Accounts(Quota(), 100).descriptors == (0, 50)
