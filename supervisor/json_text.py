r"""JSON that every parser accepts, whatever the texts contain.

Python represents a byte that is not UTF-8 as a lone surrogate (PEP 383) and writes it as `"\udcff"`, which is
invalid Unicode: other parsers refuse or replace it. There are two alternatives here. Text for people and for
other programs has the four characters `\xff`, as in all messages. Text that has to be read back unchanged, as
in the state file, has a NUL followed by four digits. A NUL is written in the same way.
"""

from __future__ import annotations

import json
import re

TYPE_CHECKING = False  # spawnctl does not import `typing`, to save time
if TYPE_CHECKING:
    from typing import Any

# One escape of a text that is otherwise ASCII: a pair of surrogates is a character.
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|u([dD][89a-fA-F]..|0000)|.)")
_EXACT = re.compile(r"\\(?:u0000([0-9a-f]{4})|.)")
_COMPACT = json.JSONEncoder(separators=(",", ":"))  # dumps() would make one for each call
_SURROGATE, _NUL = r"\ud", r"\u0000"


def dumps(value: object, separators: tuple[str, str] | None = None) -> str:
    r"""Return JSON with `\\xff` for each byte that is not UTF-8. Raises TypeError, ValueError, RecursionError."""
    text = json.dumps(value, separators=separators)
    return _ESCAPE.sub(_shown, text) if _SURROGATE in text else text


def dumps_exactly(value: object) -> str:
    """Return JSON in one line, for `loads_exactly`."""
    text = _COMPACT.encode(value)
    return _ESCAPE.sub(_kept, text) if _SURROGATE in text or _NUL in text else text


def loads_exactly(text: str) -> Any:
    """Return the value that `dumps_exactly` was given, or any other JSON. Raises ValueError, RecursionError."""
    return json.loads(_EXACT.sub(_restored, text) if _NUL in text else text)


def _shown(escape: re.Match[str]) -> str:
    code = int(escape[1] or "0", 16)
    if not code:
        return escape[0]
    return rf"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else rf"\\u{code:04x}"


def _kept(escape: re.Match[str]) -> str:
    return escape[0] if escape[1] is None else rf"\u0000{escape[1].lower()}"


def _restored(escape: re.Match[str]) -> str:
    return escape[0] if escape[1] is None else rf"\u{escape[1]}"
