"""How the last process of a service ended, as a plain value that can be written and read back."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that exited has a `status`, one that was killed a `signum` with its name, `signal`.

    Where there was none, or it never came to its program, `step` says what failed, on what
    `path`, with which `errno` (0: none) and why.  `function` is the function that it ran, if any, `cause`
    what that said.  All of them empty: nobody could see it end.
    """

    status: int | None = None
    signum: int | None = None
    signal: str = ""
    core: bool = False
    out_of_memory: bool = False
    step: str = ""
    path: str = ""
    errno: int = 0
    cause: str = ""
    function: str = ""

    @classmethod
    def of_step(cls, step: str, path: str, errno: int, cause: str) -> Ended:
        return cls(step=step, path=path, errno=errno, cause=cause)
