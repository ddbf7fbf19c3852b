"""Failures: a step of opening a descriptor or of starting a service, and its report from a child to spawnd.

A child writes one JSON object to a close-on-exec pipe: `{"step": …, "path": …, "errno": …, "cause": …}`.  A pipe that
ends empty means that exec worked, or that a worker is set up and closed it.  The pipe goes both ways, being a pair of
sockets: the child waits for a byte before it becomes the service, so that spawnd has written down whom it started.
Without spawnd there is no byte, and the child ends.

Lines `{"notice": …}` may come before that: what the service has to do without.
"""

from __future__ import annotations

import errno
import json
import os
from types import TracebackType

from supervisor.errors import StepError


class step:
    """`with step("open", path):` is a step of opening a descriptor or of starting a service."""

    __slots__ = ("_name", "_path")

    def __init__(self, name: str, path: str = "") -> None:
        self._name = name
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, OSError):
            raise failed(self._name, self._path, error.errno or 0, error.strerror or str(error)) from error


def failed(name: str, path: str, number: int, cause: str = "") -> StepError:
    """The error of a step; `cause` is the kernel's text for `number` where none is given."""
    return StepError(name, path, number, cause or os.strerror(number))


class ErrorPipe:
    """The child's end of the pipe; it owns the descriptor, which moves while the table is arranged.

    The message for a lack of memory is written beforehand: later there is no memory to write it with.
    """

    __slots__ = ("_out_of_memory", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.expect_no_memory("set up")

    def expect_no_memory(self, step: str, path: str = "", cause: str = "") -> None:
        """From now on, it is this step that fails when memory runs out."""
        self._out_of_memory = _message(failed(step, path, errno.ENOMEM, cause))

    def report(self, error: BaseException) -> None:
        """Tell spawnd.  Raises OSError."""
        try:
            data = self._out_of_memory if isinstance(error, MemoryError) else _message(failure_of(error))
        except MemoryError:
            data = self._out_of_memory
        # Never in parts: an empty pipe has room for PIPE_BUF and much more, and a slice would take memory.
        os.write(self.fd, data)

    def notice(self, text: str) -> None:
        """Tell spawnd what does not keep the service from starting.  Raises OSError."""
        os.write(self.fd, json.dumps({"notice": text}).encode() + b"\n")

    def is_released(self) -> bool:
        """Wait until spawnd knows this process; False: there is no spawnd any more.  Raises OSError."""
        return bool(os.read(self.fd, 1))

    def close(self) -> None:
        """Tell spawnd that all went well, where no exec does it."""
        os.close(self.fd)


def _message(failure: StepError) -> bytes:
    message = {"step": failure.step, "path": failure.path, "errno": failure.errno, "cause": failure.cause}
    return json.dumps(message).encode()


def failure_of(error: BaseException) -> StepError:
    """`error` as a step that failed: whatever is not one is a mistake of ours."""
    if isinstance(error, StepError):
        return error
    number = error.errno if isinstance(error, OSError) and error.errno else 0
    return failed("set up", "", number, f"{type(error).__name__}: {error}")


def split_notices(data: bytes) -> tuple[tuple[str, ...], bytes]:
    """Return the notices in all that came through the pipe until its end, and the rest."""
    *lines, rest = data.split(b"\n")
    return tuple(str(json.loads(line)["notice"]) for line in lines), rest


def read_failure(data: bytes) -> StepError | None:
    """The failure in all that came through the pipe until its end; None where that is nothing."""
    if not data:
        return None
    try:
        message = json.loads(data)
        return StepError(str(message["step"]), str(message["path"]), int(message["errno"]), str(message["cause"]))
    except (ValueError, TypeError, KeyError):
        return StepError("start", "", 0, f"unreadable report {data[:80]!r}")
