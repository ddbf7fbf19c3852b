"""Following the output of a service: a reply whenever there is more of it."""

from __future__ import annotations

from supervisor.control.core import Core, Unit
from supervisor.control.errors import NoLog, NoSuchService
from supervisor.control.output import read, reply_of
from supervisor.log.ring import START, Position
from supervisor.loop.loop import Timer
from supervisor.varlink.pending_call import PendingCall

INTERVAL = 0.2  # seconds between two looks; the log worker tells nobody when it has written


class Follow:
    """Ends with the call, or with an error when the service is no more or has no log any more.

    Looks only while the caller has taken what was sent.  For one who reads slowly the rest
    waits in the ring, and is lost when that has turned round; the next reply says how much.
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
            self._pending.reply(reply_of(None))  # the journal has it: there is nothing to follow
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
        """Look again in a while, or as soon as there is room."""
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
