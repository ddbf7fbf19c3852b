"""Who may use the control socket."""

from __future__ import annotations

import os
import socket

from supervisor.linux.peers import Credentials, peer_groups


def permitted(client: Credentials, sock: socket.socket, control_group: int | None) -> bool:
    """Root, the user that spawnd runs as, and the members of `control_group` (a gid; None: no group).

    `sock` tells the supplementary groups that the client had when it connected.
    """
    if is_privileged(client):
        return True
    if control_group is None:
        return False
    return control_group == client.gid or control_group in _groups(sock)


def is_privileged(client: Credentials) -> bool:
    """Root, or the user that spawnd runs as."""
    return client.uid in (0, os.geteuid())


def _groups(sock: socket.socket) -> tuple[int, ...]:
    try:
        return peer_groups(sock)
    except OSError:  # unknown is not a member
        return ()
