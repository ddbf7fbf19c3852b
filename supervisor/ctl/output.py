"""What the verbs print."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

from supervisor.ctl import exit_code
from supervisor.ctl.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def print_json(value: object) -> None:
    """JSON on one line, a list with a line for each item."""
    if isinstance(value, list) and value:
        print("[\n" + ",\n".join(json.dumps(item) for item in value) + "\n]")
    else:
        print(json.dumps(value))


def print_results(results: Sequence[Mapping[str, Any]], as_json: bool, quiet: bool = False) -> int:
    """What came of an order for each service, failures on stderr; the exit code."""
    if as_json:
        print_json(list(results))
    for row in results:
        message = f": {row['message']}" if row["message"] else ""
        line = printable(f"{row['name']}: {row['state']}{message}")
        if not row["ok"]:
            print(line, file=sys.stderr)
        elif not as_json and not quiet:
            print(line)
    return exit_code.DONE if all(row["ok"] for row in results) else exit_code.FAILED
