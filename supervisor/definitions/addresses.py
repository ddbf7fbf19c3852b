"""No two descriptors of all services can be bound to one address."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from supervisor.definitions.problems import Bad, place
from supervisor.definitions.scope import Scope
from supervisor.definitions.service import Descriptor, Service

ANY_V4, ANY_V6 = "0.0.0.0", "::"  # noqa: S104  compared with, not bound to

_Place = tuple[str, str | int, str | None]  # kind, port or path, network namespace


@dataclass(frozen=True, slots=True)
class _Bound:
    service: Service
    descriptor: Descriptor
    path: tuple[str | int, ...]


def check_addresses(services: dict[str, Service], scopes: dict[str, Scope]) -> None:
    """Report every descriptor whose address an earlier one has."""
    places: dict[_Place, list[_Bound]] = {}
    for service in services.values():
        for bound in _bound(service):
            others = places.setdefault(_place(bound), [])
            other = next((other for other in others if _collide(bound, other)), None)
            if other is not None:
                _report(bound, other, scopes)
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
    if other.service.name in one.service.conflicts or one.service.name in other.service.conflicts:
        return False  # never up at the same time
    return _covers(one.descriptor, other.descriptor) or _covers(other.descriptor, one.descriptor)


def _covers(one: Descriptor, other: Descriptor) -> bool:
    """Whether `one` takes the address of `other`, which has the same port."""
    if one.host == other.host:
        return True
    if one.host == ANY_V4:
        return ":" not in other.host
    return one.host == ANY_V6 and (":" in other.host or not one.v6only)


def _report(bound: _Bound, other: _Bound, scopes: dict[str, Scope]) -> None:
    scope, there = scopes[bound.service.name], scopes[other.service.name]
    where = place(there.file, there.line_of(other.path))
    whose = "this service" if scope is there else repr(other.service.name)
    what = f"{_address(bound.descriptor)} is taken by {whose} at {where}"
    if other.descriptor.host != bound.descriptor.host:
        what += f", which has {_address(other.descriptor)}"
    remedy = "; reuseport = true on both allows it" if bound.descriptor.host else ""
    scope.bad(Bad(what + remedy), *bound.path)


def _address(descriptor: Descriptor) -> str:
    if descriptor.kind not in ("udp", "tcp"):
        return repr(descriptor.path)
    host = f"[{descriptor.host}]" if ":" in descriptor.host else descriptor.host
    return f"{descriptor.kind} {host}:{descriptor.port}"
