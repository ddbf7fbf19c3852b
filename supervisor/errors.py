"""The exceptions of the supervisor, split by whose fault it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC, errorcode

from supervisor.printable import quoted

EXIT_FAILED = 1  # the next start may succeed
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h: the definitions prevent a start
SHORTAGES = frozenset({EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC})  # what the host lacks now, it may have later


class SpawnError(Exception):
    """Root of all exceptions that the supervisor itself raises."""


class DefinitionsError(SpawnError):
    """The definitions are wrong. `problems` lists all problems as `FILE:LINE: message`.

    `passing`: the same files may be right the next time, because a name service did not answer or the
    evaluation was interrupted.
    """

    def __init__(self, problems: list[str], passing: bool = False) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.passing = passing


class OtherDefinitionsError(SpawnError):
    """The definitions differ from the expected ones; `digest` is the digest of the present ones."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"definitions not changed: they are not the expected ones, their digest is {digest}")
        self.digest = digest


class RuntimeFolderError(SpawnError):
    """The run-time folder cannot be used, or another supervisor uses it."""


class ShortageError(SpawnError):
    """The host lacks what a take-over needs; the services of the earlier spawnd live on."""


class StepError(SpawnError):
    """A step of starting a service failed; the text names the step, the path and the errno (0: none).

    `line` is the number of the line to correct in the file `path`, 0 without one.
    """

    def __init__(self, step: str, path: str, errno: int, cause: str, line: int = 0) -> None:
        where = f" {quoted(path)}" if path else ""
        name = f" ({errorcode[errno]})" if errno in errorcode else ""
        super().__init__(f"cannot {step}{where}: {cause}{name}")
        self.step = step
        self.path = path
        self.errno = errno
        self.cause = cause
        self.line = line


def is_shortage(error: Exception) -> bool:
    """Whether the same action may succeed later because the host has more room then."""
    return isinstance(error, StepError | OSError) and error.errno in SHORTAGES


@contextmanager
def suppress_but_shortage() -> Iterator[None]:
    """Suppress an OSError, unless the same action may succeed later."""
    try:
        yield
    except OSError as error:
        if is_shortage(error):
            raise


class ServedFileError(StepError):
    """A path leads to a file system whose server, a process or a remote host, may never answer.

    spawnd does not access such a file itself.
    """

    def __init__(self, path: str) -> None:
        super().__init__("open", path, 0, "its file system has a server that may never answer")


class PeerError(SpawnError):
    """A peer (control client, notifying service) broke the protocol."""
