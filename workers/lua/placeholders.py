"""The parameters that an SQL text wants: the highest of `$1`, `$2`, …

A script's array does not tell how many values it has where the last ones are nil, and the
server wants all of them.  What counts is outside of strings, quoted names and comments, as
PostgreSQL reads them (Lexical Structure, in its manual).
"""

from __future__ import annotations

import re
from functools import lru_cache

_TOKEN = re.compile(
    rb"""
      \$(?P<number>[0-9]+)
    | (?P<tag>\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$) .*? (?: (?P=tag) | \Z )  # a string between tags
    | (?<![A-Za-z0-9_$\x80-\xff])[eE] ' (?: [^'\\] | \\. | '' )* '?  # a string with backslashes
    | [A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*                     # a name, with $ in it
    | ' (?: [^'] | '' )* '?
    | " [^"]* "?
    | -- [^\n]*
    | (?P<comment>/\*)
    """,
    re.VERBOSE | re.DOTALL,
)
MOST = 65535  # parameters of a statement in the protocol; more are for the server to refuse
_COMMENT = re.compile(rb"/\*|\*/")


@lru_cache(maxsize=1024)
def placeholders(sql: bytes) -> int:
    """How many parameters the text wants."""
    highest = at = 0
    while (token := _TOKEN.search(sql, at)) is not None:
        at = token.end()
        if token["number"]:
            highest = max(highest, min(int(token["number"]), MOST))
        elif token["comment"]:
            at = _end_of_comment(sql, at)
    return highest


def _end_of_comment(sql: bytes, at: int) -> int:
    """Comments contain each other."""
    depth = 1
    while depth and (mark := _COMMENT.search(sql, at)) is not None:
        depth += 1 if mark[0] == b"/*" else -1
        at = mark.end()
    return len(sql) if depth else at
