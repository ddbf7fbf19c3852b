"""The databases of this host: users and groups, addresses and ports, by name or number.

Look-ups go through NSS, and only in the child that evaluates definitions. A file whose text has not changed need not
be evaluated again if the databases still give the answers that it depends on; so these are kept.
"""

from __future__ import annotations

import grp
import importlib.util
import pwd
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from supervisor.definitions.problems import InvalidValue, did_you_mean
from supervisor.definitions.values import describe, is_digits

Asked = dict[tuple[str | int, ...], Any]  # questions, each a kind and what it is about, with their answers

OVERFLOW_ID = 65534  # of user and group nobody if no database knows them
MAX_ID = 2**32 - 2  # -1 means "unchanged" to chown(2) and setuid(2)

OTHER = {"udp": "tcp", "tcp": "udp"}
MAX_PORT = 65535
_INTERFACE = re.compile(r"[!-$&-.0-~]{1,15}")  # IFNAMSIZ is 16; no space, no '/', no '%'


class Accounts:
    """Users and groups; each is looked up once. `asked` has the questions to them."""

    def __init__(self) -> None:
        self.asked: Asked = {}
        self._users: dict[str, int | None] = {}
        self._groups: dict[str, int | None] = {}
        self._entries: dict[int, pwd.struct_passwd | None] = {}
        self._primary: dict[int, tuple[str, int] | None] = {}
        self._nobody: tuple[str, int, str, int] | None = None

    def user(self, name: str) -> int:
        """Return the id of a user. Raises InvalidValue."""
        if name not in self._users:
            self._users[name] = _number(name) if is_digits(name) else _user(name)
        self.asked["user", name] = found = self._users[name]
        if found is None:
            raise InvalidValue(f"unknown user {describe(name)}" + did_you_mean(name, _names("/etc/passwd")))
        return found

    def group(self, name: str) -> int:
        """Return the id of a group. Raises InvalidValue."""
        if name not in self._groups:
            self._groups[name] = _number(name) if is_digits(name) else _group(name)
        self.asked["group", name] = found = self._groups[name]
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
        found = self._entries[uid]
        used = None if found is None else [found.pw_name, found.pw_gid, found.pw_dir, found.pw_shell]
        self.asked["entry", uid] = used
        return found

    def primary_group(self, uid: int) -> tuple[str, int] | None:
        """Return name and id of the group that a user logs in with; None without an entry of both."""
        if uid not in self._primary:
            entry = self.entry(uid)
            self._primary[uid] = None if entry is None else _group_of(entry.pw_gid)
        self.asked["primary_group", uid] = found = self._primary[uid]
        return found

    def nobody(self) -> tuple[str, int, str, int]:
        """Return the default user and group of services, with their ids."""
        if self._nobody is None:
            self._nobody = *_first(_user, "nobody"), *_first(_group, "nobody", "nogroup")
        self.asked["nobody",] = self._nobody
        return self._nobody


def _group_of(gid: int) -> tuple[str, int] | None:
    try:
        return grp.getgrgid(gid).gr_name, gid
    except (KeyError, OverflowError):
        return None


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

    `asked` has the questions to databases, without numbers.
    `unavailable`: a name service did not answer, as during a boot before the network is up.
    """

    def __init__(self, progress: Callable[[str, str], None]) -> None:
        self.asked: Asked = {}
        self.unavailable = False
        self._progress = progress
        self._addresses: dict[str, str | InvalidValue] = {}
        self._names: set[str] = set()  # hosts that are not addresses
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
        self.asked["port", name, protocol] = found = self._ports[key]
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
        if host in self._names:
            self.asked["address", host] = found
        return found

    def _resolve(self, host: str, at: str) -> str | InvalidValue:
        self._names.add(host)
        if host == "*":
            return "::" if has_ipv6() else "0.0.0.0"  # noqa: S104  the operator asked for every address
        numeric = _numeric(host)
        if numeric:
            self._names.remove(host)
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
    return is_interface(scope)


def is_interface(name: str) -> bool:
    """Whether a network interface can have this name."""
    return _INTERFACE.fullmatch(name) is not None and name not in (".", "..")


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
    _workers: dict[str, bool] = field(default_factory=dict)
    _asked: Asked = field(default_factory=dict)

    def has_worker(self, name: str) -> bool:
        """Whether a worker is installed: the module `workers.NAME.main`."""
        if name not in self._workers:
            self._workers[name] = _is_installed(name)
        self._asked["has_worker", name] = found = self._workers[name]
        return found

    def take_asked(self) -> Asked:
        """Return the questions since the last call, with their answers as JSON has them."""
        found: Asked = {}
        for asked in (self.accounts.asked, self.network.asked, self._asked):
            found |= asked
            asked.clear()
        return {question: list(answer) if isinstance(answer, tuple) else answer for question, answer in found.items()}

    def agree(self, asked: Iterable[tuple[Any, Any]], at: str) -> bool:
        """Whether these questions have these answers now. `at` is the place that asks."""
        return all(self._ask(at, *question) == answer for question, answer in asked)

    def _ask(self, at: str, kind: str, *about: Any) -> Any:
        """Return the answer as `take_asked` does; None if the question is an error now."""
        try:
            match kind:
                case "address":
                    self.network.address(about[0], at)
                case "port":
                    self.network.port(*about)
                case "has_worker":
                    self.has_worker(*about)
                case _:
                    getattr(self.accounts, kind)(*about)
        except InvalidValue:
            return None
        return self.take_asked()[kind, *about]


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(f"workers.{name}.main") is not None
    except ModuleNotFoundError:
        return False
