"""Definitions from text, by the same way as in spawnd but for the fork."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from supervisor.definitions.evaluate import evaluate
from supervisor.definitions.report import NOTHING, Record, ReportReader, read_report
from supervisor.definitions.service import Definitions, Service
from supervisor.errors import DefinitionsError

DEADLINE_S = 20.0  # of CPU time: no test comes near it unless it means to


def records(
    *paths: str | Path,
    deadline_s: float = DEADLINE_S,
    root: bool = True,
    digest: bool = False,
    programs: bool = False,
    before: Definitions = NOTHING,
) -> list[Record]:
    """The records of a report."""
    found: list[Record] = []
    names = [os.fspath(path) for path in paths]
    options = {"root": root, "digest": digest, "programs": programs}
    evaluate(names, found.append, deadline_s=deadline_s, before=before, **options)
    return found


def read(found: list[Record], before: Definitions) -> Definitions:
    """The definitions in a report that leaves out what is known."""
    reader = ReportReader(before)
    reader.feed(encode(found))
    return reader.definitions()


def encode(found: list[Record]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in found)


def load_paths(*paths: str | Path, deadline_s: float = DEADLINE_S, root: bool = True) -> Definitions:
    return read_report(encode(records(*paths, deadline_s=deadline_s, root=root)))


class Files:
    """Definition files in a folder of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, text: str, name: str = "a.lua") -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def load(self, text: str, *, root: bool = True, deadline_s: float = DEADLINE_S) -> Definitions:
        return load_paths(self.write(text), root=root, deadline_s=deadline_s)

    def service(self, keys: str, *, root: bool = True) -> Service:
        """The service `x` with some keys besides `exec`."""
        return self.load(f'x = {{ exec = "/bin/x", {keys} }}', root=root).services["x"]

    def problems(self, text: str, *, root: bool = True, deadline_s: float = DEADLINE_S) -> list[str]:
        """All problems, without the folder; fails where there are none."""
        return self.problems_of(lambda: self.load(text, root=root, deadline_s=deadline_s))

    def problems_of(self, load: Callable[[], object]) -> list[str]:
        try:
            load()
        except DefinitionsError as error:
            return [text.replace(f"{self.folder}/", "") for text in error.problems]
        raise AssertionError("no problem was found")
