"""Failures of steps in opening a descriptor or starting a service, and their report from a child to spawnd.

A child writes one JSON object to a close-on-exec pipe: `{"step": …, "path": …, "errno": …, "cause": …}`,
with the `line` of a file that is to be corrected. An empty pipe at its end means that exec has succeeded, or
that a worker is set up and closed the pipe. The pipe is a pair of sockets and works both ways: the child waits
for a byte before it becomes the service, so that spawnd has written down the new process. If spawnd is gone,
no byte comes, and the child ends.

Lines `{"notice": …}` may come first; they name features that the service has to do without.
"""

from __future__ import annotations

import errno
import json
import os
from types import TracebackType

from supervisor.errors import StepError


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

    The message for a lack of memory is prepared in advance: later there is no memory to make it.
    """

    __slots__ = ("_out_of_memory", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.expect_no_memory("set up")

    def expect_no_memory(self, step: str, path: str = "", cause: str = "") -> None:
        """Prepare the message for a lack of memory in this step."""
        self._out_of_memory = _message(failed(step, path, errno.ENOMEM, cause))

    def report(self, error: BaseException) -> None:
        """Report a failure to spawnd. Raises OSError."""
        try:
            data = self._out_of_memory if isinstance(error, MemoryError) else _message(failure_of(error))
        except MemoryError:
            data = self._out_of_memory
        # One write without slices, which would take memory: an empty pipe has room for PIPE_BUF and much more.
        os.write(self.fd, data)

    def notice(self, text: str) -> None:
        """Report a feature that is missing but does not keep the service from starting. Raises OSError."""
        os.write(self.fd, json.dumps({"notice": text}).encode() + b"\n")

    def is_released(self) -> bool:
        """Wait until spawnd has written down this process; return False if spawnd is gone. Raises OSError."""
        return bool(os.read(self.fd, 1))

    def close(self) -> None:
        """Report success, where no exec does."""
        os.close(self.fd)


def _message(failure: StepError) -> bytes:
    message = {"step": failure.step, "path": failure.path, "errno": failure.errno, "cause": failure.cause}
    if failure.line:
        message["line"] = failure.line
    return json.dumps(message).encode()


def failure_of(error: BaseException) -> StepError:
    """Return `error` as a failed step; any other exception is a defect of the set-up."""
    if isinstance(error, StepError):
        return error
    number = error.errno if isinstance(error, OSError) and error.errno else 0
    return failed("set up", "", number, f"{type(error).__name__}: {error}")


def split_notices(data: bytes) -> tuple[tuple[str, ...], bytes]:
    """Return the notices in the complete data from the pipe, and the rest."""
    *lines, rest = data.split(b"\n")
    return tuple(str(json.loads(line)["notice"]) for line in lines), rest


def read_failure(data: bytes) -> StepError | None:
    """Return the failure in the complete data from the pipe; None if there is none."""
    if not data:
        return None
    try:
        message = json.loads(data)
        step, path, cause = str(message["step"]), str(message["path"]), str(message["cause"])
        return StepError(step, path, int(message["errno"]), cause, int(message.get("line", 0)))
    except (ValueError, TypeError, KeyError):
        return StepError("start", "", 0, f"unreadable report {data[:80]!r}")
