from __future__ import annotations

from workers.accessory.enter.command import PATH, environment_of

NOBODY, NOT_KNOWN = 65534, 4_000_000_000


def test_little_is_passed_on() -> None:
    ours = {"PATH": "/evil", "HOME": "/root", "TERM": "xterm", "LC_ALL": "C.UTF-8", "LD_PRELOAD": "x", "TOKEN": "x"}
    assert environment_of(NOT_KNOWN, [], ours) == {"PATH": PATH, "TERM": "xterm", "LC_ALL": "C.UTF-8", "HOME": "/"}


def test_the_user_is_that_of_the_command() -> None:
    found = environment_of(NOBODY, [], {"USER": "root"})
    assert (found["USER"], found["LOGNAME"]) == ("nobody", "nobody")


def test_what_is_wanted_is_set_last() -> None:
    ours = {"TOKEN": "a=b", "TERM": "xterm"}
    found = environment_of(NOT_KNOWN, ["TOKEN", "NONE", "TERM=", "HOME=/srv=1"], ours)
    assert found == {"PATH": PATH, "TOKEN": "a=b", "TERM": "", "HOME": "/srv=1"}
