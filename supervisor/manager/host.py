"""Facts about the machine and the start of spawnd."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.log.output import Outputs
from supervisor.manager.runtime import RuntimeFolder
from supervisor.notify.safe_close import Closer
from supervisor.process.cgroup import Subtree
from supervisor.systemd.reports import SystemdStore
from supervisor.systemd.scope import Scope


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Facts that spawnd found out at its start.

    `nofile_soft` is the soft descriptor limit that it was started with, `subtree` the
    delegated cgroup, None where there is none, `scope` systemd's, where the subtree is that.
    `closer` closes what others have made or put descriptors into.
    `systemd_store` is what systemd keeps.  `has_keyring`: the kernel has given spawnd a session keyring of its own.
    `spared`: the kernel spares it when memory is short.
    `stderr_is_open`: its log is there, and not in syslog.
    """

    is_root: bool
    nofile_soft: int
    runtime: RuntimeFolder
    outputs: Outputs
    subtree: Subtree | None
    systemd_store: SystemdStore
    closer: Closer
    scope: Scope | None = None
    spared: bool = False
    has_keyring: bool = False
    stderr_is_open: bool = True
