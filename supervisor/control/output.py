"""The kept output of a service as lines of text, for replies."""

from __future__ import annotations

from dataclasses import replace

from supervisor.control.core import Core
from supervisor.control.errors import NoLog
from supervisor.log.handler import CUT
from supervisor.log.ring import START, Piece, Position

LONGEST_REST = 3  # bytes of a character that is not all there


def read(core: Core, name: str, position: Position = START) -> Piece | None:
    """Return the output from a position on, whole characters only; None: it is in the journal.  Raises NoLog."""
    try:
        piece = core.output(name, position)
    except LookupError as error:
        raise NoLog(name) from error
    rest = unfinished(piece.data) if piece is not None else 0
    if piece is None or not rest:
        return piece
    return replace(piece, data=piece.data[:-rest], end=Position(piece.end.byte - rest, piece.end.line))


def reply_of(piece: Piece | None, count: int | None = None) -> dict[str, object]:
    """A reply with all its lines or the last of them; the last one is `partial` where it has no end yet."""
    if piece is None:
        return {"journal": True, "lines": [], "lost": 0, "partial": False}
    *lines, rest = f"{CUT if piece.cut else ''}{piece.data.decode(errors='backslashreplace')}".split("\n")
    lines = [line.removesuffix("\r") for line in lines]
    if rest:
        lines.append(rest)
    shown = lines if count is None else lines[len(lines) - min(count, len(lines)) :]
    return {"journal": False, "lines": shown, "lost": piece.lost if count is None else 0, "partial": bool(rest)}


def unfinished(data: bytes) -> int:
    """Return the number of bytes at the end that begin a UTF-8 character without its rest."""
    for length in range(1, min(LONGEST_REST, len(data)) + 1):
        byte = data[-length]
        if byte >= 0xC0:
            whole = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return length if length < whole else 0
        if byte < 0x80:
            return 0
    return 0
