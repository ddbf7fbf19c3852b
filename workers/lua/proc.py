"""`proc`: processes of this host, programs, this process's user and limits. The Lua part has checked the arguments."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import NamedTuple, NoReturn

from supervisor.definitions.problems import InvalidValue
from supervisor.definitions.scalars import LIMIT_UNITS, is_unlimited, signal_number
from supervisor.definitions.service import UNLIMITED
from supervisor.linux.glance import CONTENT, glance
from supervisor.linux.libc import fflush
from workers.lua.paths import by_number, held
from workers.lua.state import Fault, Value, bad_argument, with_errno

LONGEST_ERROR = 400  # characters of a program's stderr in a message
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")
CPUCLOCK_SCHED = 2  # <linux/posix-timers.h>: the clock of a process, as clock_getcpuclockid(3) returns it


class Proc:
    name = "proc"
    waiting: Mapping[str, Callable[..., Value]] = {}

    def __init__(self) -> None:
        self.functions = with_errno({
            "ps": _processes,
            "kill": _kill,
            "run": _run_program,
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
    except InvalidValue as error:
        raise bad_argument("kill", 2, error.message) from None
    os.kill(pid, signum)


def _setgid(real: int, effective: int, saved: int) -> None:
    """Set the group and drop the supplementary groups, which are root's."""
    os.setgroups([])
    os.setresgid(real, effective, saved)


def _flush() -> None:
    """Write the buffers of Python and Lua, which would otherwise be written twice, or never."""
    sys.stdout.flush()
    with suppress(OSError):
        fflush()


def _fork() -> int:
    _flush()
    return os.fork()


def _wait(pid: int, at_once: bool) -> Value:
    """Return the pid, `exit` or `signal`, and the number; false if `at_once` and the process has not ended."""
    found, status = os.waitpid(pid, os.WNOHANG if at_once else 0)
    if found == 0:
        return False
    code = os.waitstatus_to_exitcode(status)
    return (found, "exit", code) if code >= 0 else (found, "signal", -code)


def _exec(program: bytes, arguments: bytes, environment: bytes | None) -> NoReturn:
    """Execute a program. Lists are text with a NUL after each word. Raises OSError."""
    _flush()
    for signum in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(signum, signal.SIG_DFL)  # Python ignores them, and so would the program
    argv = [program, *_words(arguments)]
    env = os.environ if environment is None else dict(word.partition(b"=")[::2] for word in _words(environment))
    os.execvpe(program, argv, env)  # noqa: S606 - no shell is the point


def _words(text: bytes) -> list[bytes]:
    return text.split(b"\0")[:-1]


def _exit(status: int) -> NoReturn:
    _flush()
    os._exit(status)


# limits


def _number(name: bytes) -> int:
    found = getattr(resource, f"RLIMIT_{os.fsdecode(name).upper()}", None)
    if os.fsdecode(name) not in LIMIT_UNITS or found is None:
        raise Fault(f"there is no limit {os.fsdecode(name)!r}")
    return int(found)


def _limit(name: bytes, hard: bool) -> Value:
    value = resource.getrlimit(_number(name))[1 if hard else 0]
    return "unlimited" if value == resource.RLIM_INFINITY else value


def _set_limit(name: bytes, hard: bool, value: bytes | float) -> None:
    """Set a limit, in the units of the definitions.

    The other limit changes too if the soft one would otherwise exceed the hard one.
    """
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
        found = UNLIMITED if is_unlimited(value) else LIMIT_UNITS[name](value)
    except InvalidValue as error:
        raise Fault(f"cannot set limit {name!r}: {error.message}") from None
    return resource.RLIM_INFINITY if found == UNLIMITED else found


def _above(one: int, other: int) -> bool:
    """Compare limits, where -1 means no limit."""
    if other == resource.RLIM_INFINITY:
        return False
    return one == resource.RLIM_INFINITY or one > other


# programs


def _run_program(
    arguments: bytes, given: bytes, environment: bytes | None, folder: bytes | None, timeout: float | None, follow: bool
) -> Value:
    """Run a program without a shell; return its output, or nil, a message, status and output if it failed.

    The status of a killed program is 128 plus the signal's number, as in shells. Lists are text with a NUL
    after each word. `follow` concerns links on the way to `folder`, see `paths`. Raises OSError if the
    program cannot be executed.
    """
    argv = _words(arguments)
    env = None if environment is None else dict(word.partition(b"=")[::2] for word in _words(environment))
    try:
        with ExitStack() as stack:
            cwd = None if folder is None else by_number(stack.enter_context(held(folder, follow))[0])
            done = subprocess.run(
                argv, input=given, capture_output=True, env=env, cwd=cwd, timeout=timeout, check=False, close_fds=True
            )
    except subprocess.TimeoutExpired as error:
        return None, f"{os.fsdecode(argv[0])} did not end within {timeout:g} s", 124, error.stdout or b""
    if done.returncode == 0:
        return done.stdout
    return None, _message(argv[0], done), _status(done.returncode), done.stdout


def _message(program: bytes, done: subprocess.CompletedProcess[bytes]) -> bytes:
    code = done.returncode
    how = b"exited with status %d" % code if code > 0 else b"was killed by signal %d" % -code
    said = done.stderr.strip()[:LONGEST_ERROR]
    return b"%s %s%s" % (program, how, b": " + said if said else b"")


def _status(code: int) -> int:
    return code if code > 0 else 128 - code


# processes of this host: proc(5)


def _processes() -> bytes:
    """Return the processes of this host, as `/proc` shows them, with a NUL after each field.

    pid, ppid, uid, gid, state, memory (bytes), CPU time (seconds), name, command line (words separated by
    spaces; the first 16 KiB).
    """
    pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    answers = glance([f"{CONTENT}/proc/{pid}/{name}" for pid in pids for name in ("stat", "cmdline")])
    rows = []
    for pid, stat, command in zip(pids, answers[::2], answers[1::2], strict=True):
        with suppress(OSError):  # it has ended meanwhile
            if isinstance(stat, bytes):
                rows.append(_row(pid, _of_stat(stat), command))
            elif stat in (errno.ETIMEDOUT, errno.EBUSY):
                rows.append(_row(pid, _of_status(pid), command))
    return b"".join(rows)


class _Facts(NamedTuple):
    name: bytes
    state: bytes
    parent: bytes
    memory: int  # bytes
    cpu: float  # seconds


def _of_stat(text: bytes) -> _Facts:
    # the name may contain anything, so fields are counted from its closing bracket, which field 3 follows
    name = text[text.index(b"(") + 1 : text.rindex(b")")]
    fields = text[text.rindex(b")") + 2 :].split()
    cpu = (int(fields[11]) + int(fields[12])) / TICKS
    return _Facts(name, fields[0], fields[1], int(fields[21]) * PAGE_SIZE, cpu)


def _of_status(pid: int) -> _Facts:
    """Return the facts of a process whose `stat` cannot be read because its execve hangs. Raises OSError."""
    with open(f"/proc/{pid}/status", "rb") as file:
        status = dict(line.rstrip(b"\n").split(b":\t", 1) for line in file if b":\t" in line)
    cpu = time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED)
    memory = int(status.get(b"VmRSS", b"0 kB").split()[0]) * 1024
    return _Facts(status[b"Name"], status[b"State"][:1], status[b"PPid"], memory, cpu)


def _row(pid: int, facts: _Facts, command: bytes | int) -> bytes:
    owner = os.stat(f"/proc/{pid}")
    words = command.rstrip(b"\0").replace(b"\0", b" ") if isinstance(command, bytes) else b""
    ids = b"%d %s %d %d" % (pid, facts.parent, owner.st_uid, owner.st_gid)
    numbers = (*ids.split(), facts.state, b"%d" % facts.memory, b"%.2f" % facts.cpu)
    return b"".join(field + b"\0" for field in (*numbers, facts.name, words))
