"""What the ring of a service holds."""

from __future__ import annotations

from supervisor.log.output import Outputs


def kept_output(outputs: Outputs, name: str) -> bytes:
    piece = outputs.since(name)
    assert piece is not None
    return piece.data
