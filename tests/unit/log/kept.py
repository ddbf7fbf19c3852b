"""The content of a service's ring."""

from __future__ import annotations

from supervisor.log.output import Outputs


def kept_output(outputs: Outputs, name: str) -> bytes:
    piece = outputs.since(name)
    assert piece is not None
    return piece.data
