"""What spawnd is told: in order, and again while there is no spawnd that could hear it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from supervisor.loop.loop import Loop, Timer
from supervisor.notify.sender import Sender

AGAIN = 1.0  # seconds until it is tried again
MOST = 64  # that wait; what is older is of no interest any more


class Reports:
    """Owns its socket; descriptors that go along stay the caller's, and open."""

    def __init__(self, loop: Loop, sender: Sender) -> None:
        self._loop = loop
        self._sender = sender
        self._waiting: deque[tuple[tuple[str, ...], Sequence[int]]] = deque(maxlen=MOST)
        self._timer: Timer | None = None

    def send(self, *lines: str, fds: Sequence[int] = ()) -> None:
        if self._sender.leads_somewhere:
            self._waiting.append((lines, fds))
            self._flush()

    def _flush(self) -> None:
        while self._waiting:
            lines, fds = self._waiting[0]
            if not self._sender.send_nowait(*lines, fds=fds):
                if self._timer is None:
                    self._timer = self._loop.call_later(AGAIN, self._try_again)
                return
            self._waiting.popleft()

    def _try_again(self) -> None:
        self._timer = None
        self._flush()
