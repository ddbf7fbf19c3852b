"""Session keyrings: each service has one of its own, which belongs to root."""

from __future__ import annotations

import ctypes
import itertools
import os
from contextlib import suppress

import pytest

from supervisor.linux.credentials import _NR_KEYCTL, join_session_keyring
from supervisor.linux.libc import check, function
from supervisor.process.failure import split_notices
from tests.unit.process.forked import in_child
from tests.unit.process.launched import PYTHON, service, start
from tests.unit.process.requirements import needs_root

KEYCTL_GET_KEYRING_ID, KEYCTL_DESCRIBE, KEYCTL_SEARCH = 0, 6, 10
SESSION, PROCESS = -3, -2
_syscall = function("syscall", ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_long)
_search = function("syscall", ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int)
_add_key = function(
    "syscall", ctypes.c_long, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int
)
NR_ADD_KEY = {250: 248, 219: 217}  # by the number of keyctl


def _has_keyrings() -> bool:
    def join() -> bool:
        try:
            join_session_keyring()
        except OSError:
            return False
        return _NR_KEYCTL in NR_ADD_KEY

    return in_child(join)


pytestmark = [needs_root, pytest.mark.skipif(not _has_keyrings(), reason="this host has no keyrings, or forbids them")]


def add_key(name: bytes, data: bytes, ring: int = SESSION) -> int:
    return check(_add_key(NR_ADD_KEY[_NR_KEYCTL], b"user", name, data, len(data), ring))


_LOOK = f"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
found = libc.syscall({_NR_KEYCTL}, {KEYCTL_SEARCH}, {SESSION}, b"user", b"spawn-test", 0)
ring = libc.syscall({_NR_KEYCTL}, {KEYCTL_GET_KEYRING_ID}, {SESSION}, 0)
text = ctypes.create_string_buffer(200)
libc.syscall({_NR_KEYCTL}, {KEYCTL_DESCRIBE}, ring, text, 200)
os.write(1, f"{{found >= 0}} {{text.value.decode().split(';')[1]}} {{ring}}".encode())
"""


def look(keyring: bool, forked: bool = False) -> list[str]:
    """Whether a service finds a key that its starter has, the owner of its session keyring, and its id."""

    def have_a_key() -> None:
        join_session_keyring()
        add_key(b"spawn-test", b"secret")

    def main() -> int:
        exec(_LOOK, {})  # noqa: S102  # as the program does
        return 0

    load = (lambda: main) if forked else None
    outcome = start(service(), (PYTHON, "-ISB", "-c", _LOOK), keyring=keyring, before=have_a_key, load=load)
    assert outcome.failure is None, outcome.failure
    return outcome.output.split()


@pytest.mark.parametrize("forked", [False, True])
def test_a_service_has_a_session_keyring_of_its_own_that_is_root_s(forked: bool) -> None:
    assert look(keyring=False, forked=forked)[0] == "True"
    assert look(keyring=True, forked=forked)[:2] == ["False", "0"]


def test_two_services_have_two() -> None:
    assert look(keyring=True)[2] != look(keyring=True)[2]


def test_a_user_without_room_for_keys_does_without_and_it_is_said() -> None:
    uid = 54321

    def fill() -> None:
        join_session_keyring()
        os.setresuid(uid, uid, uid)
        with suppress(OSError):  # EDQUOT
            for number in itertools.count():
                add_key(b"%d" % number, b"x")

    outcome = start(service(uid=uid, gid=uid), ("/bin/echo", "runs"), keyring=True, is_root=False, before=fill)
    assert outcome.output == "runs\n"
    assert len(outcome.notices) == 1
    assert outcome.notices[0].startswith("cannot make a session keyring: Disk quota exceeded")


def test_notices_come_before_a_failure() -> None:
    lines = b"".join(b'{"notice": "%s", "then": "so", "errno": 2}\n' % name for name in (b"one", b"two"))
    told = tuple(f"{name}: No such file or directory; so" for name in ("one", "two"))
    assert split_notices(lines + b'{"step"}') == (told, b'{"step"}')
    assert split_notices(b"") == ((), b"")
