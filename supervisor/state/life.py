"""The life of a service, written down: what differs from one that never started."""

from __future__ import annotations

from typing import Any

from supervisor.definitions.report import defaults_of, differing
from supervisor.lifecycle.life import Cause, Life, State, Step, Then
from supervisor.state.file import Record

_DEFAULTS = defaults_of(Life)
_ENUMS: dict[str, Any] = {"state": State, "step": Step, "then": Then, "cause": Cause}


def life_record(life: Life) -> Record:
    return differing(life, _DEFAULTS)


def read_life(record: Record) -> Life:
    """Raises TypeError or ValueError for what another version knows."""
    return Life(**{key: _ENUMS[key](value) if key in _ENUMS else value for key, value in record.items()})
