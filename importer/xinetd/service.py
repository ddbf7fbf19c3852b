"""One service of xinetd while it is converted."""

from __future__ import annotations

from dataclasses import dataclass, field

from importer.ledger import Directive, Ledger
from importer.result import Definition
from importer.values import Value
from importer.xinetd.attributes import Attributes


class BadValue(Exception):
    """A value that xinetd would refuse."""


@dataclass(slots=True)
class Service:
    """Attributes, and the definition that they become. With `connections` each client gets a process."""

    directive: Directive
    name: str  # of the service, not of the definition
    attributes: Attributes
    ledger: Ledger
    definition: Definition
    connections: bool = True
    accept: dict[str, Value] = field(default_factory=dict)

    def carried(self, name: str) -> None:
        for attribute in self.attributes.of(name):
            self.ledger.carried(attribute.directive)

    def approximate(self, name: str, text: str) -> None:
        for attribute in self.attributes.of(name):
            self.ledger.approximate(attribute.directive, text, self.definition)

    def left_out(self, name: str, text: str) -> None:
        for attribute in self.attributes.of(name):
            self.ledger.left_out(attribute.directive, text, self.definition)

    def only(self, name: str) -> str:
        """Return the value of an attribute. Raises BadValue if there are none or several."""
        found = self.attributes.values(name)
        if len(found) != 1:
            raise BadValue(f"{name}: one value expected, not {len(found)}")
        return found[0]

    def flags(self) -> set[str]:
        return {flag.upper() for flag in self.attributes.values("flags")}
