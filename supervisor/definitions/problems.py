"""Problems of definitions, all of which are collected for the operator, and suggestions for a name that is unknown."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from supervisor import why_not_loaded
from supervisor.printable import printable

Path = tuple[str | int, ...]

MOST = 200  # names that are compared in full, for some tens of microseconds each
LONGEST = 100  # characters of a name for which suggestions are searched
ALIKE = 0.6  # ratio of difflib from which on two names are similar


class InvalidValue(Exception):
    """A value is wrong. `path` leads to it from the value being converted, `line` is its line or 0 if unknown."""

    def __init__(self, message: str, *path: str | int, line: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.path: Path = path
        self.line = line


class Problems:
    """Problems and notices of all files, as `FILE:LINE: message`."""

    def __init__(self) -> None:
        self._problems: list[tuple[int, int, str]] = []
        self._files: dict[str, int] = {}
        self._suspects: list[tuple[str, int, str]] = []
        self._notices: list[str] = []
        self._about: dict[str, tuple[str, ...]] = {}

    def __bool__(self) -> bool:
        return bool(self._problems)

    def add(self, file: str, line: int, message: str) -> None:
        order = self._files.setdefault(file, len(self._files))
        self._problems.append((order, line, _text(file, line, message)))

    def notice(self, file: str, line: int, message: str, about: Sequence[str] = ()) -> None:
        """Add a notice; `about` are the services that it compares, if any."""
        text = _text(file, line, message)
        self._notices.append(text)
        self._about[text] = tuple(about)

    def told(self) -> int:
        """Return the number of notices so far, for `since`."""
        return len(self._notices)

    def since(self, told: int) -> list[tuple[str, tuple[str, ...]]]:
        """Return the notices from then on as texts, each with the services that it compares, for `tell_again`."""
        return [(text, self.compared(text)) for text in self._notices[told:]]

    def tell_again(self, notices: Iterable[tuple[str, tuple[str, ...]]]) -> None:
        """Add notices of an earlier evaluation."""
        for text, about in notices:
            self._notices.append(text)
            self._about[text] = about

    def compared(self, notice: str) -> tuple[str, ...]:
        """Return the services that a notice compares."""
        return self._about.get(notice, ())

    def suspect(self, file: str, line: int, message: str) -> None:
        """Add something odd: the likely cause if the file has a problem, otherwise a notice."""
        self._suspects.append((file, line, message))

    def texts(self) -> list[str]:
        """Return every problem once, in the order of files and lines."""
        found = list(self._problems)
        for file, line, message in self._suspects:
            if file in self._files:
                found.append((self._files[file], line, _text(file, line, message)))
        found.sort(key=lambda problem: problem[:2])
        return list(dict.fromkeys(text for _, _, text in found))

    def notices(self) -> list[str]:
        """Return every notice once, for definitions without problems."""
        suspects = [_text(file, line, message) for file, line, message in self._suspects]
        return list(dict.fromkeys(self._notices + suspects))


def _text(file: str, line: int, message: str) -> str:
    return f"{place(file, line)}: {printable(message)}"


def place(file: str, line: int) -> str:
    """Return `FILE:LINE`; a problem of a whole file (line 0) is on its first line."""
    return f"{printable(file)}:{max(line, 1)}"


def internal(error: Exception) -> str:
    """Return the text for an unexpected exception."""
    if isinstance(error, ImportError | OSError) and (cause := why_not_loaded(error)):
        return cause
    import traceback  # only a defect needs it

    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    return f"internal error: {type(error).__name__}: {error}{where}"


def show(path: Path) -> str:
    """Return `("fd", 2, "backlog")` as `fd[2].backlog`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return `, did you mean 'x'?` if a known name is similar, else ''."""
    found = nearest(name, known) if isinstance(name, str) else []
    return f", did you mean {found[0]!r}?" if found else ""


def nearest(name: str, known: Iterable[str], most: int = 1, alike: float = ALIKE) -> list[str]:
    """Return at most `most` similar known names, the nearest first; `alike` is 1 for the same name.

    The time is bounded for any number of names: of many, only those that look similar at first sight are compared.
    """
    if not 0 < len(name) <= LONGEST:
        return []
    from difflib import get_close_matches  # only an error needs it

    wanted = name.lower()
    spellings = {item.lower(): item for item in known}
    begun = [item for item in spellings if len(wanted) > 3 and item.startswith(wanted)]
    if len(begun) == 1 and most == 1:
        return [spellings[begun[0]]]
    compared: Iterable[str] = spellings
    if len(spellings) > MOST:
        compared = sorted(spellings, key=lambda item: abs(len(item) - len(wanted)) + (item[:1] != wanted[:1]))[:MOST]
    return [spellings[item] for item in get_close_matches(wanted, compared, n=most, cutoff=alike)]
