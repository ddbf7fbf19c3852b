"""Compare a server's messages with its interface definition: order of the fields, kinds of numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from supervisor.varlink.interface import Array, Dictionary, Enum, Maybe, Named, Struct, Type, parse


@dataclass
class Interface:
    """A type is a name, `("?", type)`, `("[]", type)`, `("[string]", …)`, an enum as a tuple, a struct as a dict."""

    name: str
    types: dict[str, Any] = field(default_factory=dict)
    methods: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    errors: dict[str, Any] = field(default_factory=dict)

    def check(self, value: object, kind: Any, where: str = "") -> None:
        """Assert that a value is of a type, with no field more.  `where` begins the message."""
        match kind:
            case ("?", inner):
                if value is not None:
                    self.check(value, inner, where)
            case ("[]", inner):
                assert isinstance(value, list), f"{where}: {value!r} is no array"
                for item in value:
                    self.check(item, inner, f"{where}[]")
            case ("[string]", inner):
                assert isinstance(value, dict), f"{where}: {value!r} is no dictionary"
                for key, item in value.items():
                    self.check(item, inner, f"{where}.{key}")
            case dict():
                assert isinstance(value, dict), f"{where}: {value!r} is no struct"
                assert list(value) == list(kind), f"{where}: has the fields {list(value)}, not {list(kind)}"
                for key, inner in kind.items():
                    self.check(value[key], inner, f"{where}.{key}")
            case ("enum", *members):
                assert value in members, f"{where}: {value!r} is none of {members}"
            case "object":
                assert isinstance(value, dict), f"{where}: {value!r} is no object"
            case "bool" | "int" | "float" | "string":
                expected = {"bool": bool, "int": int, "float": float, "string": str}[kind]
                assert type(value) is expected, f"{where}: {value!r} is no {kind}"
            case _:
                self.check(value, self.types[kind], where)


class Reader:
    """The parser's result in the notation of the tests."""

    def __init__(self, text: str) -> None:
        self._text = text

    def read(self) -> Interface:
        read = parse(self._text)
        methods = {name: (plain(taken), plain(given)) for name, (taken, given) in read.methods.items()}
        types = {name: plain(kind) for name, kind in read.types.items()}
        return Interface(read.name, types, methods, {name: plain(kind) for name, kind in read.errors.items()})


def plain(kind: Type) -> Any:
    match kind:
        case Named(name):
            return name
        case Maybe(inner):
            return ("?", plain(inner))
        case Array(inner):
            return ("[]", plain(inner))
        case Dictionary(inner):
            return ("[string]", plain(inner))
        case Enum(members):
            return ("enum", *members)
        case Struct(fields):
            return {name: plain(inner) for name, inner in fields.items()}
