"""The answer about a service that nobody has defined: a worker, a network namespace, a definition that is new."""

from __future__ import annotations

import os
import re

from supervisor.printable import quoted

MOST_FILES = 1000  # that are looked into
LARGEST = 1 << 20  # bytes of a definition file
NETNS = "netns@"
LOG = "log"


def how_to_define(name: str) -> str:
    """Return how such a service comes about, with `; ` in front; '' where the name tells nothing."""
    if name == LOG:
        return "; the log worker runs where there is no journal and a service has log()"
    if name.startswith(NETNS):
        return f"; it is there where a definition file has `netns.{name.removeprefix(NETNS)} = {{ … }}`"
    if name == "netns":
        return "; network namespaces are services of names like netns@blue"
    from supervisor.definitions.convert.worker import installed  # only an error needs it

    return f"; {definition(name)}" if name in installed() else ""


def definition(worker: str) -> str:
    """Return how to define a worker that ships."""
    line = f'{worker} = {{ worker = "{worker}", … }}'
    return f"no definition has `{line}`: `make install PLATFORM=1` installs one, docs/{worker}.md explains it"


def how_to_apply(name: str, folder: str = "") -> str:
    """Return how a service comes about that a file defines already, with `; ` in front; else ''.

    The file is in `folder`, or where spawnd looks unless it is told otherwise.
    """
    from supervisor.places import SYSCONFDIR  # only an error needs it

    folder = folder or f"{SYSCONFDIR}/spawnd/services.d"
    written = re.escape(name)
    defines = re.compile(
        rf"""^(?:_G\.)?{written}\s*=(?!=)|^_G\[\s*["']{written}["']\s*\]\s*=|\bmodule\s*\(\s*["']{written}["']""", re.M
    )
    try:
        files = sorted(entry.path for entry in os.scandir(folder) if entry.name.endswith(".lua") and entry.is_file())
    except OSError:
        return ""
    for path in files[:MOST_FILES]:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                found = defines.search(file.read(LARGEST))
        except OSError:
            continue
        if found:
            return f"; {quoted(path)} defines it: `spawnctl apply` brings that into force"
    return ""
