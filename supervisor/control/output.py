"""The kept output of a service as lines of text, for replies."""

from __future__ import annotations

from supervisor.control.core import Core, Unit
from supervisor.control.errors import NoLog, NoSuchService
from supervisor.log.handler import CUT
from supervisor.log.ring import START, Piece, Position
from supervisor.loop.loop import Timer
from supervisor.varlink.pending_call import PendingCall

LONGEST_REST = 3  # bytes of an incomplete character

INTERVAL = 0.2  # seconds between two looks; the log worker reports no writes


def read(core: Core, name: str, position: Position = START) -> Piece | None:
    """Return the output from a position on, in whole characters; None if the journal has it. Raises NoLog."""
    try:
        piece = core.output(name, position)
    except LookupError as error:
        raise NoLog(name) from error
    rest = unfinished(piece.data) if piece is not None else 0
    if piece is None or not rest:
        return piece
    return piece._replace(data=piece.data[:-rest], end=Position(piece.end.byte - rest, piece.end.line))


def reply_of(piece: Piece | None, count: int | None = None) -> dict[str, object]:
    """Return a reply with all lines or the last `count`; `partial` means that the last line has no end yet."""
    if piece is None:
        return {"journal": True, "lines": [], "lost": 0, "partial": False}
    *lines, rest = f"{CUT if piece.cut else ''}{piece.data.decode(errors='backslashreplace')}".split("\n")
    lines = [line.removesuffix("\r") for line in lines]
    if rest:
        lines.append(rest)
    shown = lines if count is None else lines[len(lines) - min(count, len(lines)) :]
    return {"journal": False, "lines": shown, "lost": piece.lost if count is None else 0, "partial": bool(rest)}


def unfinished(data: bytes) -> int:
    """Return the number of bytes at the end that begin an incomplete UTF-8 character."""
    for length in range(1, min(LONGEST_REST, len(data)) + 1):
        byte = data[-length]
        if byte >= 0xC0:
            whole = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return length if length < whole else 0
        if byte < 0x80:
            return 0
    return 0


class Follow:
    """Follows the output until the call ends, or fails when the service or its log is gone.

    Reads only while the caller keeps up. For a slow caller the output waits in the ring, and is lost once it
    is overwritten; the next reply says how much is lost.
    """

    def __init__(self, pending: PendingCall, core: Core, name: str, count: int) -> None:
        self._pending = pending
        self._core = core
        self._name = name
        self._position = START
        self._timer: Timer | None = None
        pending.stream(self._look)
        pending.on_end(core.manager.observe(self._changed))
        pending.on_end(self._stop_timer)
        if "position" in pending.memo:
            self._position = Position(*pending.memo["position"])
            self._look()
        else:
            self._begin(count)

    def _begin(self, count: int) -> None:
        """Send the last lines."""
        piece = read(self._core, self._name)
        if piece is None:
            self._pending.reply(reply_of(None))  # the journal has it, so it cannot be followed
            return
        self._pending.reply_more(reply_of(piece, count))
        self._arrive(piece.end)
        self._wait()

    def _arrive(self, position: Position) -> None:
        self._position = position
        self._pending.memo["position"] = [position.byte, position.line]

    def _look(self) -> None:
        self._stop_timer()
        self._send_news()
        self._wait()

    def _send_news(self) -> None:
        if not self._pending.has_room:
            return
        try:
            piece = read(self._core, self._name, self._position)
        except NoLog as error:
            self._pending.fail(error)
            return
        if piece is not None and (piece.data or piece.lost):
            self._pending.reply_more(reply_of(piece))
            self._arrive(piece.end)

    def _wait(self) -> None:
        """Look again after the interval, or as soon as the caller has read enough."""
        if self._pending.has_room:
            self._timer = self._pending.loop.call_later(INTERVAL, self._look)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _changed(self, unit: Unit) -> None:
        if unit.name == self._name and self._name not in self._core.manager.units:
            self._send_news()
            self._pending.fail(NoSuchService(self._name))
