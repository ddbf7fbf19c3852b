"""Things that services must not share: an address, or a user if one of the services has a secret.

A process can reach everything of another process of the same user and group: its environment in
/proc/PID/environ, its descriptors by pidfd_getfd(2), see "Ptrace access mode checking" in ptrace(2).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from supervisor.definitions.checking import Checking
from supervisor.definitions.problems import place
from supervisor.definitions.service import Descriptor, Service
from supervisor.printable import listed

ANY_V4, ANY_V6 = "0.0.0.0", "::"  # noqa: S104  compared with, not bound to

_Place = tuple[str, str | int, str | None]  # kind, port or path, network namespace

TOLD_OF = frozenset({"r", "r+", "a+", "w+"})  # access modes through which the content of a file can be read
MayRead = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class _Bound:
    service: Service
    descriptor: Descriptor
    path: tuple[str | int, ...]


def check_addresses(services: dict[str, Service], checkings: dict[str, Checking]) -> None:
    """Report every descriptor with the address of an earlier descriptor."""
    places: dict[_Place, list[_Bound]] = {}
    for service in services.values():
        for bound in _bound(service):
            others = places.setdefault(_place(bound), [])
            other = next((other for other in others if _collide(bound, other)), None)
            if other is not None:
                _report(bound, other, checkings)
            others.append(bound)


def _bound(service: Service) -> Iterator[_Bound]:
    slots = (("stdin", service.stdin), ("stdout", service.stdout), ("stderr", service.stderr))
    for slot, descriptor in slots:
        if _is_bound(descriptor):
            yield _Bound(service, descriptor, (slot,))
    for index, descriptor in enumerate(service.fd, 1):
        if _is_bound(descriptor):
            yield _Bound(service, descriptor, ("fd", index))


def _is_bound(descriptor: Descriptor) -> bool:
    if descriptor.kind in ("udp", "tcp"):
        return descriptor.port != 0  # 0 lets the kernel choose
    return descriptor.kind not in ("file", "log") and not descriptor.connect


def _place(bound: _Bound) -> _Place:
    descriptor = bound.descriptor
    if descriptor.kind not in ("udp", "tcp"):
        return "unix", descriptor.path, descriptor.netns  # a file has one socket, whatever its type
    return descriptor.kind, descriptor.port, descriptor.netns


def _collide(one: _Bound, other: _Bound) -> bool:
    if one.descriptor.reuseport and other.descriptor.reuseport:
        return False
    interfaces = {one.descriptor.interface, other.descriptor.interface}
    if len(interfaces) == 2 and "" not in interfaces:
        return False
    if other.service.name in one.service.conflicts or one.service.name in other.service.conflicts:
        return False  # never up at the same time
    return _covers(one.descriptor, other.descriptor) or _covers(other.descriptor, one.descriptor)


def _covers(one: Descriptor, other: Descriptor) -> bool:
    """Whether `one` occupies the address of `other`, which has the same port."""
    if one.host == other.host:
        return True
    if one.host == ANY_V4:
        return ":" not in other.host
    return one.host == ANY_V6 and (":" in other.host or not one.v6only)


def _report(bound: _Bound, other: _Bound, checkings: dict[str, Checking]) -> None:
    checking, there = checkings[bound.service.name], checkings[other.service.name]
    where = place(there.file, there.line_of(other.path))
    whose = "this service" if checking is there else repr(other.service.name)
    what = f"{_address(bound.descriptor)} is taken by {whose} at {where}"
    if other.descriptor.host != bound.descriptor.host:
        what += f", which has {_address(other.descriptor)}"
    remedy = "; reuseport = true on both allows it" if bound.descriptor.host else ""
    checking.problem(what + remedy, *bound.path)


def _address(descriptor: Descriptor) -> str:
    if descriptor.kind not in ("udp", "tcp"):
        return repr(descriptor.path)
    host = f"[{descriptor.host}]" if ":" in descriptor.host else descriptor.host
    return f"{descriptor.kind} {host}:{descriptor.port}"


def check_sharing(services: dict[str, Service], checkings: dict[str, Checking]) -> None:
    """Give a notice for each user and group that several services share if one of these has a secret."""
    users: dict[tuple[int, int], list[Service]] = {}
    for service in services.values():
        if service.uid != 0 and (service.has_process or service.functions):
            users.setdefault((service.uid, service.gid), []).append(service)
    for together in users.values():
        if len(together) > 1 and checkings[together[0].name].databases.root:
            _check_user(together, checkings)


def _check_user(together: list[Service], checkings: dict[str, Checking]) -> None:
    gids = {together[0].gid} | set.intersection(*(set(service.gids) for service in together))
    may_read = cache(lambda path: _may_read(path, together[0].uid, gids))
    secrets = [(service, secret) for service in together for secret in _secrets(service, may_read)]
    if secrets:
        names = listed([service.name for service in together])
        taken = listed([f"{secret} of {service.name!r}" for service, secret in secrets])
        checkings[secrets[0][0].name].notice(
            f"{names} run as user {together[0].user!r}: each of them can take the secrets of the others: "
            f"{taken}; give a service with a secret a user of its own",
            about=[service.name for service in together],
        )


def _secrets(service: Service, may_read: MayRead) -> Iterator[str]:
    for spec in (service.stdin, *service.fd):
        if spec.kind == "file" and spec.access in TOLD_OF and not may_read(spec.path):
            yield f"file {spec.path!r}"
    for path in (path.removeprefix("-") for path in service.env_file):
        if not may_read(path):
            yield f"env_file {path!r}"
    if service.env and not may_read(service.file):
        yield "env"


def _may_read(path: str, uid: int, gids: set[int]) -> bool:
    """Whether a user could open an existing file directly, by its mode and the modes of its folders."""
    path = os.path.realpath(path)
    try:
        status = os.stat(path)
        folder = path
        while folder != "/":
            folder = os.path.dirname(folder)
            if not _has(os.stat(folder), uid, gids, stat.S_IXOTH):
                return False
    except OSError:
        return True  # there is nothing yet that could be secret
    return _has(status, uid, gids, stat.S_IROTH)


def _has(status: os.stat_result, uid: int, gids: set[int], bit: int) -> bool:
    shift = 6 if status.st_uid == uid else 3 if status.st_gid in gids else 0
    return bool(status.st_mode >> shift & bit)
