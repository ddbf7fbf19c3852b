"""Flags of xinetd, and attributes that nothing stands for."""

from __future__ import annotations

from importer.xinetd.service import BadValue, Service

# flags that are what they are without a key, or that have been looked at where they belong
_SILENT = frozenset("REUSE NORETRY NOLIBWRAP NAMEINARGS IPV4 IPV6 SENSOR".split())
_CONNECTION = {"NODELAY": "nodelay", "KEEPALIVE": "keepalive"}
_REFUSED = {
    "INTERCEPT": "INTERCEPT: a firewall says who may send",
    "IDONLY": "IDONLY: the client's host would answer what it wants",
    "LABELED": "LABELED: spawnd knows nothing of contexts of SELinux",
}
WITHOUT_EQUIVALENT = {
    "libwrap": "'only_from' of 'accept' says who may connect",
    "mdns": "avahi-daemon announces services of its own files",
    "rpc_version": "spawnd registers nothing with rpcbind",
    "rpc_number": "spawnd registers nothing with rpcbind",
    "enabled": "it is for the defaults",
    "disabled": "it is for the defaults",
}


def flags(service: Service, name: str) -> None:
    lost = []
    for flag in sorted(service.flags()):
        if flag in _CONNECTION and service.connections:
            service.accept[_CONNECTION[flag]] = True
        elif flag in _CONNECTION:
            lost.append(f"{flag} needs a process for each connection")
        elif flag in _REFUSED:
            lost.append(_REFUSED[flag])
        elif flag not in _SILENT:
            raise BadValue(f"{name}: unknown flag {flag!r}")
    if lost:
        service.left_out(name, "; ".join(lost))
    else:
        service.carried(name)
