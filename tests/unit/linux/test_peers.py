from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pytest

from supervisor.linux.peers import Credentials, peer_credentials, peer_groups
from tests.unit.process.forked import in_child
from tests.unit.process.requirements import needs_root


def of_own_pair(ask: Callable[[socket.socket], object]) -> object:
    here, there = socket.socketpair()
    with here, there:
        return ask(here)


def test_credentials_of_ourselves() -> None:
    assert of_own_pair(peer_credentials) == Credentials(os.getpid(), os.geteuid(), os.getegid())


@needs_root
@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 300, 5000])
def test_any_number_of_groups(count: int) -> None:
    groups = tuple(range(1000, 1000 + count))

    def ask() -> object:
        os.setgroups(groups)
        return of_own_pair(peer_groups)

    assert in_child(ask) == groups


def test_only_unix_sockets_have_peers_with_groups() -> None:
    with socket.socket(socket.AF_INET) as sock, pytest.raises(OSError, match="No data"):
        peer_groups(sock)


def test_a_peer_in_a_log() -> None:
    assert Credentials(812, 0, 0).describe() == "uid 0, pid 812"
    assert Credentials(0, 1001, 1001).describe() == "uid 1001, outside our PID namespace"
