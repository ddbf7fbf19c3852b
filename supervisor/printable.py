"""Text that a terminal, a log or a process title can take, whatever is in it.

A path is bytes.  Python has those that are not UTF-8 as surrogates (PEP 383); people see `\\xfc`.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """Return the text in one line, with escapes for all that would command a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else escape(char) for char in text)


def encodable(text: str) -> str:
    """Return the text with escapes for what UTF-8 cannot encode; everything else stays."""
    return "".join(escape(char) if _is_surrogate(char) else char for char in text) if _has_bytes(text) else text


def quoted(path: str) -> str:
    """Return a path in quotation marks, as `!r` does, with its bytes as they are."""
    shown = repr(path)
    if not _has_bytes(path):
        return shown
    inside = "".join(escape(char) if _is_surrogate(char) else repr(char)[1:-1] for char in path)
    return f"{shown[0]}{inside}{shown[-1]}"


def escape(char: str) -> str:
    """Return the escape of a character, or of the byte that a surrogate stands for."""
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()


def _is_surrogate(char: str) -> bool:
    return "\ud800" <= char <= "\udfff"


def _has_bytes(text: str) -> bool:
    return not text.isascii() and any(map(_is_surrogate, text))
