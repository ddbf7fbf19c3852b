"""`dns`: what the resolver asks, resolv.conf(5)."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from supervisor.definitions.convert.mapping import names
from supervisor.definitions.convert.sequence import each, items
from supervisor.definitions.convert.text import text
from supervisor.definitions.near import hint
from supervisor.definitions.problems import Bad
from supervisor.definitions.scope import Scope
from supervisor.definitions.values import describe

Words = dict[str, list[str]]


def dns(value: object, scope: Scope) -> Words:
    """A list of name servers, or a table with `nameservers`, `search` and `options`."""
    if isinstance(value, list | str):
        return {"nameservers": each([value] if isinstance(value, str) else value, scope, _server, "dns")}
    found: Words = {}
    given: dict[str, Any] = names(value, '{ nameservers = { "192.0.2.53" }, search = { "example.com" } }')
    for name, words in sorted(given.items()):
        try:
            if name not in _PARTS:
                raise Bad("unknown key" + hint(name, _PARTS))
            listed = [words] if isinstance(words, str) else items(words, name)
            found[name] = each(listed, scope, _PARTS[name], "dns", name)
        except Bad as error:
            scope.bad(error, "dns", name)
    return found


def _server(value: object, scope: Scope) -> str:
    written = text(value, scope)
    try:
        ip_address(written)
    except ValueError:
        raise Bad(f"{describe(value)} is not the address of a name server") from None
    return written


def _word(value: object, scope: Scope) -> str:
    written = text(value, scope)
    if not written.isprintable() or len(written.split()) != 1 or written[0] in "#;":
        raise Bad(f"{describe(value)} is not a word")
    return written


_PARTS: dict[str, Callable[[object, Scope], str]] = {"nameservers": _server, "search": _word, "options": _word}
