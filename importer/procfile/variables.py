"""The file `.env` beside a Procfile, which a service reads itself as its `env_file`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from importer.ledger import Directive, Ledger
from importer.result import SourceError
from importer.sources import read_source

NAME = ".env"
FIRST_PORT = 5000  # of foreman

_KEY = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?P<value>.*)")


@dataclass(frozen=True, slots=True)
class Variables:
    """The path of the file, or ''; the first port, with the line that says it."""

    path: str = ""
    first_port: int = FIRST_PORT
    port_line: Directive | None = None


def read(folder: str, ledger: Ledger) -> Variables:
    """Return the variables of a folder; the result has an error for each line that no service could read."""
    path = os.path.join(folder, NAME)
    if not os.path.lexists(path):
        return Variables()
    try:
        text = read_source(path)
    except SourceError as error:
        ledger.result.errors.append(error)
        return Variables()
    port, port_line = FIRST_PORT, None
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        match = _KEY.fullmatch(line)
        if match is None:
            ledger.result.errors.append(SourceError(path, number, "'NAME=VALUE' expected"))  # it may be a secret
            continue
        directive = Directive(path, number, f"{match['name']}=…")
        value = match["value"]
        if value.startswith('"') and "\\" in value:
            ledger.approximate(directive, "a backslash stays one in 'env_file'", None)
        ledger.carried(directive)
        if match["name"] == "PORT" and value.strip("\"'").isdecimal():
            port, port_line = int(value.strip("\"'")[:6]), directive
    return Variables(path, port, port_line)
