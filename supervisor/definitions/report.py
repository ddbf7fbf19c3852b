"""The report of the child that evaluates definitions, one JSON record per line, and its reader.

    {"file": PATH}                    evaluation of a file begins
    {"at": PLACE, "doing": TEXT}      an action begins that may take long
    {"problem": TEXT}, {"notice": TEXT, "about": [NAME, …]}, {"source": PATH, "text": TEXT}
    {"service": {…}}                  its fields that differ from the default
    {"same": NAME}                    a service that is in force already
    {"kept": {…}, "file": PATH}       the services since its source are all of a file: the fields of `KeptFile`
    {"unchanged": PATH, "digests": TEXT}
                                      the services of a kept file; its digests, if it has none yet
    {"settings": {…}}
    {"digest": TEXT}                  if requested
    {"end": true}                     a report without it is truncated

Imports only modules that spawnd imports anyway.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from supervisor.definitions.problems import place
from supervisor.definitions.service import (
    Accept,
    Backoff,
    Definitions,
    Descriptor,
    KeptFile,
    Service,
    Settings,
    default_of,
)
from supervisor.errors import DefinitionsError

Record = dict[str, Any]
Saved = tuple[str, str, Any]  # a field, its name in a record, its default


def saved_fields(kind: type[Any]) -> list[Saved]:
    """Return the fields of a dataclass; each keeps its name in records, even if the field was renamed."""
    return [(field.name, field.metadata.get("saved") or field.name, default_of(field)) for field in fields(kind)]


_DESCRIPTOR = saved_fields(Descriptor)
_SERVICE = saved_fields(Service)
_SETTINGS = saved_fields(Settings)
_BACKOFF = saved_fields(Backoff)
_ACCEPT = saved_fields(Accept)
_RENAMED = {saved: name for name, saved, _default in _SERVICE if saved != name}
_STANDARD = ("stdin", "stdout", "stderr")


NOTHING = Definitions()


def service_record(service: Service) -> Record:
    """Return a record of the fields of a service that differ from the defaults."""
    record = differing(service, _SERVICE)
    for name in _STANDARD:
        if name in record:
            record[name] = differing(record[name], _DESCRIPTOR)
    if service.fd:
        record["fd"] = [differing(descriptor, _DESCRIPTOR) for descriptor in service.fd]
    if "backoff" in record:
        record["backoff"] = differing(service.backoff, _BACKOFF)
    if service.accept is not None:
        record["accept"] = differing(service.accept, _ACCEPT)
    return record


def settings_record(settings: Settings) -> Record:
    return differing(settings, _SETTINGS)


def read_settings(record: Record) -> Settings:
    return Settings(**record)


def differing(value: object, known: list[Saved]) -> Record:
    """Return a record of the fields that differ from their defaults."""
    record = {}
    for name, saved, default in known:
        item = getattr(value, name)
        if item is not default and item != default:
            record[saved] = item
    return record


def read_report(data: bytes, failure: str = "") -> Definitions:
    """Return the definitions in the child's report. Raises DefinitionsError with all problems of all files.

    `failure` says how a child failed; the problem then names the file that it was working on, and the line if known.
    """
    reader = ReportReader()
    reader.feed(data)
    return reader.definitions(failure)


class ReportReader:
    """A reader like `read_report` for a report that arrives in pieces, each of which is processed at once.

    `before` is that of `write_report`.
    """

    def __init__(self, before: Definitions = NOTHING) -> None:
        self._before = before
        self._kept: dict[str, KeptFile] = {}
        self._of_file: list[Service] = []  # the services of the file that is being read
        self._rest = b""
        self._at = "definitions"
        self._ended = False
        self.looked = False  # the search for programs is finished, as the last step
        self._passing = False
        self._problems: list[str] = []
        self._notices: list[str] = []
        self._about: dict[str, tuple[str, ...]] = {}
        self._sources: dict[str, str] = {}
        self._services: dict[str, Service] = {}
        self._settings = Settings()
        self._digest = ""
        self._shared = SharedValues()

    def feed(self, data: bytes) -> None:
        """Process the next piece, of any length."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    @property
    def is_complete(self) -> bool:
        """Whether everything except the search for programs has arrived."""
        return self._ended

    def definitions(self, failure: str = "", *, final: bool = False) -> Definitions:
        """Return the definitions, after the last piece. Raises DefinitionsError.

        `final`: the child would fail again.
        """
        if not self._ended:
            self._problems.append(f"{self._at}: {failure or 'the evaluation ended without a result'}")
        if self._problems:
            raise DefinitionsError(self._problems, self._passing or not (self._ended or final))
        notices = tuple(self._notices)
        return Definitions(
            self._services, self._settings, self._sources, notices, self._about, self._digest, self._kept
        )

    def _take(self, record: Record) -> None:
        match record:
            case {"service": service}:
                self._add(self._shared.service(service))
            case {"same": name}:
                self._add(self._before.services[name])
            case {"unchanged": path, "digests": digests}:
                kept = self._before.kept[path]
                self._kept[path] = replace(kept, digests=digests) if digests else kept
                self._services.update((service.name, service) for service in kept.services)
            case {"kept": kept, "file": path}:
                self._keep(path, kept)
            case {"file": path}:
                self._at = place(path, 0)
            case {"at": at, "doing": doing}:
                self._at = f"{at}: cannot {doing}"
            case {"problem": text}:
                self._problems.append(text)
            case {"passing": _}:
                self._passing = True
            case {"notice": text, "about": about}:
                self._notices.append(text)
                if about:
                    self._about[text] = tuple(about)
            case {"source": path, "text": text}:
                self._sources[sys.intern(path)] = text
                self._of_file = []
            case {"settings": settings}:
                self._settings = read_settings(settings)
            case {"digest": digest}:
                self._digest = digest
            case {"looked": _}:
                self.looked = True
            case {"end": _}:
                self._ended = True
            case _:
                raise AssertionError(f"unknown record with {', '.join(record)}")

    def _add(self, service: Service) -> None:
        self._services[service.name] = service
        self._of_file.append(service)

    def _keep(self, path: str, kept: Record) -> None:
        notices = tuple((text, tuple(about)) for text, about in kept["notices"])
        asked = sys.intern(kept["asked"])
        self._kept[sys.intern(path)] = KeptFile(kept["text"], asked, notices, kept["digests"], tuple(self._of_file))


def _tuples(value: Any) -> Any:
    """Return a value with tuples in place of lists, which JSON has made of them."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


class SharedValues:
    """Builds services so that equal values are one object: a thousand services differ little."""

    def __init__(self) -> None:
        self._values: dict[Any, Any] = {}
        numbers: dict[int, int] = {}
        self._empty: Record = {name: default for name, _saved, default in _SERVICE if isinstance(default, dict)}
        self._convert: dict[str, Callable[[Any], Any]] = {
            **dict.fromkeys(_STANDARD, self._descriptor),
            "fd": lambda values: self._one(tuple(self._descriptor(value) for value in values)),
            "backoff": lambda value: self._one(Backoff(**value)),
            "accept": lambda value: self._one(Accept(**{name: _tuples(item) for name, item in value.items()})),
            "env": self._dict,
            "login_env": self._dict,
            "limits": lambda value: self._dict({name: tuple(pair) for name, pair in value.items()}),
            "resources": self._dict,
            "lines": lambda value: {sys.intern(key): numbers.setdefault(line, line) for key, line in value.items()},
        }

    def service(self, record: Record) -> Service:
        built = self._empty.copy()
        for saved, value in record.items():
            name = _RENAMED.get(saved, saved)
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
        # the type is part of the key, because 1, 1.0 and True are equal
        return self._values.setdefault((type(value), value), value)

    def _descriptor(self, record: Record) -> Descriptor:
        found: Descriptor = self._one(Descriptor(**record))
        return found

    def _dict(self, value: Record) -> Record:
        shared = {sys.intern(name): self._one(item) for name, item in value.items()}
        found: Record = self._values.setdefault((dict, tuple(shared.items())), shared)
        return found
