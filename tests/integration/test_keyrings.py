"""The keys of whoever starts spawnd are not for its services."""

from __future__ import annotations

from collections.abc import Callable

from supervisor.linux.credentials import join_session_keyring
from tests.daemon import wait_until
from tests.integration.conftest import Start
from tests.unit.process.launched import PYTHON
from tests.unit.process.test_keyring import _LOOK, add_key, pytestmark

__all__ = ["pytestmark"]  # root alone, and a kernel with keyrings


def test_services_and_functions_find_no_key_of_spawnd_s_starter(
    spawnd: Start, program: Callable[[str, str], str]
) -> None:
    look = program("look", f"#!{PYTHON} -ISB\n{_LOOK}")
    join_session_keyring()  # of this process, which needs no other
    key = add_key(b"spawn-test", b"secret")
    assert key > 0
    daemon = spawnd(
        f"""
        a = {{ exec = "{look}", stdout = log(), task = true }}
        r = {{ exec = "{look}", user = "root", stdout = log(), task = true }}
        module("f", package.seeall)
        task = true
        function start() return print(proc.run("{look}")) end
        """
    )
    for name in ("a", "r", "f"):
        daemon.wait_state(name, "done")
    lines = [wait_until(lambda name=name: daemon.ctl("logs", name).stdout, "output").split() for name in "arf"]  # type: ignore[misc]
    assert [line[0] for line in lines] == ["False"] * 3
    assert len({line[2] for line in lines}) == 3
