"""Failures of steps in opening a descriptor or starting a service, and their report from a child to spawnd.

A child writes one JSON object to a close-on-exec pipe: `{"step": …, "path": …, "errno": …, "cause": …}`,
with the `line` of a file that is to be corrected. An empty pipe at its end means that exec has succeeded, or
that a worker is set up and closed the pipe. The pipe is a pair of sockets and works both ways: the child waits
for a byte before it becomes the service, so that spawnd has written down the new process. If spawnd is gone,
no byte comes, and the child ends.

A process with a filter for system calls shares memory, too, whose descriptor comes over the pair of sockets after
blanks. Its report is there even if the filter refuses the write.

Lines `{"notice": …}` may come first; they name features that the service has to do without.

`launch` has no texts (`report.h`). Its cause is empty where the errno says all, and `about`, `name` and `value` say
what else it is; its notices have `errno` and `then`. A byte of a name that is not ASCII comes as half a pair.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from supervisor import why_not_loaded
from supervisor.errors import StepError

# of a program that was not executed, as in arguments.h
IS_THERE, IS_COMMAND_LINE = 1, 2
UNSEARCHABLE, IRREGULAR, ON_NOEXEC, INEXECUTABLE, OF_INTERPRETER = 1, 2, 3, 4, 8


class step:
    """Context of a step of opening a descriptor or of starting a service: `with step("open", path):`."""

    __slots__ = ("_name", "_path")

    def __init__(self, name: str, path: str = "") -> None:
        self._name = name
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, OSError):
            raise failed(self._name, self._path, error.errno or 0, error.strerror or str(error)) from error


def failed(name: str, path: str, number: int, cause: str = "", line: int = 0) -> StepError:
    """Return the error of a step; `cause` defaults to the kernel's text for `number`."""
    return StepError(name, path, number, cause or os.strerror(number), line)


class ErrorPipe:
    """The child's end of the pipe. Owns the descriptor, which moves while the table is arranged.

    The message for a lack of memory is made with this module: later there is no memory for it.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def report(self, error: BaseException) -> None:
        """Report a failure to spawnd. Raises OSError."""
        try:
            data = _OUT_OF_MEMORY if isinstance(error, MemoryError) else _message(failure_of(error))
        except MemoryError:
            data = _OUT_OF_MEMORY
        # One write without slices, which would take memory: an empty pipe has room for PIPE_BUF and much more.
        os.write(self.fd, data)

    def close(self) -> None:
        """Report success, for a child that executes no program."""
        os.close(self.fd)


def _message(failure: StepError) -> bytes:
    message = {"step": failure.step, "path": failure.path, "errno": failure.errno, "cause": failure.cause}
    if failure.line:
        message["line"] = failure.line
    return json.dumps(message).encode()


_OUT_OF_MEMORY = _message(failed("set up", "", errno.ENOMEM))


def failure_of(error: BaseException) -> StepError:
    """Return `error` as a failed step; any other exception is a defect of the set-up."""
    if isinstance(error, StepError):
        return error
    number = error.errno if isinstance(error, OSError) and error.errno else 0
    cause = why_not_loaded(error) if isinstance(error, ImportError | OSError) else ""
    return failed("set up", "", number, cause or f"{type(error).__name__}: {error}")


def split_notices(data: bytes) -> tuple[tuple[str, ...], bytes]:
    """Return the notices in the complete data from the pipe, and the rest."""
    *lines, rest = data.split(b"\n")
    return tuple(_notice(json.loads(line)) for line in lines), rest


def _notice(message: dict[str, Any]) -> str:
    return f"{message['notice']}: {os.strerror(message['errno'])}; {message['then']}"


def read_failure(data: bytes) -> StepError | None:
    """Return the failure in the complete data from the pipe; None if there is none."""
    if not data:
        return None
    try:
        message = json.loads(data)
        number = int(message["errno"])
        cause = str(message["cause"]) or _cause(message, number)
        line = int(message["value"]) if message.get("about") == "line" else int(message.get("line", 0))
        return StepError(_whole(message["step"]), _whole(message["path"]), number, _whole(cause), line)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return StepError("start", "", 0, f"unreadable report {data[:80]!r}")


def _cause(message: Mapping[str, Any], number: int) -> str:
    """Return the cause reported by `launch`: the kernel's text, unless `about` stands for another one."""
    name, value = _whole(message["name"]), int(message["value"])
    match message["about"]:
        case "foreign":
            return (
                f"{name!r} belongs to uid {value}, who can have put it there: "
                "remove it, or choose a folder that other users cannot write to"
            )
        case "link":
            return f"the symbolic link {name!r} is not followed: a user can set it"
        case "hard link":
            return f"{name!r} is a hard link that a user can have made"
        case "proc":
            return "a link of a user leads into /proc"
        case "line":
            return f"line {value} is not KEY=value"
        case "plan":
            return "the plan is none that this version carries out"
        case "forbidden":
            return f"{os.strerror(number)}: {_what_forbids(_whole(message['path']), name, value)}"
        case "program":
            return why_not_executed(_whole(message["path"]), number, os.fsencode(name), value) or os.strerror(number)
    return os.strerror(number)


def why_not_executed(path: str, number: int, begin: bytes, flags: int) -> str:
    """Return a hint that the kernel does not give about a program, from the beginning of its file; '' without one."""
    cause = os.strerror(number)
    if number == errno.ENOEXEC:
        is_text = begin.isascii() and not any(mark in begin for mark in (b"\0", b"\x7f")) and begin[:2] != b"#!"
        return f"{cause}: its first line has to be like #!/bin/sh" if begin and is_text else ""
    if flags & IS_THERE:
        return f"the interpreter that it names{_interpreter(begin)}"
    if flags & IS_COMMAND_LINE:
        return f"{cause}, but {path.partition(' ')[0]!r} exists: arguments go into `arg`"
    return ""


def _what_forbids(path: str, name: str, value: int) -> str:
    """Return why `path` may not be opened or executed: `name` is the folder or file, '' where it has no path."""
    what, is_of_interpreter = value & ~OF_INTERPRETER, bool(value & OF_INTERPRETER)
    if what == UNSEARCHABLE:
        where = repr(name) if name else "a directory of its path"
        return f"its user may not search {where}{', which leads to its interpreter' if is_of_interpreter else ''}"
    which = "its interpreter" if is_of_interpreter else "" if name == path else "the program"
    which = f"{which} {name!r}" if which and name else which or "it"
    if what == IRREGULAR:
        return f"{which} is no regular file"
    if what == ON_NOEXEC:
        return f"{'its file system' if which == 'it' else f'the file system of {which}'} is mounted with noexec"
    return f"its user may not execute {which}"


def _interpreter(begin: bytes) -> str:
    """Return a hint that the interpreter of a script does not exist; '' for other programs."""
    first = begin.partition(b"\n")[0].removeprefix(b"#!").strip(b" \t")
    if not begin.startswith(b"#!") or not first:
        return " does not exist"
    name = os.fsdecode(first).replace("\t", " ").split(" ")[0]
    advice = ": its lines end with carriage returns, which have to be removed" if name.endswith("\r") else ""
    return f", {name!r}, does not exist{advice}"


def _whole(text: str) -> str:
    """Join characters that came as single bytes."""
    return str(text).encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
