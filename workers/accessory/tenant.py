"""Somebody who asks, with what is answered without a further look: requests that were answered before."""

from __future__ import annotations

from typing import Any

from workers.accessory.entry import Entry
from workers.accessory.rights import Rights

MOST_ANSWERS = 1024
LONGEST = 512  # bytes of a datagram that is remembered

# the entry that it is about, the reply, and its descriptors as sendmsg takes them
Answer = tuple[Entry, list[bytes], list[tuple[int, int, Any]]]


class Tenant:
    """All clients with the same rights."""

    __slots__ = ("answers", "rights")

    def __init__(self, rights: Rights) -> None:
        self.rights = rights
        self.answers: dict[bytes, Answer] = {}

    def remember(self, datagram: bytes, answer: Answer) -> None:
        """Answer this datagram so, as long as all that is in the answer lives."""
        if len(datagram) > LONGEST:
            return
        if len(self.answers) >= MOST_ANSWERS:
            self._forget(next(iter(self.answers)))
        self.answers[datagram] = answer
        answer[0].answers += ((self.answers, datagram),)

    def _forget(self, datagram: bytes) -> None:
        entry = self.answers.pop(datagram)[0]
        entry.answers = tuple(known for known in entry.answers if known != (self.answers, datagram))
