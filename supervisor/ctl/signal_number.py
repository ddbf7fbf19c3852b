"""Signals as operators write them."""

from __future__ import annotations

import re
import signal

from supervisor.ctl.errors import UsageError


def is_signal(text: str) -> bool:
    """Whether `signal_number` would take `text`."""
    try:
        signal_number(text)
    except UsageError:
        return False
    return True


def signal_number(text: str) -> int:
    """The number of `TERM`, `SIGTERM`, `15`, `RTMIN+1`, `RTMAX-2`.  Raises UsageError."""
    name = text.upper().removeprefix("SIG")
    if name.isdecimal() and name.isascii():
        number = int(name)
    elif match := re.fullmatch(r"(RTMIN|RTMAX)([+-]\d{1,2})?", name, re.ASCII):
        number = getattr(signal, f"SIG{match[1]}") + int(match[2] or 0)
        if not signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            number = 0
    else:
        number = getattr(signal.Signals, f"SIG{name}", 0)
    if not 1 <= number <= signal.SIGRTMAX:
        raise UsageError(f"no such signal: {text!r}")
    return int(number)
