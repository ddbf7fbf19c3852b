"""A definition that waits for the process of the present one to be gone."""

from __future__ import annotations

from supervisor.definitions.service import Service
from supervisor.process.descriptors import Opened
from supervisor.process.table import claim, close_all, wanted


class Pending:
    """`service` is what is to come; owns `opened`, what was opened for it already, by slot."""

    __slots__ = ("opened", "service")

    def __init__(self, service: Service, opened: dict[str, Opened]) -> None:
        self.service = service
        self.opened = opened

    def inherit(self, before: Pending) -> None:
        """Take the place of another that never got its turn: keep what both want, close the rest."""
        self.opened.update(claim(wanted(self.service), self.opened, before.opened))
        before.discard()

    def discard(self) -> None:
        close_all(self.opened)
