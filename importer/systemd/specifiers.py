"""Specifiers of unit files, as in systemd.unit(5), as far as they are known before the service starts."""

from __future__ import annotations

import os
import re

_ESCAPED = re.compile(r"\\x([0-9a-fA-F]{2})")
_SPECIFIER = re.compile(r"%(.?)", re.S)
FOLDERS = {
    "t": "/run", "S": "/var/lib", "C": "/var/cache", "L": "/var/log", "E": "/etc", "T": "/tmp", "V": "/var/tmp",  # noqa: S108 - texts of units
}  # fmt: skip
OF_MANAGER = {"u": "root", "U": "0", "g": "root", "G": "0", "h": "/root", "s": "/bin/sh"}
OF_HOST = "Hlvm"  # they differ between hosts


class SpecifierError(ValueError):
    """A specifier has no value here."""


def unescape(name: str) -> str:
    """Return what systemd-escape(1) made a name of: `dev-sda\\x2d1` is `dev/sda-1`."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), name.replace("-", "/"))


def values_of(name: str) -> dict[str, str]:
    """Return the specifiers of the unit `name`, such as `web@blue.service`."""
    whole, _dot, _kind = name.rpartition(".")
    prefix, at, instance = whole.partition("@")
    last = prefix.rpartition("-")[2]
    path = unescape(instance if at else prefix)
    return {
        "n": name, "N": whole, "p": prefix, "P": unescape(prefix), "i": instance, "I": unescape(instance),
        "j": last, "J": unescape(last), "f": path if path.startswith("/") else f"/{path}", "%": "%",
        **FOLDERS, **OF_MANAGER,
    }  # fmt: skip


def of_host(letter: str) -> str:
    """Return the value of `%H`, `%l`, `%v` or `%m` on this host. Raises SpecifierError."""
    system = os.uname()
    if letter == "m":
        try:
            with open("/etc/machine-id", encoding="ascii") as file:
                return file.read().strip()
        except (OSError, UnicodeDecodeError):
            raise SpecifierError("%m is not known here: this host has no /etc/machine-id") from None
    return {"H": system.nodename, "l": system.nodename.partition(".")[0], "v": system.release}[letter]


def expand(text: str, values: dict[str, str]) -> str:
    """Return a text with the values of its specifiers. Raises SpecifierError for one that has none."""

    def value(found: re.Match[str]) -> str:
        letter = found[1]
        if letter in values:
            return values[letter]
        if letter and letter in OF_HOST:
            return of_host(letter)
        if not letter.isalpha():
            return found[0]  # as systemd leaves it
        raise SpecifierError(f"the specifier %{letter} has no equivalent")

    return _SPECIFIER.sub(value, text)


def names_host(text: str) -> bool:
    """Whether a text has a specifier whose value is that of this host."""
    return any(found[1] and found[1] in OF_HOST for found in _SPECIFIER.finditer(text))
