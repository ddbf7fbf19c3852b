"""Commands of the build: quiet while they work, with their last words when they do not."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.vm.errors import BuildError

LAST_WORDS = 60  # lines
# An index that does not answer must not hold up everything: the whole of the tests has its limit.
TIMEOUT_S = 600.0


# Mounts that nobody else sees; and what is started ends with what has started it, however that ends.
APART = ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--mount", "--pid", "--fork", "--kill-child"]


def run(command: Sequence[str | Path]) -> None:
    """Raises BuildError with the end of its output, also where it takes longer than TIMEOUT_S."""
    _run([*APART, "--mount-proc", "--", *map(str, command)], None)


def run_inside(root: Path, command: Sequence[str], env: Mapping[str, str]) -> None:
    """The same with `root` as the root of all paths, and the network of this host."""
    _run([*APART, f"--root={root}", "--mount-proc", "--", *command], env)


def _run(command: Sequence[str], env: Mapping[str, str] | None) -> None:
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=env,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        output = error.stdout if isinstance(error.stdout, str) else (error.stdout or b"").decode(errors="replace")
        raise BuildError(_failure(command, f"took longer than {TIMEOUT_S:g} s", output)) from error
    if result.returncode != 0:
        raise BuildError(_failure(command, f"status {result.returncode}", result.stdout))


def _failure(command: Sequence[str], what: str, output: str) -> str:
    return "\n".join([f"cannot run {' '.join(command)!r}: {what}", *output.splitlines()[-LAST_WORDS:]])
