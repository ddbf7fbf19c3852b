"""What a client of the control socket can send: made from the interface definition, so that every method has its share.

A case is plain data; whoever has the same seed and the same definition gets the same cases.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from supervisor.varlink.interface import Array, Dictionary, Enum, Interface, Maybe, Named, Struct, Type

DANGEROUS = frozenset({"Shutdown", "Reexec"})  # of these only calls that cannot be valid
NO_SUCH_FIELD = "no_such_field"

# Raw JSON, as some of it is what no encoder writes.
ODD = (
    "null", "true", "false", "0", "-1", "65", "9223372036854775808", "1" + "0" * 400, "-" + "9" * 4000, "9" * 5000,
    "1e308", "1e999", "-1e999", "NaN", "Infinity", "0.1", '""', '"x"', '"all"', '"*"', '"' + "*" * 300 + '"',
    '"' + "a" * 70000 + '"', '"\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '"\x7f"', '"\x01"', '"\xff"', "[]", "[[]]",
    "[null]", "[1]", '["*"]', '["x", 1]', "{}", '{"a": 1}', '{"name": {}}', "[" * 60 + "]" * 60, "[" * 5000,
    "[" * 994 + "]" * 994, '{"a":' * 2000 + "1" + "}" * 2000, "nul", "01", "+1", "'x'", "[1,]", "{1: 2}",
)  # fmt: skip
FLAGS = ("more", "oneway", "upgrade")


@dataclass(frozen=True)
class Case:
    """`pieces` are sent one after the other; then the client does what `then` says: reads, half-closes, closes, stays.

    `certain`: it is a well-formed call with a wrong parameter, and so is answered with an error.
    """

    pieces: tuple[bytes, ...]
    then: str
    certain: bool = False
    descriptor: bool = False
    note: str = field(default="", compare=False)


class Cases:
    """An endless supply.  `names` are those of services that exist."""

    def __init__(self, interfaces: list[Interface], names: list[str], seed: int) -> None:
        self._random = random.Random(seed)
        self._interfaces = interfaces
        self._names = names
        self._methods = [(interface, name) for interface in interfaces for name in interface.methods]

    def __iter__(self) -> Iterator[Case]:
        yield from self._wrong_types()
        kinds = [self._noise, self._mutated, self._typed, self._flagged, self._packet, self._truncated, self._huge]
        weights = [2, 5, 5, 2, 2, 2, 0.3]
        while True:
            (kind,) = self._random.choices(kinds, weights)
            yield kind()

    # each method, each parameter, each wrong value

    def _wrong_types(self) -> Iterator[Case]:
        for interface, name in self._methods:
            taken = interface.methods[name][0]
            yield self._certain(interface, name, {NO_SUCH_FIELD: "1"})
            for wrong in [*taken.fields]:
                for value in ODD:
                    yield self._wrong(interface, name, wrong, value)

    def _wrong(self, interface: Interface, name: str, wrong: str, value: str) -> Case:
        values = self._valid(interface, interface.methods[name][0]) | {wrong: value}
        if name in DANGEROUS:
            values[NO_SUCH_FIELD] = "1"
        return Case((call(f"{interface.name}.{name}", values),), "read", note=f"{name}: {wrong}")

    def _certain(self, interface: Interface, name: str, extra: dict[str, str]) -> Case:
        values = self._valid(interface, interface.methods[name][0]) | extra
        return Case((call(f"{interface.name}.{name}", values),), "read", certain=True, note=name)

    # by chance

    def _then(self) -> str:
        return self._random.choice(("read", "read", "read", "half-close", "close", "stay"))

    def _method(self) -> tuple[str, dict[str, str]]:
        """A call that is valid, or nearly."""
        interface, name = self._random.choice(self._methods)
        values = self._valid(interface, interface.methods[name][0])
        if name in DANGEROUS:
            values[NO_SUCH_FIELD] = "1"
        return f"{interface.name}.{name}", values

    def _noise(self) -> Case:
        data = self._random.randbytes(self._random.randint(0, 3000))
        return Case((data + b"\0" * self._random.randint(0, 2),), self._then(), note="noise")

    def _mutated(self) -> Case:
        method, values = self._method()
        while method.rpartition(".")[2] in DANGEROUS:
            method, values = self._method()
        data = bytearray(call(method, values))
        for _ in range(self._random.randint(1, 6)):
            self._mutate(data)
        return Case((bytes(data),), self._then(), note="mutated")

    def _mutate(self, data: bytearray) -> None:
        at = self._random.randrange(len(data) + 1)
        match self._random.randrange(5):
            case 0:
                data[at : at + 1] = self._random.randbytes(1)
            case 1:
                data[at:at] = self._random.choice((b"\0", b'"', b"{", b"[", b",", b"\xff", b"\xc3", b"\\u", b"9" * 30))
            case 2:
                del data[at : at + self._random.randint(1, 20)]
            case 3:
                data[at:at] = data[at : at + self._random.randint(1, 40)]
            case _:
                data[at:at] = self._random.choice(ODD).encode(errors="surrogateescape")[:2000]

    def _typed(self) -> Case:
        method, values = self._method()
        if values and NO_SUCH_FIELD not in values and self._random.random() < 0.7:  # a null would not be wrong
            values[self._random.choice(list(values))] = self._random.choice(ODD)
        pieces = self._cut(call(method, values))
        return Case(pieces, self._then(), descriptor=self._random.random() < 0.03, note=method)

    def _flagged(self) -> Case:
        method, values = self._method()
        flags = {flag: self._random.choice(("true", "true", *ODD)) for flag in self._random.sample(FLAGS, 2)}
        return Case((call(method, values, flags),), self._then(), note=f"{method} with {', '.join(flags)}")

    def _packet(self) -> Case:
        calls = [call(*self._method()) for _ in range(self._random.randint(2, 10))]
        if self._random.random() < 0.3:
            calls.insert(self._random.randrange(len(calls)), self._random.randbytes(9) + b"\0")
        return Case(self._cut(b"".join(calls)), self._then(), note="many calls")

    def _truncated(self) -> Case:
        data = call(*self._method())
        return Case((data[: self._random.randrange(len(data))],), self._then(), note="truncated")

    def _huge(self) -> Case:
        filler = self._random.choice((b" ", b"[", b"9", b'{"a":', b"\xff"))
        size = (1 << 20) + self._random.randint(-100, 100)
        return Case((filler * (size // len(filler)),), self._then(), note="huge")

    def _cut(self, data: bytes) -> tuple[bytes, ...]:
        if self._random.random() < 0.6:
            return (data,)
        cuts = sorted(self._random.sample(range(len(data)), min(len(data), self._random.randint(1, 5))))
        return tuple(data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True))

    # valid values, as raw JSON

    def _valid(self, interface: Interface, struct: Struct) -> dict[str, str]:
        return {
            name: self._value(interface, kind, name)
            for name, kind in struct.fields.items()
            if not isinstance(kind, Maybe) or name == "no_wait" or self._random.random() < 0.5
        }

    def _value(self, interface: Interface, kind: Type, name: str) -> str:
        match kind:
            case Maybe(inner):
                return self._value(interface, inner, name)
            case Array(inner):
                return f"[{', '.join(self._value(interface, inner, name) for _ in range(self._random.randint(1, 3)))}]"
            case Dictionary(inner):
                return f'{{"a": {self._value(interface, inner, name)}}}'
            case Enum(members):
                return json.dumps(self._random.choice(members))
            case Struct(fields):
                inner_values = (f'"{key}": {self._value(interface, inner, key)}' for key, inner in fields.items())
                return f"{{{', '.join(inner_values)}}}"
            case Named("bool"):
                return "true"  # nobody waits for what is ordered here
            case Named("int"):
                return str(self._random.choice((1, 10, 28)))
            case Named("float"):
                return str(self._random.choice((0.01, 0.05)))
            case Named("object"):
                return "{}"
            case Named("string"):
                others = ("org.varlink.service.GetInfo", "a.b.Silent", "nope")
                return json.dumps(self._random.choice((*self._names, *self._names, *others)))
            case Named(other):
                return self._value(interface, interface.types[other], name)


def call(method: str, values: dict[str, str], flags: dict[str, str] | None = None) -> bytes:
    parameters = ", ".join(f'"{name}": {value}' for name, value in values.items())
    more = "".join(f', "{flag}": {value}' for flag, value in (flags or {}).items())
    text = f'{{"method": "{method}", "parameters": {{{parameters}}}{more}}}'
    return text.encode("latin-1" if "\xff" in text else "utf-8") + b"\0"
