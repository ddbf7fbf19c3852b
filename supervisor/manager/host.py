"""Facts about the machine and the start of spawnd."""

from __future__ import annotations

from typing import NamedTuple

from supervisor.launch.program import Program
from supervisor.linux.signal_mask import SETTABLE
from supervisor.log.output import Outputs
from supervisor.manager.runtime import RuntimeFolder
from supervisor.notify.safe_close import Closer
from supervisor.process.cgroup import Subtree
from supervisor.systemd.reports import SystemdStore
from supervisor.systemd.scope import Scope


class HostFacts(NamedTuple):
    """Facts that spawnd has determined at its start.

    `nofile_soft` is its original soft limit of descriptors; `subtree` is the delegated cgroup, or None;
    `scope` is systemd's scope if the subtree belongs to one. `closer` closes descriptors that other processes
    made or filled. `program` is `launch`, which executes the programs of services. `systemd_store` has the
    sockets that systemd stores. `has_keyring`: the kernel has given spawnd a session keyring of its own.
    `spared`: the kernel spares spawnd when memory is short. `ignored` is the set of signals that spawnd
    ignores. `stderr_is_open`: the log goes to stderr, not to syslog.
    """

    is_root: bool
    nofile_soft: int
    runtime: RuntimeFolder
    outputs: Outputs
    subtree: Subtree | None
    systemd_store: SystemdStore
    closer: Closer
    program: Program
    scope: Scope | None = None
    spared: bool = False
    has_keyring: bool = False
    ignored: int = SETTABLE
    stderr_is_open: bool = True
