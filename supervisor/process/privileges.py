"""Who a service is: groups, user, capabilities(7), no_new_privs.

A service that is not root has the capabilities that its definition keeps and no other, whatever
spawnd was started with: an ambient or inheritable set of spawnd would go on to what it executes.
Works for what is executed next and for a worker that goes on in this process.  python-prctl
is imported here alone, and only where a service needs it: by `load`, before the fork.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from importlib import import_module
from types import ModuleType

from supervisor.definitions.service import Service
from supervisor.linux.capabilities import cap_ambient_clear_all, cap_ambient_raise
from supervisor.linux.libc import check, function
from supervisor.process.step import failed, step

CAP_CHECKPOINT_RESTORE = 40  # python-prctl knows the number, as its last, and not the name

# <linux/capability.h>
LINUX_CAPABILITY_VERSION_3 = 0x20080522
CAPABILITY_DATA_SIZE = 24  # two times effective, permitted and inheritable set, 32 capabilities each

_capset = function("capset", ctypes.c_char_p, ctypes.c_char_p)


def load(service: Service) -> None:
    """Import what `set_privileges` will need, so that it is not imported in each child anew."""
    if service.capabilities is not None or service.no_new_privs:
        _prctl()


def set_privileges(service: Service, *, is_root: bool) -> None:
    """Become the service's user with its capabilities; users and groups stay where spawnd is not root.

    Raises StepError, naming a capability that spawnd does not have itself.
    """
    keep = None if service.capabilities is None else _numbers(service.capabilities)
    if keep is not None:
        _before_user(keep)
    if is_root:
        _set_user(service)
    if keep is not None:
        _after_user(keep)
    elif os.geteuid() != 0:
        _drop_all()
    if service.no_new_privs:
        with step("set no_new_privs"):
            _prctl().set_no_new_privs(1)


def _set_user(service: Service) -> None:
    with step("set groups"):
        os.setgroups(service.gids)
    with step(f"set gid {service.gid}"):
        os.setresgid(service.gid, service.gid, service.gid)
    with step(f"set uid {service.uid}"):
        os.setresuid(service.uid, service.uid, service.uid)


def _numbers(names: tuple[str, ...]) -> dict[int, str]:
    """Capabilities by number.  Raises StepError for one that nobody knows, or that spawnd does not have."""
    prctl = _prctl()
    keep = {}
    for name in names:
        number = CAP_CHECKPOINT_RESTORE if name == "checkpoint_restore" else getattr(prctl, f"CAP_{name.upper()}", None)
        if number is None:
            raise failed(f"keep capability {name}", "", errno.EINVAL, "there is no such capability")
        keep[number] = name
    permitted = prctl.get_caps((list(keep), prctl.ALL_FLAGS))[prctl.CAP_PERMITTED]
    for number, name in keep.items():
        if not permitted[number]:
            raise failed(f"keep capability {name}", "", errno.EPERM, "the supervisor does not have it itself")
    return keep


def _before_user(keep: dict[int, str]) -> None:
    """Reduce the bounding set, and have the permitted set survive the change of user.

    An unprivileged spawnd cannot reduce the bounding set and need not: it is root who gets back at exec what is in it.
    """
    prctl = _prctl()
    if prctl.cap_effective.setpcap or os.geteuid() == 0:
        for number in set(prctl.ALL_CAPS) - keep.keys():
            with step("reduce the bounding set"):
                if prctl.capbset_read(number):
                    prctl.capbset_drop(number)
    with step("set keepcaps"):
        prctl.set_keepcaps(True)


def _after_user(keep: dict[int, str]) -> None:
    """Permitted, effective and inheritable set become `keep`, for this process and, as ambient set, beyond exec.

    For root no ambient set is needed: exec gives it what the bounding set has.
    """
    prctl = _prctl()
    flags = list(prctl.ALL_FLAGS)
    others = [number for number in prctl.ALL_CAPS if number not in keep]
    with step("set capabilities"):
        prctl.set_caps((list(keep), flags, True), (others, flags, False))
        prctl.set_keepcaps(False)
        cap_ambient_clear_all()
    if os.geteuid() != 0:
        for number, name in keep.items():
            with step(f"raise ambient capability {name}"):
                cap_ambient_raise(number)


def _drop_all() -> None:
    """Empty the permitted, effective and inheritable set; the kernel empties the ambient one with them.

    By capset(2) itself, which saves those who keep nothing the import of python-prctl.
    """
    with step("drop capabilities"):
        check(_capset(struct.pack("=Ii", LINUX_CAPABILITY_VERSION_3, 0), bytes(CAPABILITY_DATA_SIZE)))


def _prctl() -> ModuleType:
    return import_module("prctl")
