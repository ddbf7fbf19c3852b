"""Programs of services: workers that are installed, and files that can be executed, as far as the checking user knows.

Nothing is executed. A step before the start may make a program, so every finding is only a notice.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import spawn_supervisor
from supervisor.definitions.checking import Checking
from supervisor.definitions.problems import InvalidValue, did_you_mean
from supervisor.definitions.service import Service
from supervisor.definitions.values import describe
from supervisor.launch import PATH as LAUNCH
from supervisor.printable import quoted

FIRST_LINE = 256  # bytes of it that the kernel reads: BINPRM_BUF_SIZE
DEFAULT_PATH = "/bin:/usr/bin"  # of env(1) without $PATH
ENV = "/env"
ON_NOEXEC = "on a file system that is mounted with noexec"
_SHELL = re.compile(r"\$\{?(?:HOME|PATH|USER)\b|(?:\A|[:=])~/")  # a part that a shell would expand

BUILT_IN = frozenset({"log", "function"})  # the supervisor runs them itself

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def own_problem() -> str:
    """Return the obstacle to every start, '' without one."""
    return f"{LAUNCH}: it is {ON_NOEXEC}, so no service can be started" if forbids_execution(LAUNCH) else ""


class _Looks:
    """Looks at programs and paths, one for all services that see them alike."""

    def __init__(self) -> None:
        self._problems: dict[tuple[object, ...], str] = {}
        self._absent: dict[str, bool] = {}

    def problem(self, path: str, service: Service, root: bool) -> str:
        """Return the same as `_problem`."""
        rights = service.user, service.uid, service.gid, service.gids
        seen = path, rights, service.env.get("PATH"), bool(service.env_file)
        if seen not in self._problems:
            self._problems[seen] = _problem(path, service, root)
        return self._problems[seen]

    def unreachable(self, service: Service) -> str:
        """Return the same as `_unreachable`."""
        seen = "", service.user, service.uid, service.gid, service.gids
        if seen not in self._problems:
            self._problems[seen] = _unreachable(service)
        return self._problems[seen]

    def is_absent(self, path: str) -> bool:
        """Whether a path does not exist; a path that only another user can see counts as one that does."""
        if path not in self._absent:
            try:
                os.stat(path)
                self._absent[path] = False
            except OSError as error:
                self._absent[path] = isinstance(error, FileNotFoundError)
        return self._absent[path]


def check_programs(services: dict[str, Service], checkings: dict[str, Checking]) -> None:
    """Give a notice for each program that would not start."""
    looks = _Looks()
    for service in services.values():
        _check_expansion(service, checkings[service.name])
        _check_banners(service, checkings[service.name], looks)
        own = service.worker or (service.functions and not service.functions_as_root)
        if own and checkings[service.name].databases.root:
            if problem := looks.unreachable(service):
                checkings[service.name].notice(problem, "user")
        if service.chroot:  # the other paths are in another root
            _check_paths([("chroot", service.chroot)], service, checkings[service.name], looks)
            continue
        for key, path in (("exec", service.exec), ("check", service.check[0] if service.check else "")):
            problem = looks.problem(path, service, checkings[service.name].databases.root) if path else ""
            if problem:
                checkings[service.name].notice(problem, key)
        files = [("env_file", path) for path in service.env_file if not path.startswith("-")]
        _check_paths([("cwd", service.cwd), *files], service, checkings[service.name], looks)


def _check_paths(wanted: list[tuple[str, str]], service: Service, checking: Checking, looks: _Looks) -> None:
    """Give a notice for each path that a start needs and that does not exist; each has its key."""
    if service.functions:
        return  # they may make it
    for key, path in wanted:
        if looks.is_absent(path):
            checking.notice(f"{path!r} does not exist", key)


def _check_banners(service: Service, checking: Checking, looks: _Looks) -> None:
    """Give a notice for each banner that does not exist, in the root of the host: no client would be served."""
    accept = service.accept
    banners = {"banner": accept.banner, "banner_refused": accept.banner_refused} if accept is not None else {}
    for name, path in banners.items():
        if path and looks.is_absent(path):
            checking.notice(f"{path!r} does not exist", "accept", name)


def _check_expansion(service: Service, checking: Checking) -> None:
    """Give a notice for values that only a shell would expand."""
    for name, value in service.env.items():
        if _SHELL.search(value):
            checking.notice("is passed as written: neither variables nor ~ are expanded in env", "env", name)
    if "-c" in service.arg:
        return  # for a shell
    for number, value in enumerate(service.arg, 1):
        if _SHELL.search(value) and not (service.expand_env and "~/" not in value):
            hint = "~ is not expanded" if "~/" in value else "expand_env = true expands variables"
            checking.notice(f"is passed as written: {hint}", "arg", number)


def _problem(path: str, service: Service, root: bool) -> str:
    """Return the obstacle to the execution of a program; '' if none is known."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return _absent(path, error)
    if stat.S_ISDIR(mode):
        return f"{path!r} is a directory, not a program"
    if not stat.S_ISREG(mode):  # opening it could block for ever, or have side effects
        return f"{path!r} is not a regular file"
    if not mode & 0o111:
        return f"{path!r} is not executable: chmod a+x"
    if forbids_execution(path):
        return f"{path!r} is {ON_NOEXEC}"
    with suppress(OSError), open(path, "rb") as file:
        if problem := _script_problem(path, file.read(FIRST_LINE), service):
            return problem
    if root:
        with suppress(OSError), _as_user(service):
            if not os.access(path, os.X_OK, effective_ids=True):
                return f"user {service.user!r} cannot execute {path!r}"
    return ""


def _unreachable(service: Service) -> str:
    """Return why a user cannot load the modules of this program, as workers and functions do; '' if they can."""
    for path in (sys.executable, spawn_supervisor.HERE):
        parents = [path[: place.start()] or "/" for place in re.finditer("/", path)]
        with suppress(OSError), _as_user(service):
            for folder in (*parents, path):
                if not os.access(folder, os.X_OK, effective_ids=True):
                    who = f"user {service.user!r} cannot enter {folder!r}"
                    return f"{who}, so spawn-supervisor has to be installed elsewhere"
    return ""


def forbids_execution(path: str) -> bool:
    """Whether the file is on a file system that is mounted with noexec, as far as this user can see it."""
    with suppress(OSError):
        return bool(os.statvfs(path).f_flag & os.ST_NOEXEC)
    return False


def _absent(path: str, error: OSError) -> str:
    program, space, rest = path.partition(" ")
    if space and os.path.isfile(program):
        return f"{path!r} does not exist, {program!r} does: arguments go into arg, a list, here {rest!r}"
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
        return f"{path!r} does not exist{'; arguments go into arg, a list' if space else ''}"
    return ""  # only another user can see it


def _script_problem(path: str, begin: bytes, service: Service) -> str:
    """Return the fault in the first line of a script."""
    if not begin.startswith(b"#!"):
        text = bool(begin) and b"\0" not in begin and begin.isascii()
        return f"{path!r} is text without an interpreter: its first line has to be like '#!/bin/sh'" if text else ""
    line = os.fsdecode(begin.partition(b"\n")[0][2:]).lstrip(" \t")
    interpreter, _, argument = line.partition(" ")
    if line.endswith("\r"):
        shown = quoted(line)
        return f"{path!r} has lines that end as in DOS, so its interpreter is {shown}: remove the carriage returns"
    interpreter, argument = interpreter.strip(), argument.strip()
    if not os.path.exists(interpreter):
        return f"{path!r} has the interpreter {quoted(interpreter)}, which does not exist"
    if forbids_execution(interpreter):
        return f"{path!r} has the interpreter {quoted(interpreter)}, which is {ON_NOEXEC}"
    if interpreter.endswith(ENV) and argument and not argument.startswith("-") and "=" not in argument:
        return _not_found(path, argument, service)
    return ""


def _not_found(path: str, name: str, service: Service) -> str:
    """Return the fault if env(1) does not find the interpreter."""
    places = service.env.get("PATH", DEFAULT_PATH)
    if service.env_file or any(os.access(os.path.join(folder, name), os.X_OK) for folder in places.split(":")):
        return ""
    return f"{path!r} has the interpreter {quoted(name)}, which is not in PATH: env = {{ PATH = … }}, now {places!r}"


@contextmanager
def _as_user(service: Service) -> Iterator[None]:
    """Take on the effective rights of a service. The real user stays root, so the user cannot trace this process."""
    groups, gid, uid = os.getgroups(), os.getegid(), os.geteuid()
    try:
        os.setgroups(service.gids)
        os.setegid(service.gid)
        os.seteuid(service.uid)
        yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)
        os.setgroups(groups)


def worker(value: object, checking: Checking) -> str:
    """Return the name of an installed worker: the module `workers.NAME.main`."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidValue(f"{describe(value)} is not the name of a worker" + did_you_mean(value, installed()))
    if value in BUILT_IN:
        raise InvalidValue(f"{value!r} is built in and needs no definition")
    if not checking.databases.has_worker(value):
        raise InvalidValue(f"unknown worker {value!r}" + did_you_mean(value, installed()))
    return value


def installed() -> list[str]:
    """Return the names of the workers that a definition can have."""
    package = importlib.util.find_spec("workers")
    folders = package.submodule_search_locations if package else None
    return [
        entry.name
        for folder in folders or ()
        for entry in os.scandir(folder)
        if entry.name not in BUILT_IN and os.path.exists(os.path.join(entry.path, "main.py"))
    ]
