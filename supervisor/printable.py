"""Text for people: what a terminal, a log or a process title can take, numbers and lists of things, and its output.

A path is bytes. Python represents bytes that are not UTF-8 as surrogates (PEP 383); messages show them as `\\xfc`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE, as in shells
SHOWN = 5  # words of a list; the others are only counted


def printable(text: str) -> str:
    """Return the text in one line, with escapes for all terminal controls."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else escape(char) for char in text)


def encodable(text: str) -> str:
    """Return the text with escapes for characters that UTF-8 cannot encode."""
    return "".join(escape(char) if _is_surrogate(char) else char for char in text) if _has_bytes(text) else text


def quoted(path: str) -> str:
    """Return a path in quotation marks, like `!r`, with its bytes as they are."""
    shown = repr(path)
    if not _has_bytes(path):
        return shown
    inside = "".join(escape(char) if _is_surrogate(char) else repr(char)[1:-1] for char in path)
    return f"{shown[0]}{inside}{shown[-1]}"


def escape(char: str) -> str:
    """Return the escape of a character, or of the byte that a surrogate represents."""
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()


def _is_surrogate(char: str) -> bool:
    return "\ud800" <= char <= "\udfff"


def _has_bytes(text: str) -> bool:
    return not text.isascii() and any(map(_is_surrogate, text))


def count(number: int, noun: str) -> str:
    """Return a number with a noun whose plural ends in s: `1 service`, `2 services`, `0 services`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(words: Sequence[str]) -> str:
    """Return a list as text: `a`, `a and b`, `a, b and c`; a long one as its first words and a number."""
    shown = words if len(words) <= SHOWN + 1 else words[:SHOWN]
    if len(shown) < len(words):
        return f"{', '.join(shown)} and {len(words) - len(shown)} others"
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))


def write_out(program: str, status: int) -> int:
    """Write what standard output has buffered. Return the exit status, another one than `status` if this fails."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        return lose_output(program, error)
    return status


def lose_output(program: str, error: OSError) -> int:
    """Discard output that could not be written, which the end of the interpreter would try again.

    Say so, unless only the reader has gone, and return the exit status.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if isinstance(error, BrokenPipeError):
        return EXIT_BROKEN_PIPE
    print(f"{program}: cannot write: {error.strerror}", file=sys.stderr)
    return 1
