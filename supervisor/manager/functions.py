"""The functions of a service: what one call of them needs, and what came of it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import NoReturn, Protocol

from supervisor.definitions.service import Service
from supervisor.lifecycle.ended import Ended
from supervisor.manager.job import receive_job
from supervisor.process import child
from supervisor.process.answer import Answer
from supervisor.process.children import Exit, signal_name
from supervisor.process.memfd import memfd
from supervisor.process.nursery import Brood
from supervisor.process.run import Role

WORKER = "function"  # the worker that makes a call
SHARED = 4096  # bytes of a text from which on it is evaluated once for many calls: less takes no time


def as_called(service: Service) -> Service:
    """The service as its functions are to be: with a process of its own, its limits are that one's alone."""
    called = service
    if service.has_process:
        called = replace(
            service, limits={}, capabilities=None, no_new_privs=False, nice=None, cpu_affinity=(), oom_score_adj=None,
            chroot="",
        )  # fmt: skip
    if service.functions_as_root:
        called = replace(called, user="root", group="root", groups=(), uid=0, gid=0, gids=())
    return called


def order_file(service: Service, role: Role, text: str | None) -> int:
    """A memfd with what the worker is to call; the caller owns it.  Without a text it has that.  Raises OSError."""
    order = {"path": service.file, "module": service.name, "function": role.value, "shared": shared_key(service)}
    return memfd("function", json.dumps(order if text is None else {**order, "text": text}).encode())


def shared_key(service: Service) -> str:
    """What the nursery is to know a text by: a file with the same text and another name may define other modules."""
    return f"{service.text} {service.file}"


def shared_data(service: Service, text: str) -> bytes:
    """What the nursery is told of a text that it is to share."""
    return json.dumps({"path": service.file, "text": text}).encode()


def load() -> Brood:
    """Import, in the nursery, all that calls need."""
    from workers.function.main import Function

    return Calls(Function())


class Worker(Protocol):
    """`workers.function.main.Function`, which spawnd must not import."""

    def share(self, key: str, data: bytes) -> None: ...
    def main(self) -> int: ...


class Calls:
    """The nursery's children: each makes one call."""

    def __init__(self, function: Worker) -> None:
        self._function = function

    def share(self, key: str, data: bytes) -> None:
        self._function.share(key, data)

    def run(self, fd: int) -> NoReturn:
        child.run(receive_job(fd), lambda: self._function.main)


def is_clean(answer: Answer | None, pid: int, is_child: bool) -> bool:
    """Whether a function that has ended, and is not reaped yet, has succeeded.

    One that gave no answer has ended itself, or become another program: its exit status says it then.
    """
    if answer is not None:
        return answer.ok
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) if is_child else None
    return found is not None and found.si_code == os.CLD_EXITED and found.si_status == 0


def describe(role: Role, answer: Answer | None, exit: Exit) -> str:
    """How a call came out, for people to read."""
    if answer is None:
        return f"{role.value} {exit.describe()}"
    if answer.ok:
        return f"{role.value} succeeded"
    return f"{role.value} failed{f': {answer.text}' if answer.text else ''}"


def ended_of(role: Role, answer: Answer | None, exit: Exit) -> Ended:
    """How a call came out, as it is kept."""
    if answer is not None:
        return Ended(status=0 if answer.ok else 1, function=role.value, cause=answer.text)
    if not exit.known:
        return Ended(function=role.value)
    if exit.signum:
        return Ended(signum=exit.signum, signal=signal_name(exit.signum), core=exit.core, function=role.value)
    return Ended(status=exit.status, function=role.value)
