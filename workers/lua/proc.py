"""`proc`: processes, this one's user and limits.  The Lua part has checked the arguments."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NoReturn

from supervisor.definitions.convert.limits import UNITS
from supervisor.definitions.problems import Bad
from supervisor.definitions.service import UNLIMITED
from supervisor.definitions.signals import number as signal_number
from supervisor.definitions.units import is_unlimited
from supervisor.linux.stdio import fflush
from workers.lua.errors import Fault, bad_argument
from workers.lua.processes import processes
from workers.lua.result import with_errno
from workers.lua.running import run
from workers.lua.state import Value

Words = tuple[bytes, ...]


class Proc:
    name = "proc"
    waiting: Mapping[str, Callable[..., Value]] = {}

    def __init__(self) -> None:
        self.functions = with_errno({
            "ps": processes,
            "kill": _kill,
            "run": run,
            "getpid": os.getpid,
            "getppid": os.getppid,
            "getuid": os.getuid,
            "getgid": os.getgid,
            "setuid": os.setresuid,
            "setgid": _setgid,
            "fork": _fork,
            "wait": _wait,
            "exec": _exec,
            "exit": _exit,
            "uname": os.uname,
            "limit": _limit,
            "set_limit": _set_limit,
        })

    def close(self) -> None:
        pass


def _kill(pid: int, name: bytes | int) -> None:
    try:
        signum = 0 if name == 0 else signal_number(name if isinstance(name, int) else os.fsdecode(name))
    except Bad as error:
        raise bad_argument("kill", 2, error.message) from None
    os.kill(pid, signum)


def _setgid(real: int, effective: int, saved: int) -> None:
    """The supplementary groups go with it: those of root are nobody else's."""
    os.setgroups([])
    os.setresgid(real, effective, saved)


def _flush() -> None:
    """Or what Python and Lua have in their buffers would be written twice, or never."""
    sys.stdout.flush()
    with suppress(OSError):
        fflush()


def _fork() -> int:
    _flush()
    return os.fork()


def _wait(pid: int, at_once: bool) -> Value:
    """The pid, how it ended (`exit` or `signal`) and the number; false where `at_once` and it has not."""
    found, status = os.waitpid(pid, os.WNOHANG if at_once else 0)
    if found == 0:
        return False
    code = os.waitstatus_to_exitcode(status)
    return (found, "exit", code) if code >= 0 else (found, "signal", -code)


def _exec(program: bytes, arguments: bytes, environment: bytes | None) -> NoReturn:
    """Lists come as text with a NUL behind each word.  Never comes back but with an OSError."""
    _flush()
    for signum in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(signum, signal.SIG_DFL)  # Python ignores them, and so would the program
    argv = [program, *words(arguments)]
    env = os.environ if environment is None else dict(word.partition(b"=")[::2] for word in words(environment))
    os.execvpe(program, argv, env)  # noqa: S606 - no shell is the point


def words(text: bytes) -> list[bytes]:
    return text.split(b"\0")[:-1]


def _exit(status: int) -> NoReturn:
    _flush()
    os._exit(status)


# limits


def _number(name: bytes) -> int:
    found = getattr(resource, f"RLIMIT_{os.fsdecode(name).upper()}", None)
    if os.fsdecode(name) not in UNITS or found is None:
        raise Fault(f"there is no limit {os.fsdecode(name)!r}")
    return int(found)


def _limit(name: bytes, hard: bool) -> Value:
    value = resource.getrlimit(_number(name))[1 if hard else 0]
    return "unlimited" if value == resource.RLIM_INFINITY else value


def _set_limit(name: bytes, hard: bool, value: bytes | float) -> None:
    """In the units of the definitions.  What keeps the soft limit at or below the hard one comes along."""
    number = _number(name)
    wanted = _parse(os.fsdecode(name), os.fsdecode(value) if isinstance(value, bytes) else value)
    soft_now, hard_now = resource.getrlimit(number)
    if hard:
        pair = (wanted if _above(soft_now, wanted) else soft_now, wanted)
    else:
        pair = (wanted, wanted if _above(wanted, hard_now) else hard_now)
    try:
        resource.setrlimit(number, pair)
    except (OSError, ValueError) as error:  # ValueError: not permitted
        raise Fault(f"cannot set limit {os.fsdecode(name)!r}: {error}") from None


def _parse(name: str, value: str | float) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        found = UNLIMITED if is_unlimited(value) else UNITS[name](value)
    except Bad as error:
        raise Fault(f"cannot set limit {name!r}: {error.message}") from None
    return resource.RLIM_INFINITY if found == UNLIMITED else found


def _above(one: int, other: int) -> bool:
    """-1 is no limit."""
    if other == resource.RLIM_INFINITY:
        return False
    return one == resource.RLIM_INFINITY or one > other
