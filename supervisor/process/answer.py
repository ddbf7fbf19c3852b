"""What a function of a service answers, in a file of the run-time folder.

A file rather than a pipe: it is there also for a spawnd that was not there when the function ended.
One JSON object, `{"ok": true or false, "text": …}`, written at once; `text` is what it has to say.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass

LARGEST = 64 << 10  # bytes


@dataclass(frozen=True, slots=True)
class Answer:
    ok: bool
    text: str = ""


def open_answer(path: str) -> int:
    """An empty file to write the answer to, open; what was in it is gone.  The caller owns it.  Raises OSError."""
    with suppress(FileNotFoundError):
        os.unlink(path)  # not written over: what still has the old one open has nothing to say any more
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def take_answer(path: str) -> Answer | None:
    """The answer, whose file is removed; None where there is none or it was cut off."""
    try:
        with open(path, "rb") as file:
            message = json.loads(file.read(LARGEST))
        # half of a pair, which JSON can have, is nothing that could be written anywhere
        return Answer(bool(message["ok"]), str(message["text"]).encode(errors="backslashreplace").decode())
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # whoever wrote it may be anybody
        return None
    finally:
        with suppress(OSError):
            os.unlink(path)
