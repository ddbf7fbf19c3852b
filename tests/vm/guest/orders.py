"""What the host tells a machine, and what the machine tells the host: plain data, the same on both sides.

Orders lie in the machine as a file.  Messages come back over the second serial port, a line of JSON each; all carry the
token of the orders, so that nothing else that ever gets onto that line can be taken for one.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PATH = Path("/opt/checks/orders.json")
PORT = Path("/dev/ttyS1")

# kinds of messages
START = "start"  # boot: its number, from 1
REPORT = "report"  # report: a report of pytest, serialized
PROBLEM = "problem"  # text: checks cannot even be run
END = "end"  # then: "reboot" or "poweroff", which the machine does now


@dataclass(frozen=True, slots=True)
class Orders:
    """`checks`: what pytest is to run, as node ids or options; nothing at all where it is empty."""

    suite: str
    token: str
    checks: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls) -> Orders:
        """In the machine."""
        return cls(**json.loads(PATH.read_text()))


def new_token() -> str:
    return secrets.token_hex(16)


def encode(token: str, kind: str, content: dict[str, Any]) -> bytes:
    return json.dumps({"token": token, "kind": kind, **content}).encode() + b"\n"


def decode(token: str, line: bytes) -> dict[str, Any] | None:
    """A message with `kind`, or None for anything that is none."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    if not isinstance(message, dict) or message.get("token") != token or not isinstance(message.get("kind"), str):
        return None
    return message
