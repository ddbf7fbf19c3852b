"""File permissions: the nine characters that `ls` shows, or an octal string."""

from __future__ import annotations

import re

from supervisor.definitions.problems import Bad
from supervisor.definitions.values import describe, is_number

_SHOWN = re.compile(r"[r-][w-][x-][r-][w-][x-][r-][w-][x-]")
_OCTAL = re.compile(r"0?[0-7]{1,3}")


def umask(value: object) -> int:
    """The bits that are masked: `---rwxrwx` is 0o077.  Raises Bad."""
    return _bits(value, '"---rwxrwx" shows the bits that are masked, "077" is the same')


def mode(value: object) -> int:
    """The bits that are set: `rw-rw----` is 0o660.  Raises Bad."""
    return _bits(value, '"rw-rw----" or "660"')


def show(bits: int) -> str:
    """The nine characters for `bits`."""
    return "".join(letter if bits & 0o400 >> place else "-" for place, letter in enumerate("rwxrwxrwx"))


def _bits(value: object, example: str) -> int:
    if isinstance(value, str):
        if _SHOWN.fullmatch(value):
            return sum(0o400 >> place for place, letter in enumerate(value) if letter != "-")
        if _OCTAL.fullmatch(value):
            return int(value, 8)
    if is_number(value):
        # 022 is twenty-two in Lua
        raise Bad(f'{describe(value)} is a number, which Lua reads as decimal: write it as text, like "022"')
    raise Bad(f"{describe(value)} are not permissions ({example})")
