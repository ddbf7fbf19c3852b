"""Attributes that count for a service: its own ones, and those of the defaults as far as it leaves them."""

from __future__ import annotations

from collections.abc import Iterable

from importer.xinetd.files import Attribute

LISTS = frozenset(
    "only_from no_access log_on_success log_on_failure passenv env access_times flags type disabled enabled".split()
)
IN_DEFAULTS = frozenset(
    "log_type bind interface per_source umask log_on_success log_on_failure only_from no_access passenv instances "
    "disabled enabled banner banner_success banner_fail groups cps max_load mdns nice env v6only libwrap".split()
)
OF_ALL = frozenset({"disabled", "enabled"})


class Attributes:
    """Values by name. Of several attributes that are no lists the first one counts, as in xinetd."""

    def __init__(self, defaults: Iterable[Attribute], own: Iterable[Attribute]) -> None:
        self._counting: dict[str, list[Attribute]] = {}
        self.repeated: list[Attribute] = []
        mine: dict[str, list[Attribute]] = {}
        for attribute in own:
            mine.setdefault(attribute.name, []).append(attribute)
        for attribute in defaults:
            if attribute.name in IN_DEFAULTS - OF_ALL and not _replaced(mine.get(attribute.name, [])):
                self._counting.setdefault(attribute.name, []).append(attribute)
        for name, attributes in mine.items():
            counting = self._counting.setdefault(name, [])
            if name in LISTS:
                counting += attributes
            else:
                counting += attributes[:1]
                self.repeated += attributes[1:]

    @property
    def names(self) -> list[str]:
        return list(self._counting)

    def of(self, name: str) -> list[Attribute]:
        """Return the attributes of a name that count, those with `-=` among them."""
        return self._counting.get(name, [])

    def items(self, name: str) -> list[tuple[Attribute, str]]:
        """Return the values of a list, with where each of them comes from."""
        found: list[tuple[Attribute, str]] = []
        for attribute in self.of(name):
            if attribute.operator == "-=":
                found = [(source, value) for source, value in found if value not in attribute.values]
            else:
                found += [(attribute, value) for value in attribute.values]
        return found

    def values(self, name: str) -> list[str]:
        return [value for _, value in self.items(name)]

    def first(self, name: str, default: str = "") -> str:
        """Return the first value, or the default."""
        return next(iter(self.values(name)), default)


def _replaced(own: list[Attribute]) -> bool:
    """Whether attributes of a service take the place of the defaults."""
    return any(attribute.operator == "=" or attribute.name not in LISTS for attribute in own)
