"""Running a program and taking its output, without a shell."""

from __future__ import annotations

import os
import subprocess

from workers.lua.state import Value

LONGEST = 400  # characters of what it said on stderr that the message has


def run(
    arguments: bytes, given: bytes, environment: bytes | None, folder: bytes | None, timeout: float | None
) -> Value:
    """Its output where it exits with status 0; else nil, a message, the status and the output.

    The status of one that was killed is 128 and the signal's number, as shells have it.  Lists come as text with
    a NUL behind each word.  Raises OSError where it cannot be executed.
    """
    argv = arguments.split(b"\0")[:-1]
    env = None if environment is None else dict(word.partition(b"=")[::2] for word in environment.split(b"\0")[:-1])
    try:
        done = subprocess.run(
            argv, input=given, capture_output=True, env=env, cwd=folder, timeout=timeout, check=False, close_fds=True
        )
    except subprocess.TimeoutExpired as error:
        return None, f"{os.fsdecode(argv[0])} did not end within {timeout:g} s", 124, error.stdout or b""
    if done.returncode == 0:
        return done.stdout
    return None, _message(argv[0], done), _status(done.returncode), done.stdout


def _message(program: bytes, done: subprocess.CompletedProcess[bytes]) -> bytes:
    code = done.returncode
    how = b"exited with status %d" % code if code > 0 else b"was killed by signal %d" % -code
    said = done.stderr.strip()[:LONGEST]
    return b"%s %s%s" % (program, how, b": " + said if said else b"")


def _status(code: int) -> int:
    return code if code > 0 else 128 - code
