"""The exceptions of the supervisor, split by whose fault it is."""

from __future__ import annotations

from errno import errorcode

from supervisor.printable import quoted

EXIT_FAILED = 1  # the next start may succeed
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h: the definitions prevent a start


class SpawnError(Exception):
    """Root of everything that the supervisor raises itself."""


class DefinitionsError(SpawnError):
    """The definitions are wrong.  `problems` holds all of them, `FILE:LINE: message` each.

    `passing`: the same files may be good the next time, as a name service did not answer or
    the evaluation was not let finish.
    """

    def __init__(self, problems: list[str], passing: bool = False) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.passing = passing


class OtherDefinitionsError(SpawnError):
    """The definitions are not those that were expected; `digest` is theirs."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"definitions not changed: they are not the expected ones, their digest is {digest}")
        self.digest = digest


class RuntimeFolderError(SpawnError):
    """The run-time folder cannot be used, or another supervisor uses it."""


class StepError(SpawnError):
    """A step of starting a service failed: which, on what path, with which errno (0: none); its text names that.

    `line` is the number of the line in the file `path` that is to be corrected, 0 where there is none.
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


class PeerError(SpawnError):
    """A peer (control client, notifying service) broke the protocol."""
