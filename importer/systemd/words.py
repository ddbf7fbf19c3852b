"""Words of a value with their quotes and escapes, and the commands of Exec lines, as in systemd.service(5)."""

from __future__ import annotations

import re
from dataclasses import dataclass

QUOTES = "\"'"
PREFIXES = "-@:+!|"
_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"', "'": "'",
    "s": " ",
}  # fmt: skip
_NUMBERS = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})")


class WordError(ValueError):
    """A value cannot be divided into words."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word without its quotes; `plain`: it was written without quotes and escapes."""

    text: str
    plain: bool = True


def divide(text: str) -> list[Word]:
    """Return the words of a value. Raises WordError for a quote that is not closed."""
    words: list[Word] = []
    current, begun, plain, quote = list[str](), False, True, ""
    index = 0
    while index < len(text):
        char = text[index]
        if char == "\\" and index + 1 < len(text):
            piece, index = _unescaped(text, index + 1)
            current.append(piece)
            begun, plain = True, False
            continue
        if quote:
            if char == quote:
                quote = ""
            else:
                current.append(char)
        elif char in QUOTES:
            quote, begun, plain = char, True, False
        elif char.isspace():
            if begun:
                words.append(Word("".join(current), plain))
            current, begun, plain = [], False, True
        else:
            current.append(char)
            begun = True
        index += 1
    if quote:
        raise WordError(f"a quote {quote} is not closed")
    if begun:
        words.append(Word("".join(current), plain))
    return words


def _unescaped(text: str, index: int) -> tuple[str, int]:
    """Return what the escape at `index` stands for, and the index behind it; an unknown one stays as it is."""
    if found := _NUMBERS.match(text, index):
        digits = found[1] or found[2] or found[3]
        number = int(digits, 16) if digits else int(found[4], 8)
        if 0 < number < 0x110000 and not 0xD800 <= number < 0xE000:
            return chr(number), found.end()
    char = text[index]
    return _ESCAPES.get(char, f"\\{char}"), index + 1


def texts(value: str) -> list[str]:
    """Return the words of a value as texts. Raises WordError."""
    return [word.text for word in divide(value)]


@dataclass(frozen=True, slots=True)
class Command:
    """A command of an Exec line. `prefixes` are its characters of `-@:+!|`, `arguments` are without the program."""

    program: str
    arguments: tuple[str, ...]
    prefixes: str = ""
    argv0: str = ""

    @property
    def may_fail(self) -> bool:
        return "-" in self.prefixes

    @property
    def as_root(self) -> bool:
        """Whether it runs as root whatever User= says; `!!` is the same as nothing where ambient capabilities exist."""
        return "+" in self.prefixes or self.prefixes.count("!") == 1

    @property
    def expands(self) -> bool:
        """Whether variables in its arguments are expanded, and there are some."""
        return ":" not in self.prefixes and any("$" in word for word in self.arguments)

    @property
    def words(self) -> tuple[str, ...]:
        return (self.program, *self.arguments)

    @property
    def name(self) -> str:
        return self.program.rpartition("/")[2]


def commands(value: str) -> list[Command]:
    """Return the commands of an Exec line, which a lone `;` divides. Raises WordError."""
    groups: list[list[Word]] = [[]]
    for word in divide(value):
        if word.text == ";" and word.plain:
            groups.append([])
        else:
            groups[-1].append(word)
    return [_command(group) for group in groups if group]


def _command(words: list[Word]) -> Command:
    first, *rest = [word.text if word.text != "\\;" else ";" for word in words]
    program = first.lstrip(PREFIXES)
    prefixes = first[: len(first) - len(program)]
    argv0 = ""
    if "@" in prefixes:
        if not rest:
            raise WordError("the prefix @ needs a name behind the program")
        argv0 = rest.pop(0)
    if not program:
        raise WordError("a command has no program")
    return Command(program, tuple(rest), prefixes, argv0)
