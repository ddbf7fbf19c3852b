"""Ten thousand things that a client can do to the control socket of a real spawnd.

`SPAWND_FUZZ_SEED=N` repeats a run; a failure names its seed and its case.
"""

from __future__ import annotations

import json
import os
import random
import socket
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

from supervisor.varlink.interface import parse
from tests.bench.measure import descriptors, pss_kb
from tests.daemon import Daemon, children, wait_until
from tests.integration.conftest import Start
from tests.integration.fuzz_cases import Case, Cases
from tests.integration.test_call import ODD
from tests.integration.test_life import SLEEP
from tests.unit.varlink.lingering import pass_on

Program = Callable[[str, str], str]
CASES = 10_000
WARM_UP = 1_000  # until then memory may grow: what a first use imports and allocates stays
GROWTH_KB = 8 * 1024
LOOK_EVERY = 250
STAYING = 30  # clients that are connected besides the one that talks
GLANCE = 0.003  # seconds to see what comes where nothing has to


class Client:
    def __init__(self, daemon: Daemon) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(daemon.socket))
        self.sock.settimeout(GLANCE)

    def send(self, case: Case) -> None:
        try:
            if case.descriptor:
                mine, theirs = socket.socketpair()
                pass_on(self.sock, theirs, b" ")
                mine.close()
            for piece in case.pieces:
                self.sock.sendall(piece)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            pass  # it has seen enough, or has more to do than to read

    def read(self, seconds: float) -> bytes:
        """Return the data until a reply is complete, the connection ends, or nothing has come for so long."""
        self.sock.settimeout(seconds)
        data = b""
        try:
            while b"\0" not in data and (chunk := self.sock.recv(1 << 16)):
                data += chunk
        except (TimeoutError, ConnectionResetError):
            pass
        return data

    def finish(self, case: Case) -> bool:
        """Do what the case does in the end; whether the client is done with."""
        match case.then:
            case "stay":
                return False
            case "half-close":
                try:
                    self.sock.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
                check(self.read(GLANCE))
            case "read":
                answer = self.read(10 if case.certain else GLANCE)
                check(answer)
                assert not case.certain or json.loads(answer.split(b"\0")[0]).get("error"), answer
        self.sock.close()
        return True


def check(answer: bytes) -> None:
    """Every whole message is a reply or an error, and none of them is of our own making."""
    for message in answer.split(b"\0")[:-1]:
        value = json.loads(message)
        assert isinstance(value, dict), answer
        assert value.keys() <= {"parameters", "error", "continues"}, answer
        assert b"unexpected error" not in message, answer


def ask(daemon: Daemon, method: str, **parameters: object) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(daemon.socket))
        sock.settimeout(60)
        sock.sendall(json.dumps({"method": method, "parameters": parameters}).encode() + b"\0")
        answer = b""
        while not answer.endswith(b"\0"):
            chunk = sock.recv(1 << 20)
            assert chunk, "closed without an answer"
            answer += chunk
    value: dict[str, Any] = json.loads(answer[:-1])
    assert "error" not in value, value
    reply: dict[str, Any] = value["parameters"]
    return reply


def interfaces(daemon: Daemon) -> list[Any]:
    names = ask(daemon, "org.varlink.service.GetInfo")["interfaces"]
    texts = [ask(daemon, "org.varlink.service.GetInterfaceDescription", interface=name) for name in names]
    return [parse(text["description"]) for text in texts]


@pytest.fixture
def daemon(spawnd: Start, program: Program) -> Daemon:
    """With services in many states, one of them with a control socket."""
    odd = program("odd", ODD)
    more = 'stop_timeout = "200ms", backoff = { first = "20ms", max = "200ms" }, start_limit = 3'
    daemon = spawnd(
        f"""
        _DEFAULT = {{ {more} }}
        runs = {{ {SLEEP}, reload_signal = "WINCH", stdout = log() }}
        stays = {{ {SLEEP}, status = "stop", depends = "runs" }}
        fails = {{ exec = "/bin/false" }}
        never = {{ exec = "/nonexistent" }}
        hangs = {{ {SLEEP}, ready = "notify", start_timeout = "2s" }}
        once = {{ exec = "/bin/true", task = true }}
        odd = {{ exec = "{odd}", arg = {{ "@/out" }}, control = true, start_limit = false }}
        """,
        "--log-level",
        "warning",
    )
    daemon.wait_running("odd")
    return daemon


def test_ten_thousand_cases(daemon: Daemon) -> None:
    seed = int(os.environ.get("SPAWND_FUZZ_SEED") or random.SystemRandom().getrandbits(32))
    names = [row["name"] for row in ask(daemon, "io.spawnd.List")["services"]]
    cases = Cases(interfaces(daemon), [*names, "all", "*"], seed)
    at_rest = descriptors_at_rest(daemon)
    staying: deque[Client] = deque()
    memory = 0
    case = None
    try:
        for number, case in enumerate(islice(cases, CASES)):
            client = Client(daemon)
            client.send(case)
            if not client.finish(case):
                staying.append(client)
            if len(staying) > STAYING:
                staying.popleft().sock.close()
            if number % LOOK_EVERY == 0:
                ask(daemon, "io.spawnd.GetVersion")
            if number == WARM_UP:
                memory = pss_kb(daemon.pid)
        case = None
        while staying:
            staying.popleft().sock.close()
        wait_until(lambda: descriptors_at_rest(daemon) == at_rest, "no descriptor more", patience=40)
        assert pss_kb(daemon.pid) < memory + GROWTH_KB
        log = daemon.log()
        for sign in ("unexpected error", "Traceback"):
            assert sign not in log, log[log.index(sign) - 200 :][:3000]
    except BaseException as error:
        error.add_note(f"SPAWND_FUZZ_SEED={seed}, case {case!r:.3000}")
        raise
    finally:
        for client in staying:
            client.sock.close()


def descriptors_at_rest(daemon: Daemon) -> int:
    """Those that spawnd has with every service stopped: what a service is given is not counted."""
    ask(daemon, "io.spawnd.Stop", names=["all"])
    wait_until(lambda: len(children(daemon.pid)) <= 1, "nothing but the log worker")
    return descriptors(daemon.pid)
