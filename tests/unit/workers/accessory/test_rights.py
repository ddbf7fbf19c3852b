from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.linux.peers import Credentials
from workers.accessory import rights as module
from workers.accessory.id_map import Ids
from workers.accessory.options import Allowance, Options
from workers.accessory.protocol import NotAllowed, Refused
from workers.accessory.rights import SHARED, Maps, Rights, plain_maps, rights_of

ANY, OWN = Allowance(any=True), Allowance(own=True)
RANGE = Allowance(ids=(Ids(100, 199),))


def no_groups() -> list[int]:
    raise AssertionError("nobody wants to know")


def test_any_is_passed_on_as_it_is() -> None:
    assert Rights(7, 7, SHARED).maps(b"anything\x00at all\0") == Maps(b"anything", b"at all\0")


@pytest.mark.parametrize(
    ("payload", "plain"),
    [
        (b"", b""),
        (b"\0", b""),
        (b" 0\t007  1 ", b"0 7 1\n"),
        (b"0 7 1\n\0", b"0 7 1\n"),
        (b"0 7 1\x001 8 1\n2 9 1", b"0 7 1\n\x001 8 1\n2 9 1\n"),
        (b"\x000 7 1", b"\x000 7 1\n"),
    ],
)
def test_maps_are_compared_without_what_makes_no_difference(payload: bytes, plain: bytes) -> None:
    assert plain_maps(payload) == plain
    assert plain_maps(plain) == plain


def test_what_is_no_map_has_no_plain_form() -> None:
    for payload, what in ((b"junk", "uid_map"), (b"0 0 1\0junk", "gid_map"), (b"\0\0", "gid_map")):
        with pytest.raises(Refused, match=f"malformed {what}"):
            plain_maps(payload)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rights:
    """Somebody with the ids 1000 and 1001, and 100 subordinate ids of each kind."""
    (tmp_path / "subuid").write_text("1000:5000:100\n")
    (tmp_path / "subgid").write_text("1000:6000:100\n")
    monkeypatch.setattr(module, "SUBORDINATE_UIDS", str(tmp_path / "subuid"))
    monkeypatch.setattr(module, "SUBORDINATE_GIDS", str(tmp_path / "subgid"))
    return Rights(1000, 1001, 1000, own=True)


def test_own_ids(own: Rights) -> None:
    assert own.maps(b"0 1000 1\x000 6000 1") == Maps(b"0 1000 1\n", b"0 6000 1\n", deny_setgroups=False)
    assert own.maps(b"0 1000 1\n1 5000 100\x00") == Maps(b"0 1000 1\n1 5000 100\n", b"", deny_setgroups=False)
    assert own.maps(b"") == Maps(b"", b"")


def test_who_maps_its_own_group_cannot_leave_others(own: Rights) -> None:
    assert own.maps(b"0 1000 1\x000 1001 1").deny_setgroups
    assert own.maps(b"0 1000 1\x000 6000 10\n10 1001 1").deny_setgroups


@pytest.mark.parametrize(
    "payload",
    [b"0 0 1", b"0 1001 1", b"0 5000 101", b"0 4999 1", b"0 1000 1\x000 0 1", b"0 1000 1\x000 1000 1", b"junk",
     b"0 1000 1\x000 6000 1\0"],
)  # fmt: skip
def test_what_is_not_its_own(own: Rights, payload: bytes) -> None:
    with pytest.raises(Refused):
        own.maps(payload)


def test_ranges_are_for_users_and_groups() -> None:
    rights = Rights(1000, 1001, 1000, ids=(Ids(100, 199),))
    assert rights.maps(b"0 100 100\x000 150 1") == Maps(b"0 100 100\n", b"0 150 1\n")
    for payload in (b"0 1000 1", b"0 100 1\x000 1001 1"):
        with pytest.raises(Refused, match="may not map"):
            rights.maps(payload)


# who has which


def test_a_user_without_groups_is_not_asked_for_any() -> None:
    assert rights_of(Credentials(1, 0, 0), no_groups, Options()) == Rights(0, 0, SHARED)
    options = Options(users={5: ANY}, groups={6: ANY})
    assert rights_of(Credentials(1, 5, 5), no_groups, options) == Rights(5, 5, SHARED)


def test_the_most_that_any_rule_gives() -> None:
    options = Options(users={5: OWN, 7: RANGE}, groups={50: RANGE, 60: ANY})

    def rights(uid: int, gid: int, *groups: int) -> Rights:
        return rights_of(Credentials(1, uid, gid), lambda: groups, options)

    assert rights(5, 1) == Rights(5, 1, 5, own=True)
    assert rights(5, 50) == Rights(5, 50, 5, own=True, ids=(Ids(100, 199),))
    assert rights(5, 1, 50, 60) == Rights(5, 1, SHARED)
    assert rights(9, 1, 50) == Rights(9, 1, 9, ids=(Ids(100, 199),))
    assert rights(7, 1) == Rights(7, 1, 7, ids=(Ids(100, 199),))


def test_who_is_not_listed() -> None:
    with pytest.raises(NotAllowed, match="user 9"):
        rights_of(Credentials(1, 9, 9), lambda: [8], Options(groups={7: ANY}))
    with pytest.raises(NotAllowed):
        rights_of(Credentials(1, 0, 0), lambda: [], Options(users={}))
