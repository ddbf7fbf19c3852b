"""The check of an import: the definitions are evaluated as spawnd does it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

DEADLINE = 4.5  # seconds of processor time for a file, as in spawnd


@dataclass(frozen=True, slots=True)
class Check:
    """Problems and notices, as `FILE:LINE: message` with the names of files that were given."""

    services: int
    problems: list[str]
    notices: list[str]


def check(texts: Mapping[str, str]) -> Check:
    """Check definition files, by name, with their texts. Users that this host lacks are notices.

    Raises OSError if there is no room for temporary files.
    """
    from supervisor.definitions.evaluate import evaluate  # loads Lua

    found: list[dict[str, Any]] = []
    with TemporaryDirectory(prefix="spawnctl-import-") as folder:
        for name, text in texts.items():
            with open(os.path.join(folder, name), "x", encoding="utf-8") as file:
                file.write(text)
        evaluate([folder], found.append, deadline_s=DEADLINE, root=False, programs=True)
    here = f"{folder}/"
    services = sum("service" in record for record in found)
    problems = [str(record["problem"]).replace(here, "") for record in found if "problem" in record]
    notices = [str(record["notice"]).replace(here, "") for record in found if "notice" in record]
    return Check(services, problems, notices)
