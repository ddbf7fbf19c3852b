"""The functions of a service: the input of a call, and its result.

The texts of definition files whose functions can still be called are kept as they were checked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NoReturn, Protocol

from supervisor.definitions.service import Definitions, Reset, Service
from supervisor.lifecycle.life import Ended
from supervisor.linux.descriptors import memfd
from supervisor.process import child
from supervisor.process.children import Exit, signal_name
from supervisor.process.fork_server import Program
from supervisor.process.run import Answer, Role

WORKER = "function"  # the worker that makes a call
SHARED = 4096  # bytes; a text of at least this size is evaluated once for many calls, as a shorter one takes no time


def as_called(service: Service) -> Service:
    """Return the service in which its functions run.

    If it has a process of its own, its limits apply to that process alone.
    """
    called = service.without(Reset.ALWAYS)
    if service.has_process:
        called = called.without(Reset.BESIDE_PROCESS)
    if service.function_ids is None and not service.functions_as_root:
        return called
    uid, gid = service.function_ids or (0, 0)
    return replace(called.without(Reset.OTHER_USER), uid=uid, gid=gid)


def order_file(service: Service, role: Role, text: str | None) -> int:
    """Return a memfd with the order for the worker; the caller owns it.

    Without `text`, the worker has the text already. Raises OSError.
    """
    order = {"path": service.file, "module": service.name, "function": role.value, "shared": shared_key(service)}
    return memfd("function", json.dumps(order if text is None else {**order, "text": text}).encode())


def shared_key(service: Service) -> str:
    """Return the fork server's key of a text, with the file name: the same text in two files defines two modules."""
    return f"{service.source_digest} {service.file}"


def shared_data(service: Service, text: str) -> bytes:
    """Return the message that gives a text to the fork server."""
    return json.dumps({"path": service.file, "text": text}).encode()


def load() -> Program:
    """Import, in the fork server, everything that calls need."""
    from workers.function.main import Function

    return Calls(Function())


class Worker(Protocol):
    """`workers.function.main.Function`, which spawnd must not import."""

    def share(self, key: str, data: bytes) -> None: ...
    def main(self) -> int: ...


class Calls:
    """Program of the fork server; each of its children makes one call."""

    def __init__(self, function: Worker) -> None:
        self._function = function

    def share(self, key: str, data: bytes) -> None:
        self._function.share(key, data)

    def run_child(self, fd: int) -> NoReturn:
        child.become_worker(child.receive_plan(fd), fd, lambda: self._function.main)


def function_succeeded(answer: Answer | None, pid: int, is_child: bool) -> bool:
    """Whether a function that has ended and is not reaped yet has succeeded.

    A function without an answer has exited by itself or executed a program; then the exit status counts.
    """
    if answer is not None:
        return answer.ok
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) if is_child else None
    return found is not None and found.si_code == os.CLD_EXITED and found.si_status == 0


def describe(role: Role, answer: Answer | None, exit: Exit) -> str:
    """Return a sentence about the result of a call."""
    if answer is None:
        return f"{role.value} {exit.describe()}"
    if answer.ok:
        return f"{role.value} succeeded"
    return f"{role.value} failed{f': {answer.text}' if answer.text else ''}"


def ended_of(role: Role, answer: Answer | None, exit: Exit) -> Ended:
    """Return the record of the result of a call."""
    if answer is not None:
        return Ended(status=0 if answer.ok else 1, function=role.value, cause=answer.text)
    if not exit.known:
        return Ended(function=role.value)
    if exit.signum:
        return Ended(signum=exit.signum, signal=signal_name(exit.signum), core=exit.core, function=role.value)
    return Ended(status=exit.status, function=role.value)


class Sources:
    """Texts of definition files that are still needed, by the digest that services have."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def learn(self, definitions: Definitions) -> None:
        """Add the texts that the services of these definitions need."""
        for service in definitions.services.values():
            if service.source_digest and service.source_digest not in self.texts:
                self.texts[service.source_digest] = definitions.sources[service.file]

    def give(self, sources: Mapping[str, str]) -> None:
        """Add the texts of an earlier spawnd."""
        self.texts.update(sources)

    def keep(self, wanted: Iterable[str]) -> None:
        """Forget all texts but the wanted ones."""
        kept = set(wanted)
        self.texts = {digest: text for digest, text in self.texts.items() if digest in kept}

    def get(self, digest: str) -> str | None:
        return self.texts.get(digest)
