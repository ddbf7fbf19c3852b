"""The databases of this host: users and groups, addresses and ports, by name or number.

Look-ups go through NSS, and only in the child that evaluates definitions.
"""

from __future__ import annotations

import grp
import pwd
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from supervisor.definitions.problems import InvalidValue, did_you_mean
from supervisor.definitions.values import describe, is_digits

OVERFLOW_ID = 65534  # of user and group nobody if no database knows them
MAX_ID = 2**32 - 2  # -1 means "unchanged" to chown(2) and setuid(2)

OTHER = {"udp": "tcp", "tcp": "udp"}
MAX_PORT = 65535
_INTERFACE = re.compile(r"[!-$&-.0-~]{1,15}")  # IFNAMSIZ is 16; no space, no '/', no '%'


class Accounts:
    """Users and groups; each is looked up once."""

    def __init__(self) -> None:
        self._users: dict[str, int | None] = {}
        self._groups: dict[str, int | None] = {}
        self._entries: dict[int, pwd.struct_passwd | None] = {}
        self._nobody: tuple[str, int, str, int] | None = None

    def user(self, name: str) -> int:
        """Return the id of a user. Raises InvalidValue."""
        if name not in self._users:
            self._users[name] = _number(name) if is_digits(name) else _user(name)
        found = self._users[name]
        if found is None:
            raise InvalidValue(f"unknown user {describe(name)}" + did_you_mean(name, _names("/etc/passwd")))
        return found

    def group(self, name: str) -> int:
        """Return the id of a group. Raises InvalidValue."""
        if name not in self._groups:
            self._groups[name] = _number(name) if is_digits(name) else _group(name)
        found = self._groups[name]
        if found is None:
            raise InvalidValue(f"unknown group {describe(name)}" + did_you_mean(name, _names("/etc/group")))
        return found

    def entry(self, uid: int) -> pwd.struct_passwd | None:
        """Return the entry of a user in the user database; None without one."""
        if uid not in self._entries:
            try:
                self._entries[uid] = pwd.getpwuid(uid)
            except (KeyError, OverflowError):
                self._entries[uid] = None
        return self._entries[uid]

    def primary_group(self, uid: int) -> tuple[str, int] | None:
        """Return name and id of the group that a user logs in with; None without an entry of both."""
        entry = self.entry(uid)
        if entry is None:
            return None
        try:
            return grp.getgrgid(entry.pw_gid).gr_name, entry.pw_gid
        except (KeyError, OverflowError):
            return None

    def nobody(self) -> tuple[str, int, str, int]:
        """Return the default user and group of services, with their ids."""
        if self._nobody is None:
            self._nobody = *_first(_user, "nobody"), *_first(_group, "nobody", "nogroup")
        return self._nobody


def _first(find: Callable[[str], int | None], *names: str) -> tuple[str, int]:
    for name in names:
        found = find(name)
        if found is not None:
            return name, found
    return names[0], OVERFLOW_ID


def _number(name: str) -> int | None:
    return int(name) if len(name) <= 10 and int(name) <= MAX_ID else None


def _user(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        return None


def _group(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        return None


def _names(file: str) -> list[str]:
    """Return only the local names: a directory service may know a hundred thousand."""
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            return [line.partition(":")[0] for line in lines]
    except OSError:
        return []


class Network:
    """Ports and addresses; each is looked up once. `progress` gets place and action before a slow look-up.

    `unavailable`: a name service did not answer, as during a boot before the network is up.
    """

    def __init__(self, progress: Callable[[str, str], None]) -> None:
        self.unavailable = False
        self._progress = progress
        self._addresses: dict[str, str | InvalidValue] = {}
        self._ports: dict[tuple[str, str], int | None] = {}

    def port(self, name: str, protocol: str) -> int:
        """Return the number of a port in the services database, first of `protocol`, then of the other.

        Raises InvalidValue.
        """
        if is_digits(name):
            if len(name) > 5 or int(name) > MAX_PORT:
                raise InvalidValue(f"{describe(name)} is not a port, they go from 0 to {MAX_PORT}")
            return int(name)
        key = (name, protocol)
        if key not in self._ports:
            self._ports[key] = _port(name, protocol) or _port(name, OTHER[protocol])
        found = self._ports[key]
        if found is None:
            unknown = f"unknown port {describe(name)}: the services database has none of that name"
            raise InvalidValue(unknown + did_you_mean(name, _services()))
        return found

    def address(self, host: str, at: str) -> str:
        """Return the numeric address of `host`, which is `at` FILE:LINE; `*` is every address. Raises InvalidValue."""
        if host not in self._addresses:
            self._addresses[host] = self._resolve(host, at)
        found = self._addresses[host]
        if isinstance(found, InvalidValue):
            raise InvalidValue(found.message)
        return found

    def _resolve(self, host: str, at: str) -> str | InvalidValue:
        if host == "*":
            return "::" if has_ipv6() else "0.0.0.0"  # noqa: S104  the operator asked for every address
        numeric = _numeric(host)
        if numeric:
            return numeric
        if not host or "%" in host or not host.isprintable() or any(character.isspace() for character in host):
            return InvalidValue(f"{describe(host)} is not an address")
        self._progress(at, f"look up host {describe(host)}")
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:  # a ValueError: NUL, or no name for IDNA
            self.unavailable |= isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
            cause = error.strerror if isinstance(error, OSError) else "not a name"
            return InvalidValue(f"cannot look up host {describe(host)}: {cause}")
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if len(addresses) != 1:
            listed = ", ".join(addresses)
            return InvalidValue(f"host {describe(host)} has {len(addresses)} addresses, name one of them: {listed}")
        return addresses[0]


def _numeric(host: str) -> str:
    """Return a numeric address in its shortest notation, with its scope (`fe80::1%eth0`); '' for a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        address, percent, scope = host.partition("%") if family == socket.AF_INET6 else (host, "", "")
        if percent and not _is_scope(scope):
            continue
        try:
            return socket.inet_ntop(family, socket.inet_pton(family, address)) + percent + scope
        except (OSError, ValueError):
            continue
    return ""


def _is_scope(scope: str) -> bool:
    """Whether it is the name of an interface, which need not exist yet, or its number."""
    if is_digits(scope):
        return len(scope) <= 10 and int(scope) < 2**32
    return _INTERFACE.fullmatch(scope) is not None


def has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return True


def _port(name: str, protocol: str) -> int | None:
    try:
        return socket.getservbyname(name, protocol)
    except (OSError, ValueError):  # a ValueError: NUL, or not UTF-8
        return None


def _services() -> list[str]:
    try:
        with open("/etc/services", encoding="utf-8", errors="replace") as lines:
            return [line.split(None, 1)[0] for line in lines if line[:1].isalnum()]
    except OSError:
        return []


@dataclass(slots=True)
class Databases:
    """The databases of this host. If `root` is False, no user is switched, and unknown users are only noted."""

    accounts: Accounts
    network: Network
    root: bool
    workers: dict[str, str] = field(default_factory=dict)  # problem of each worker, '' without one: a cache
