"""Output of services that is in the journal, by journalctl(1)."""

from __future__ import annotations

import os

from supervisor.ctl.errors import CallFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def show(name: str, count: int, follow: bool) -> None:
    """Become a journalctl that prints it.  Raises CallFailed."""
    command = _command(name, count, follow)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the arguments are ours
    except OSError as error:
        raise _failed(name, error) from error


def lines(name: str, count: int, follow: bool = False) -> Iterator[str]:
    """Its last lines and, to follow, those that come after them.  Raises CallFailed."""
    from subprocess import PIPE, Popen  # takes a while to import

    command = [*_command(name, count, follow), "-q", "-o", "cat"]
    try:
        process = Popen(command, stdout=PIPE, encoding="utf-8", errors="backslashreplace")  # whatever the locale
    except OSError as error:
        raise _failed(name, error) from error
    with process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                yield line.removesuffix("\n")
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise CallFailed(f"the output of {name} is in the journal: journalctl ended with {process.returncode}")


def _command(name: str, count: int, follow: bool) -> list[str]:
    return ["journalctl", "-t", name, "-n", str(count), *(["-f"] if follow else [])]


def _failed(name: str, error: OSError) -> CallFailed:
    return CallFailed(f"the output of {name} is in the journal: cannot run journalctl: {error}")
