"""Values of attributes of xinetd as values of definitions."""

from __future__ import annotations

import re
from ipaddress import ip_network

from importer.values import Value

EVERYBODY = ["0.0.0.0/0", "::/0"]
UNLIMITED = "UNLIMITED"

_PARTS = re.compile(r"(\d{1,3}(?:\.\d{1,3}){0,3})")
_FACTORIZED = re.compile(r"(?P<head>(?:\d{1,3}\.){1,3})\{(?P<ends>\d+(?:,\d+)*)\}")
_HOURS = re.compile(r"(\d{1,2}):(\d\d)-(\d{1,2}):(\d\d)")
_SIZE = re.compile(r"(\d+)([KkMm]?)")


def networks(text: str) -> list[str] | None:
    """Return the networks of an entry of only_from or no_access, or None for a name."""
    if factorized := _FACTORIZED.fullmatch(text):
        ends = factorized["ends"].split(",")
        return _checked([_network(f"{factorized['head']}{end}", zeros=False) for end in ends])
    if _PARTS.fullmatch(text):
        return list(EVERYBODY) if set(text) <= set("0.") else _checked([_network(text, zeros=True)])
    if not set(text.lower()) <= set("0123456789abcdef.:/"):
        return None
    return _checked(["::/0" if text == "::" else text])


def _checked(texts: list[str]) -> list[str] | None:
    """Return networks with the bits of hosts at zero, or None if one of them is none."""
    try:
        found = [ip_network(text, strict=False) for text in texts]
    except ValueError:
        return None
    return [
        str(network if "/" in text else network.network_address) for network, text in zip(found, texts, strict=True)
    ]


def _network(text: str, zeros: bool) -> str:
    """Return the network of the first bytes of an address; zeros at its end are of no account with `zeros`."""
    parts = text.split(".")
    while zeros and len(parts) > 1 and parts[-1] == "0":
        parts.pop()
    address = ".".join([*parts, *["0"] * (4 - len(parts))])
    return address if len(parts) == 4 else f"{address}/{8 * len(parts)}"


def hours(text: str) -> str | None:
    """Return a span of time; the last minute belongs to that of xinetd. None for anything else."""
    match = _HOURS.fullmatch(text)
    if match is None:
        return None
    first, last = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4]) + 1
    if first >= last or last > 24 * 60:
        return None
    return f"{first // 60:02}:{first % 60:02}-{last // 60:02}:{last % 60:02}"


def size(text: str) -> Value | None:
    """Return a limit in bytes; None for anything else."""
    if text.upper() == UNLIMITED:
        return "unlimited"
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    return f"{match[1]}{match[2].lower()}" if match[2] else int(match[1])


def integer(text: str, least: int = 0) -> int | None:
    """Return a whole number of at least `least`, or None."""
    return int(text) if re.fullmatch(r"-?\d{1,9}", text) and int(text) >= least else None


def decimal(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None


def umask(text: str) -> str | None:
    return f"{int(text, 8):03o}" if re.fullmatch(r"[0-7]{1,4}", text) and int(text, 8) <= 0o777 else None
