"""Capabilities that a service keeps, capabilities(7)."""

from __future__ import annotations

from supervisor.definitions.convert.mapping import names
from supervisor.definitions.convert.sequence import each, items
from supervisor.definitions.near import hint
from supervisor.definitions.problems import Bad
from supervisor.definitions.scope import Scope
from supervisor.definitions.values import describe

# <linux/capability.h>, in the order of their numbers
NAMES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
    "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
    "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
    "checkpoint_restore",
)  # fmt: skip


def capabilities(value: object, scope: Scope) -> tuple[str, ...]:
    """The names without `CAP_`, in lower case."""
    given = names(value, '{ keep = { "net_bind_service" } }')
    for name in given:
        if name != "keep":
            scope.bad(Bad("unknown, it has keep alone" + hint(name, ["keep"])), "capabilities", name)
    if "keep" not in given:
        raise Bad('has to say which to keep, like { keep = { "net_bind_service" } }')
    try:
        keep = items(given["keep"], "keep")
    except Bad as error:
        raise Bad(error.message, "keep") from None
    return tuple(sorted(set(each(keep, scope, _capability, "capabilities", "keep"))))


def _capability(value: object, scope: Scope) -> str:
    if not isinstance(value, str):
        raise Bad(f"has to be the name of a capability, not {describe(value)}")
    name = value.lower().removeprefix("cap_")
    if name not in NAMES:
        raise Bad(f"unknown capability {value!r}" + hint(name, NAMES))
    return name
