"""Points in time, as an operator writes them: `24h` (ago), `2026-11-21`, `2026-11-21T22:40`."""

from __future__ import annotations

import re
import time
from argparse import ArgumentTypeError
from datetime import datetime

_AGO = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhdw])", re.A)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def moment(text: str) -> float:
    """Seconds since 1970.  A day is its beginning; without an offset it is local time.  Raises ArgumentTypeError."""
    ago = _AGO.fullmatch(text)
    if ago:
        return time.time() - float(ago[1]) * _SECONDS[ago[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise ArgumentTypeError(f"neither how long ago (24h, 7d) nor a time (2026-11-21T22:40): {text!r}") from error
