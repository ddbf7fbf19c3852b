"""The table being checked, for the converters, and a scanner of definition files for the line of each key.

The scanner follows braces, parentheses, `NAME =` and `["name"] =`, and skips strings and comments. It finds no
line for a computed value; the executed line stands for that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from supervisor.definitions.databases import Databases
from supervisor.definitions.problems import InvalidValue, Path, Problems, show
from supervisor.definitions.values import is_digits

_TOKEN = re.compile(
    r"""
    (?P<comment>--(?:\[(=*)\[.*?\]\2\]|[^\n]*))
    | \[(?P<eq>=*)\[.*?\](?P=eq)\]               # a long string
    | \[\s*(?P<index>"[^"\\\n]*"|'[^'\\\n]*'|[0-9]{1,9})\s*\]\s*=(?!=)
    | "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*'
    | (?P<name>[A-Za-z_][\w.]*)\s*=(?!=)
    | [A-Za-z_][\w.]*                            # or the end of a word would be a name
    | (?P<mark>[{},;()])
    | [^\s\[\]{},;()"'A-Za-z_-]+ | [-\[\]]       # numbers and operators
    """,
    re.X | re.S,
)

_MODULE = re.compile(r"\bmodule\s*\(\s*(?:[\"']([^\"'\n]+)[\"']|\.\.\.)")
_LOCAL = re.compile(r"^[ \t]*local[ \t]+([A-Za-z_]\w*)[ \t]*=[ \t]*\{", re.M)
_RETURN = re.compile(r"^return[ \t]*\{", re.M)
_CAPITALS = re.compile(r"^(_[A-Z_]+)[ \t]*=[ \t]*\{", re.M)
_ASSIGNED = re.compile(r"^[A-Za-z_][\w.]*(?:\[[^\]\n]*\])?[ \t]*=(?!=)", re.M)

Node = dict[str | int, tuple[int, "Node"]]


@dataclass(slots=True)
class Constructor:
    """An outermost table constructor or assignment: its target, its lines and its content."""

    name: str
    first: int
    last: int
    node: Node
    twice: list[tuple[str, int, int]] = field(default_factory=list)  # keys given twice, with both lines


@dataclass(slots=True)
class _Level:
    """An open brace (`node` is its table) or parenthesis (`node` belongs to the value around it)."""

    node: Node
    brace: bool
    index: int = 0
    item: Node | None = None  # the node of the value that is being read


@dataclass(slots=True)
class Lines:
    """The lines of one file."""

    constructors: list[Constructor] = field(default_factory=list)
    named: dict[str, list[Constructor]] = field(default_factory=dict)

    def find_key(self, name: str, first: int, line: int) -> Constructor | None:
        """Find the place where the module from line `first` on sets its global `name`, which was set on `line`."""
        found = [entry for entry in self.named.get(name, ()) if first <= entry.first <= line]
        return found[-1] if found else None

    def find(self, name: str, line: int) -> Constructor | None:
        """Find the place of the global `name` in the text, which was assigned on `line`."""
        for constructor in reversed(self.named.get(name, ())):
            if constructor.node or len(self.named[name]) == 1:
                return constructor
        for constructor in self.constructors:
            if constructor.first <= line <= constructor.last:
                return constructor
        return None

    def entry(self, table: str, key: str, line: int) -> Constructor | None:
        """Find the place of the field `key` of the global `table` in the text, which was assigned on `line`."""
        for constructor in self.named.get(table, ()):
            if key in constructor.node:
                first, node = constructor.node[key]
                own = (other for other in self.constructors if other.node is node)
                return next(own, Constructor(key, first, first, node))
        return self.find(key, line)


def line_of(node: Node, path: Path) -> tuple[int, bool]:
    """Return the line of the deepest step of `path` in the text, 0 without any, and whether it is the last step."""
    line = 0
    for step in path:
        if step not in node:
            return line, False
        line, node = node[step]
    return line, True


def module_names(text: str, own: str) -> set[str]:
    """Return the modules that a text apparently defines; `own` is the value of `...` in it."""
    return {found or own for found in _MODULE.findall(text)}


def first_local(text: str) -> tuple[str, int] | None:
    """Return the first table assigned to a local variable, and its line; None if the text also sets globals."""
    found = _LOCAL.search(text)
    if found is None or _ASSIGNED.search(text):
        return None
    return found[1], text.count("\n", 0, found.start(1)) + 1


def first_return(text: str) -> int:
    """Return the line on which a text returns a table, 0 if it does not."""
    found = _RETURN.search(text)
    return text.count("\n", 0, found.start()) + 1 if found else 0


def unused_specials(text: str) -> list[tuple[str, int]]:
    """Return global tables with names like `_DEFAULT` that occur nowhere else in the text, and their lines."""
    found = [(match[1], text.count("\n", 0, match.start()) + 1) for match in _CAPITALS.finditer(text)]
    return [(name, line) for name, line in found if len(re.findall(rf"\b{name}\b", text)) == 1]


def scan(text: str) -> Lines:
    """Return the lines of everything that is named in a file's text."""
    return _Scanner(text).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._line = 1
        self._lines = Lines()
        self._levels: list[_Level] = []
        self._target = ""  # of the last assignment outside of any table
        self._current: Constructor | None = None

    def run(self) -> Lines:
        text, position = self._text, 0
        for match in _TOKEN.finditer(text):
            kind = match.lastgroup
            start = match.start()
            if kind == "comment":
                continue
            self._line += text.count("\n", position, start)
            position = start
            if kind is None or kind == "eq":
                self._value()
            elif kind == "mark":
                self._mark(match["mark"])
            elif kind == "name":
                self._key(match["name"])
            else:
                key = match["index"]
                self._key(int(key) if is_digits(key) else key[1:-1])
        return self._lines

    def _mark(self, mark: str) -> None:
        levels = self._levels
        if mark == "{":
            self._open_brace()
        elif mark == "(":
            if levels:
                levels.append(_Level(self._item(), brace=False))
        elif mark in "})":
            if levels:
                levels.pop()
                if not levels and self._current:
                    self._current.last = self._line
        elif levels and levels[-1].brace:
            levels[-1].item = None

    def _open_brace(self) -> None:
        if self._levels:
            self._levels.append(_Level(self._item(), brace=True))
            return
        if not self._target or self._current is None:
            self._current = self._constructor("")
        self._levels.append(_Level(self._current.node, brace=True))
        self._target = ""

    def _value(self) -> None:
        """Handle a string, number or word: the next item of a list, unless it follows a key."""
        if self._levels and self._levels[-1].item is None:
            self._item()

    def _item(self) -> Node:
        """Return the node of the value that begins or continues here."""
        level = self._levels[-1]
        if not level.brace:
            return level.node
        if level.item is None:
            level.index += 1
            level.item = {}
            level.node[level.index] = (self._line, level.item)
        return level.item

    def _key(self, key: str | int) -> None:
        if not self._levels:
            self._assignment(str(key))
            return
        level = self._levels[-1]
        if not level.brace:
            return
        if isinstance(key, str) and key in level.node and len(self._levels) == 1 and self._current:
            self._current.twice.append((key, level.node[key][0], self._line))
        level.item = {}
        level.node[key] = (self._line, level.item)

    def _assignment(self, target: str) -> None:
        """Handle `web = …`, or another key of an existing table: `web.limits.cpu = …`."""
        name, *path = target.removeprefix("_G.").split(".")
        self._target = name
        before = self._lines.named.get(name)
        constructor = before[-1] if path and before else self._constructor(name)
        if not path:
            self._current = constructor
            return
        node = constructor.node
        for step in path:
            node = node.setdefault(step, (self._line, {}))[1]
        self._current = Constructor(name, self._line, self._line, node)
        self._lines.constructors.append(self._current)

    def _constructor(self, name: str) -> Constructor:
        constructor = Constructor(name, self._line, self._line, {})
        self._lines.constructors.append(constructor)
        if name:
            self._lines.named.setdefault(name, []).append(constructor)
        return constructor


@dataclass(slots=True)
class Checking:
    """A table of a file that is being converted: a service, `_DEFAULT` or `_SUPERVISOR`."""

    databases: Databases
    problems: Problems
    file: str
    name: str
    line: int
    node: Node

    def line_of(self, path: Path, known: int = 0) -> int:
        """Return the best line for `path`; `known` is the line of the call that made the value."""
        line, exact = line_of(self.node, path)
        if known and not (exact and len(path) > 2):
            return known
        return line or self.line

    def problem(self, message: str, *path: str | int) -> None:
        """Add a problem of the value at `path` in this table."""
        self.invalid(InvalidValue(message), *path)

    def invalid(self, error: InvalidValue, *path: str | int) -> None:
        """Add a problem that a converter has raised; `path` leads from this table to the start of the error's path."""
        whole = path + error.path
        where = f"{show(whole)}: " if whole else ""
        self.problems.add(self.file, self.line_of(whole, error.line), f"{self.name}: {where}{error.message}")

    def notice(self, message: str, *path: str | int, about: Sequence[str] = ()) -> None:
        """Add a notice; `about` are the services that it compares, if any."""
        where = f"{show(path)}: " if path else ""
        self.problems.notice(self.file, self.line_of(path), f"{self.name}: {where}{message}", about)
