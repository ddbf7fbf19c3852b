"""Interface definitions (https://varlink.org/Interface-Definition): parser, check of values, and description.

Every Varlink service implements `org.varlink.service`, which describes it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from supervisor import __version__
from supervisor.errors import SpawnError

_TOKEN = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*(->|\[\]|\[string\]|[?():,]|[A-Za-z][A-Za-z0-9_.-]*|\Z)")
_INTERFACE = re.compile(r"[A-Za-z](?:-*[A-Za-z0-9])*(?:\.[A-Za-z0-9](?:-*[A-Za-z0-9])*)+\Z")
_NAME = re.compile(r"[A-Z][A-Za-z0-9]*\Z")
_FIELD = re.compile(r"[A-Za-z](?:_?[A-Za-z0-9])*\Z")
_SIMPLE: Mapping[str, type | tuple[type, ...]] = {
    "bool": bool,
    "int": int,
    "float": (int, float),
    "string": str,
    "object": dict,
}

SERVICE = "org.varlink.service"


class DefinitionError(SpawnError):
    """The interface definition is invalid."""


class Named(NamedTuple):
    """`bool`, `int`, `float`, `string`, `object`, or a type of the definition."""

    name: str


class Maybe(NamedTuple):
    """`?inner`: a value of the type, or null."""

    inner: Type


class Array(NamedTuple):
    """`[]inner`."""

    inner: Type


class Dictionary(NamedTuple):
    """`[string]inner`."""

    inner: Type


class Enum(NamedTuple):
    """`(a, b)`: one of these words."""

    members: tuple[str, ...]


class Struct(NamedTuple):
    """`(name: type, …)`."""

    fields: Mapping[str, Type]


Type = Named | Maybe | Array | Dictionary | Enum | Struct


class Mismatch(SpawnError):
    """A value has the wrong type; `field` is the field of the outermost struct that contains it."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field


class Interface(NamedTuple):
    """An interface definition; `methods` have the structs of their parameters and of their replies."""

    name: str
    types: Mapping[str, Type]
    methods: Mapping[str, tuple[Struct, Struct]]
    errors: Mapping[str, Struct]

    def check(self, values: Mapping[str, object], struct: Struct) -> None:
        """Raise Mismatch for the first field that is unknown, missing or of another type; null counts as missing."""
        for field in values:
            if field not in struct.fields:
                raise Mismatch(field)
        for field, kind in struct.fields.items():
            if not self._is(values.get(field), kind):
                raise Mismatch(field)

    def _is(self, value: object, kind: Type) -> bool:
        match kind:
            case Maybe(inner):
                return value is None or self._is(value, inner)
            case Array(inner):
                return isinstance(value, list) and all(self._is(item, inner) for item in value)
            case Dictionary(inner):
                return isinstance(value, dict) and all(self._is(item, inner) for item in value.values())
            case Enum(members):
                return isinstance(value, str) and value in members
            case Struct():
                return isinstance(value, dict) and self._fits(value, kind)
            case Named(name) if name in _SIMPLE:
                return isinstance(value, _SIMPLE[name]) and (name == "bool" or not isinstance(value, bool))
            case Named(name):
                return self._is(value, self.types[name])

    def _fits(self, value: Mapping[str, object], struct: Struct) -> bool:
        try:
            self.check(value, struct)
        except Mismatch:
            return False
        return True


def parse(text: str) -> Interface:
    """Return the interface that the text defines. Raises DefinitionError."""
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._next = ""
        self._used: set[str] = set()
        self._advance()

    def read(self) -> Interface:
        self._expect("interface")
        name = self._take(_INTERFACE)
        types: dict[str, Type] = {}
        methods: dict[str, tuple[Struct, Struct]] = {}
        errors: dict[str, Struct] = {}
        while self._next:
            keyword, member = self._take(), self._take(_NAME)
            if member in types or member in methods or member in errors:
                raise self._wrong(f"{member} is defined already")
            match keyword:
                case "type":
                    types[member] = self._block()
                case "error":
                    errors[member] = self._struct()
                case "method":
                    taken = self._struct()
                    self._expect("->")
                    methods[member] = taken, self._struct()
                case _:
                    raise self._wrong(f"{keyword!r} is neither type, method nor error")
        for used in self._used - types.keys():
            raise self._wrong(f"there is no type {used}")
        return Interface(name, types, methods, errors)

    def _struct(self) -> Struct:
        block = self._block()
        if not isinstance(block, Struct):
            raise self._wrong("parameters cannot be an enum")
        return block

    def _block(self) -> Struct | Enum:
        """Return the content of parentheses: the fields of a struct, or the members of an enum."""
        self._expect("(")
        fields: dict[str, Type] = {}
        members: list[str] = []
        while self._next != ")":
            name = self._take(_FIELD)
            if name in fields or name in members:
                raise self._wrong(f"{name} is defined already")
            if self._next == ":":
                self._advance()
                fields[name] = self._type()
            else:
                members.append(name)
            if self._next != ")":
                self._expect(",")
        self._advance()
        if fields and members:
            raise self._wrong(f"{members[0]} has no type")
        return Enum(tuple(members)) if members else Struct(fields)

    def _type(self) -> Type:
        match self._next:
            case "?":
                self._advance()
                if self._next == "?":
                    raise self._wrong("?? is not a type")
                return Maybe(self._type())
            case "[]":
                self._advance()
                return Array(self._type())
            case "[string]":
                self._advance()
                return Dictionary(self._type())
            case "(":
                return self._block()
        name = self._take()
        if name not in _SIMPLE:
            if not _NAME.match(name):
                raise self._wrong(f"{name!r} is not a type")
            self._used.add(name)
        return Named(name)

    # tokens

    def _take(self, pattern: re.Pattern[str] | None = None) -> str:
        token = self._next
        if not token or (pattern is not None and not pattern.match(token)):
            raise self._wrong(f"{token!r} cannot be here")
        self._advance()
        return token

    def _expect(self, token: str) -> None:
        if self._next != token:
            raise self._wrong(f"{token!r} expected, not {self._next!r}")
        self._advance()

    def _advance(self) -> None:
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            raise self._wrong("not a token")
        self._next = match[1]
        self._at = match.end()

    def _wrong(self, what: str) -> DefinitionError:
        return DefinitionError(f"line {self._text.count(chr(10), 0, self._at) + 1}: {what}")


def info(product: str, interfaces: list[str]) -> dict[str, object]:
    """Return the reply to GetInfo for a service of this project."""
    return {
        "vendor": "spawn-supervisor",
        "product": product,
        "version": __version__,
        "url": "",
        "interfaces": interfaces,
    }


def service_description() -> str:
    """Return the definition of `org.varlink.service`."""
    return read_description(os.path.dirname(__file__), SERVICE)


def read_description(folder: str, interface: str) -> str:
    """Return a definition from the file that is installed with the code."""
    with open(os.path.join(folder, f"{interface}.varlink"), encoding="utf-8") as file:
        return file.read()
