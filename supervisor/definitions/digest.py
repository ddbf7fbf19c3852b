"""A digest of definitions: whoever has seen a plan for some can say that they mean these, and no others."""

from __future__ import annotations

import json
from collections.abc import Iterable

from supervisor.definitions.report import Record

PLACE = frozenset({"file", "line", "lines"})
SETTINGS_PLACE = "places"
OUTPUTS = ("stdout", "stderr")


def digest_of_text(text: str) -> str:
    """The SHA-256, in hex, of a file's text."""
    from hashlib import sha256

    return sha256(text.encode()).hexdigest()


def digest_of(services: Iterable[Record], settings: Record) -> str:
    """The SHA-256, in hex, of what is defined, in its order; where it stands does not count."""
    from hashlib import sha256  # takes a while to import

    digest = sha256()
    for record in services:
        kept = {key: value for key, value in record.items() if key not in PLACE}
        if "worker" in record:  # that it has the key counts, as without it a worker shares spawnd's log
            kept["lines"] = [key for key in OUTPUTS if key in record.get("lines", ())]
        digest.update(_canonical(kept))
    digest.update(_canonical({key: value for key, value in settings.items() if key != SETTINGS_PLACE}))
    return digest.hexdigest()


def _canonical(record: Record) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n"
