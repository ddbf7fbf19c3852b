"""The report of the child that evaluates definitions, one JSON record a line, and how it is read.

    {"file": PATH}                    evaluation of a file begins
    {"at": PLACE, "doing": TEXT}      something begins that may take long
    {"problem": TEXT}, {"notice": TEXT}, {"source": PATH, "text": TEXT}
    {"service": {…}}                  its fields that differ from the default
    {"settings": {…}}
    {"digest": TEXT}                  where it was asked for
    {"end": true}                     what has no end was cut off

Imports nothing that spawnd does not hold anyhow.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any

from supervisor.definitions.problems import place
from supervisor.definitions.service import Backoff, Definitions, Descriptor, Service, Settings
from supervisor.errors import DefinitionsError

Record = dict[str, Any]


def defaults_of(kind: type[Any]) -> list[tuple[str, Any]]:
    return [
        (field.name, field.default if field.default_factory is MISSING else field.default_factory())
        for field in fields(kind)
    ]


_DESCRIPTOR = defaults_of(Descriptor)
_SERVICE = defaults_of(Service)
_SETTINGS = defaults_of(Settings)
_BACKOFF = defaults_of(Backoff)
_STANDARD = ("stdin", "stdout", "stderr")
_DICTS = ("env", "limits", "options", "resources")


def service_record(service: Service) -> Record:
    """What of a service differs from the defaults."""
    record = differing(service, _SERVICE)
    for name in _STANDARD:
        if name in record:
            record[name] = differing(record[name], _DESCRIPTOR)
    if service.fd:
        record["fd"] = [differing(descriptor, _DESCRIPTOR) for descriptor in service.fd]
    if "backoff" in record:
        record["backoff"] = differing(service.backoff, _BACKOFF)
    return record


def settings_record(settings: Settings) -> Record:
    return differing(settings, _SETTINGS)


def read_settings(record: Record) -> Settings:
    return Settings(**record)


def differing(value: object, defaults: list[tuple[str, Any]]) -> Record:
    record = {}
    for name, default in defaults:
        item = getattr(value, name)
        if item is not default and item != default:
            record[name] = item
    return record


def read_report(data: bytes, failure: str = "") -> Definitions:
    """What the child found.  Raises DefinitionsError with all problems of all files.

    `failure` says what happened to a child that did not end well; the problem names the file
    that it was busy with, and the line where that is known.
    """
    reader = ReportReader()
    reader.feed(data)
    return reader.definitions(failure)


class ReportReader:
    """As `read_report`, of a report that comes in pieces: each is worked on as it comes."""

    def __init__(self) -> None:
        self._rest = b""
        self._at = "definitions"
        self._ended = False
        self._passing = False
        self._problems: list[str] = []
        self._notices: list[str] = []
        self._sources: dict[str, str] = {}
        self._services: dict[str, Service] = {}
        self._settings = Settings()
        self._digest = ""
        self._shared = SharedValues()

    def feed(self, data: bytes) -> None:
        """Take the next piece, of any length."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def definitions(self, failure: str = "", *, final: bool = False) -> Definitions:
        """What was found, as there is no more to come.  Raises DefinitionsError.

        `final`: the child would fail another time, too.
        """
        if not self._ended:
            self._problems.append(f"{self._at}: {failure or 'the evaluation ended without a result'}")
        if self._problems:
            raise DefinitionsError(self._problems, self._passing or not (self._ended or final))
        return Definitions(self._services, self._settings, self._sources, tuple(self._notices), self._digest)

    def _take(self, record: Record) -> None:
        match record:
            case {"service": service}:
                built = self._shared.service(service)
                self._services[built.name] = built
            case {"file": path}:
                self._at = place(path, 0)
            case {"at": at, "doing": doing}:
                self._at = f"{at}: cannot {doing}"
            case {"problem": text}:
                self._problems.append(text)
            case {"passing": _}:
                self._passing = True
            case {"notice": text}:
                self._notices.append(text)
            case {"source": path, "text": text}:
                self._sources[sys.intern(path)] = text
            case {"settings": settings}:
                self._settings = read_settings(settings)
            case {"digest": digest}:
                self._digest = digest
            case {"end": _}:
                self._ended = True
            case _:
                raise AssertionError(f"unknown record with {', '.join(record)}")


class SharedValues:
    """Builds services so that what is equal is one object: a thousand of them differ in little."""

    def __init__(self) -> None:
        self._values: dict[Any, Any] = {}
        self._empty: Record = {name: default for name, default in _SERVICE if name in _DICTS}
        self._convert: dict[str, Callable[[Any], Any]] = {
            **dict.fromkeys(_STANDARD, self._descriptor),
            "fd": lambda values: self._one(tuple(self._descriptor(value) for value in values)),
            "backoff": lambda value: self._one(Backoff(**value)),
            "env": self._dict,
            "limits": lambda value: self._dict({name: tuple(pair) for name, pair in value.items()}),
            "resources": self._dict,
            "lines": lambda value: {sys.intern(key): line for key, line in value.items()},
        }

    def service(self, record: Record) -> Service:
        built = self._empty.copy()
        for name, value in record.items():
            convert = self._convert.get(name)
            if convert:
                built[name] = convert(value)
            elif isinstance(value, list):
                built[name] = self._one(tuple(map(self._one, value)))
            elif isinstance(value, dict):  # options: free data
                built[name] = value
            else:
                built[name] = self._one(value)
        return Service(**built)

    def _one(self, value: Any) -> Any:
        if isinstance(value, str):
            return sys.intern(value)
        # the type belongs to the key: 1, 1.0 and True are equal
        return self._values.setdefault((type(value), value), value)

    def _descriptor(self, record: Record) -> Descriptor:
        found: Descriptor = self._one(Descriptor(**record))
        return found

    def _dict(self, value: Record) -> Record:
        shared = {sys.intern(name): self._one(item) for name, item in value.items()}
        found: Record = self._values.setdefault((dict, tuple(shared.items())), shared)
        return found
