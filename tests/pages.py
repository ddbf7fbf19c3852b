"""Pages of `docs/` whose examples are run: files are written, and commands give the output that the page shows.

A fenced block with a language and a path is a file.  A block of the language `console` holds commands after `$ ` and
their output.  Numbers, times and the width of columns may differ, except where a number is the whole line; `…`
stands for any text.
"""

from __future__ import annotations

import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
PATIENCE = 60.0  # seconds that a command may take, and that a view may take to show what the page shows
# May be run again: nothing changes.
VIEWS = re.compile(r"(docker exec \w+ )?spawnctl (list|sessions|status|why|logs|graph|show|fds)\b|curl -s http")
NUMBER = r"\d(?:[\d.:]|[dhm](?=\d))*"  # a duration such as 2m31s among them


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: where it stands, what follows the three backquotes, and its lines."""

    line: int
    language: str
    path: str
    lines: tuple[str, ...]

    def commands(self) -> Iterator[tuple[int, str, list[str]]]:
        """Yield each command of a console block with its line number and the lines of output that the page shows."""
        starts = [number for number, line in enumerate(self.lines) if line.startswith("$ ")]
        for start, end in zip(starts, [*starts[1:], len(self.lines)], strict=True):
            yield self.line + start + 1, self.lines[start].removeprefix("$ "), list(self.lines[start + 1 : end])


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page in their order."""
    found: list[Block] = []
    lines = iter(enumerate(text.split("\n"), 1))
    for number, line in lines:
        if line.startswith("```"):
            language, _, path = line.removeprefix("```").partition(" ")
            content = []
            for _, inner in lines:
                if inner == "```":
                    break
                content.append(inner)
            found.append(Block(number, language, path, tuple(content)))
    return found


def pattern(expected: list[str]) -> re.Pattern[str]:
    """Return what the output of a command has to match as a whole."""
    parts = []
    for line in expected:
        if line == "…":
            parts.append(r"(?:.*\n)*?")
        elif re.fullmatch(r"\d+", line):
            parts.append(line + r"\n")
        else:
            escaped = re.sub(NUMBER, "<number>", line)
            escaped = re.escape(escaped).replace("<number>", NUMBER).replace("…", ".*")
            parts.append(re.sub(r"(\\ )+", " +", escaped) + r"\n")
    return re.compile("".join(parts))


class Shell:
    """A bash that runs the commands of a page, one after the other, in one folder, with one output for both streams."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["/bin/bash", "--norc", "--noprofile"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )

    def run(self, command: str) -> str:
        """Return what the command printed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        token = secrets.token_hex(8)
        self._process.stdin.write(f"{command}\nprintf '{token}\\n'\n")
        self._process.stdin.flush()
        printed = ""
        for line in self._process.stdout:
            printed += line
            if printed.endswith(f"{token}\n"):
                return printed.removesuffix(f"{token}\n")
        raise EOFError(f"the shell ended while it ran {command!r}:\n{printed}")

    def end(self) -> None:
        self._process.kill()
        with self._process:  # closes the pipes, and waits
            pass


def sections(page: str) -> list[str]:
    """Return the headings of the second level."""
    return re.findall(r"^## (.*)$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)


def follow(page: str, shell: Shell, folder: Path, replace: dict[str, str], section: str = "") -> None:
    """Do what the page, or one section of it, tells.  Raises AssertionError with PAGE:LINE at the first difference."""
    text = (DOCS / page).read_text(encoding="utf-8")
    if section:
        start = text.index(f"\n## {section}\n") + 1
        end = text.find("\n## ", start)
        text = "\n" * text[:start].count("\n") + text[start : end if end >= 0 else len(text)]
    for old, new in replace.items():
        text = text.replace(old, new)
    for block in blocks(text):
        if block.path:
            path = folder / block.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(block.lines) + "\n", encoding="utf-8")
        elif block.language == "console":
            for line, command, expected in block.commands():
                _expect(f"{page}:{line}", shell, command, expected)


def _expect(place: str, shell: Shell, command: str, expected: list[str]) -> None:
    wanted = pattern(expected)
    deadline = time.monotonic() + PATIENCE
    printed = shell.run(command)
    while not wanted.fullmatch(printed) and VIEWS.match(command) and time.monotonic() < deadline:
        time.sleep(0.1)
        printed = shell.run(command)
    shown = "\n".join(expected)
    assert wanted.fullmatch(printed), f"{place}: $ {command}\n{printed}\nThe page shows:\n{shown}"
