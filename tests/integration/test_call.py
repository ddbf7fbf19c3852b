"""Calls to services through a real spawnd: workers of the project's own, and services that do as they like."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from supervisor.ctl.errors import ExitCode
from tests.daemon import BIN, Daemon, wait_until
from tests.integration.conftest import Start
from tests.integration.test_life import SLEEP
from tests.integration.test_reload_edges import ENV
from tests.unit.control.bench import encode
from tests.unit.waiting import HELD_UP

Program = Callable[[str, str], str]

# A worker as the project's own are, but for its name: a Python program on the project's loop.
COUNTER = f"""#!{sys.executable} -I
import os, signal
from supervisor.loop.loop import Loop
from supervisor.varlink.messages import ControlError
from workers.runtime.control import Control
from workers.runtime.control import CONTROL, ControlSocket
from workers.runtime.start import passed_descriptors

INTERFACE = '''
interface org.example.counter
method Add(by: ?int) -> (count: int, pid: int)
method Descriptors() -> (count: int)
error TooMuch (limit: int)
'''
count = 0

def add(parameters):
    global count
    if (parameters["by"] or 0) > 100:
        raise ControlError("org.example.counter.TooMuch", limit=100)
    count += 1 if parameters["by"] is None else parameters["by"]
    return {{"count": count, "pid": os.getpid()}}

def descriptors(parameters):
    return {{"count": len(os.listdir("/proc/self/fd"))}}

loop = Loop(on_error=lambda error: os._exit(3))
control = Control("counter", INTERFACE, {{"Add": add, "Descriptors": descriptors}})
served = ControlSocket(loop, passed_descriptors()[CONTROL][0], control)
loop.on_signal(signal.SIGTERM, loop.stop)
loop.run()
served.close()
"""

# A service that does with each connection what the method's name says.
ODD = f"""#!{sys.executable} -IS
import json, select, socket, sys, time
listener = socket.socket(fileno=3)
connections = []
while True:
    readable, _, _ = select.select([listener, *connections], [], [])
    for sock in readable:
        if sock is listener:
            connections.append(listener.accept()[0])
            continue
        data = sock.recv(1 << 20)
        if not data:
            with open(sys.argv[1] + "/closed", "a") as file:
                file.write("closed\\n")
            connections.remove(sock)
            sock.close()
            continue
        call = json.loads(data.rstrip(b"\\0"))
        match call["method"].rpartition(".")[2]:
            case "Silent":
                pass
            case "Garbage":
                sock.sendall(b"\\x1b[2J garbage\\0")
            case "Close":
                connections.remove(sock)
                sock.close()
            case "Stream":
                for number in range(3):
                    reply = {{"parameters": {{"n": number}}, "continues": number < 2}}
                    sock.sendall(json.dumps(reply).encode() + b"\\0")
            case "Flood":
                try:
                    while True:
                        sock.sendall(b"x" * 65536)
                except OSError:
                    pass
            case "Answer":
                sock.sendall(b'{{"parameters": {{}}}}\\0')
            case "Error":
                sock.sendall(b'{{"error": "org.example.Bad\\\\u001b[2J", "parameters": {{"why": "\\\\u001b[2J"}}}}\\0')
"""


@pytest.fixture
def counter(spawnd: Start, program: Program) -> Daemon:
    script = program("counter", COUNTER)
    daemon = spawnd(f'c = {{ exec = "{script}", control = true, healthy_after = 0 }}\nplain = {{ {SLEEP} }}')
    daemon.wait_running("c")
    return daemon


@pytest.fixture
def odd(spawnd: Start, program: Program) -> Daemon:
    script = program("odd", ODD)
    daemon = spawnd(f'o = {{ exec = "{script}", arg = {{ "@/out" }}, control = true }}\nplain = {{ {SLEEP} }}')
    daemon.wait_running("o")
    daemon.wait_running("plain")  # what a start needs is closed again
    return daemon


def called(daemon: Daemon, *arguments: str) -> dict[str, object]:
    result = daemon.ctl("call", *arguments, "--json")
    assert result.returncode == 0, result.stderr
    value: dict[str, object] = json.loads(result.stdout)
    return value


def test_a_worker_answers(counter: Daemon) -> None:
    pid = counter.pid_of("c")
    assert called(counter, "c", "Add", '{"by": 5}') == {"count": 5, "pid": pid}
    assert called(counter, "c", "org.example.counter.Add") == {"count": 6, "pid": pid}
    result = counter.ctl("call", "c", "Add", '{"by": 0}')
    assert json.loads(result.stdout) == {"count": 6, "pid": pid}
    assert result.stdout.startswith("{\n  ")
    assert f"call of Add of c: asked for by uid {os.geteuid()}, pid " in counter.log()


def test_introspection_of_a_worker(counter: Daemon) -> None:
    info = called(counter, "c", "org.varlink.service.GetInfo")
    assert info["interfaces"] == ["org.example.counter", "org.varlink.service"]
    reply = called(counter, "c", "org.varlink.service.GetInterfaceDescription", '{"interface": "org.example.counter"}')
    assert str(reply["description"]).startswith("interface org.example.counter\n")


def test_errors_of_a_worker(counter: Daemon) -> None:
    result = counter.ctl("call", "c", "Add", '{"by": 101}', "--json")
    assert result.returncode == ExitCode.FAILED
    assert json.loads(result.stdout) == {"error": "org.example.counter.TooMuch", "parameters": {"limit": 100}}
    assert result.stderr == "spawnctl: c: org.example.counter.TooMuch: limit 100\n"
    result = counter.ctl("call", "c", "Add", '{"by": "x"}')
    assert result.returncode == ExitCode.FAILED
    assert result.stderr == "spawnctl: c: org.varlink.service.InvalidParameter: parameter 'by'\n"


def test_whom_nobody_can_call(counter: Daemon) -> None:
    assert counter.ctl("call", "nope", "Add").returncode == ExitCode.NO_SUCH_SERVICE
    result = counter.ctl("call", "plain", "Add")
    assert (result.returncode, result.stdout) == (ExitCode.FAILED, "")
    assert result.stderr == "spawnctl: plain cannot be called: it has no control = true\n"
    assert counter.ctl("stop", "c").returncode == 0
    result = counter.ctl("call", "c", "Add", "--json")
    assert result.returncode == ExitCode.FAILED
    assert result.stderr == "spawnctl: c cannot be called: it is stopped; `spawnctl why c` says more\n"
    assert json.loads(result.stdout) == {
        "error": "io.spawnd.NotRunning",
        "parameters": {"name": "c", "state": "stopped"},
    }
    assert counter.ctl("start", "c").returncode == 0
    assert called(counter, "c", "Add")["count"] == 1


def test_the_socket_of_a_service_is_for_spawnd_alone(counter: Daemon) -> None:
    path = counter.runtime / "control.d" / "c"
    status = path.stat()
    assert (status.st_mode & 0o777, status.st_uid) == (0o600, os.geteuid())
    assert path.parent.stat().st_mode & 0o022 == 0
    assert "control" in counter.ctl("fds", "c").stdout


def test_no_call_is_lost_while_a_service_is_replaced(counter: Daemon) -> None:
    """Those that come while it is dead wait for the next process."""
    for number in range(5):
        pid = counter.wait_running("c")
        os.kill(pid, signal.SIGSTOP)
        command = ctl(counter, "call", "c", "org.example.counter.Add", "--json")
        client = subprocess.Popen(command, stdout=subprocess.PIPE)
        text = "call of org.example.counter.Add of c"
        wait_until(lambda: counter.log().count(text) == number + 1, "the call")  # noqa: B023 - called in this turn
        os.kill(pid, signal.SIGKILL)
        answer = json.loads(client.communicate(timeout=60)[0])
        assert answer == {"count": 1, "pid": counter.pid_of("c")}
        assert answer["pid"] != pid


def ctl(daemon: Daemon, *arguments: str) -> list[str]:
    return [str(BIN / "spawnctl"), "--socket", str(daemon.socket), *arguments]


def test_a_service_that_is_given_up_while_a_call_waits(spawnd: Start, program: Program) -> None:
    script = program("fails", "#!/bin/sh\nwhile [ ! -e $1/go ]; do sleep 0.01; done\nexit 1\n")
    daemon = spawnd(
        f"""
        f = {{
          exec = "{script}", arg = {{ "@/out" }}, {ENV}, control = true, start_limit = 1, healthy_after = "10m",
        }}
        """
    )
    daemon.wait_running("f")
    client = subprocess.Popen(ctl(daemon, "call", "f", "a.b.Do"), stderr=subprocess.PIPE, text=True)
    daemon.wait_log("call of a.b.Do of f")
    (daemon.folder / "out" / "go").touch()
    said = client.communicate(timeout=60)[1]
    assert said == "spawnctl: f cannot be called: it has failed; `spawnctl why f` says more\n"
    assert client.returncode == ExitCode.FAILED


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("a.b.Silent", "o did not answer within 0.5 s"),
        ("a.b.Garbage", "the reply of o is invalid: not JSON: Expecting value: line 1 column 1 (char 0)"),
        ("a.b.Close", "o closed the connection before it answered"),
        ("a.b.Flood", "the reply of o is invalid: a reply is longer than 1048576 bytes"),
        ("a.b.Error", "o: org.example.Bad\\x1b[2J: why '\\x1b[2J'"),
        ("a.b.Stream", "the reply of o is invalid: more than one reply"),
        ("Silent", "o did not answer within 0.5 s"),
    ],
)
def test_services_that_do_as_they_like(odd: Daemon, method: str, message: str) -> None:
    before = len(os.listdir(f"/proc/{odd.pid}/fd"))
    result = odd.ctl("call", "o", method, "--timeout", "0.5" if method.endswith("Silent") else "60")
    assert result.returncode == ExitCode.FAILED
    assert result.stderr == f"spawnctl: {message}\n"
    wait_until(lambda: len(os.listdir(f"/proc/{odd.pid}/fd")) <= before, "no descriptor more")


def test_many_replies(odd: Daemon) -> None:
    result = odd.ctl("call", "o", "a.b.Stream", "--more")
    assert (result.returncode, result.stdout) == (0, '{"n": 0}\n{"n": 1}\n{"n": 2}\n')


def test_a_caller_that_is_interrupted_ends_the_call(odd: Daemon) -> None:
    client = subprocess.Popen(ctl(odd, "call", "o", "a.b.Silent", "--timeout", "600"), stderr=subprocess.DEVNULL)
    odd.wait_log("call of a.b.Silent of o")
    client.send_signal(signal.SIGINT)
    assert client.wait(60) == ExitCode.INTERRUPTED
    wait_until((odd.folder / "out" / "closed").exists, "the end of the connection")


@contextmanager
def callers(daemon: Daemon, count: int, method: str, timeout: float) -> Iterator[list[socket.socket]]:
    """So many clients that have `o` called, once spawnd has got it."""
    with ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(daemon.socket))
            client.settimeout(60)
            client.sendall(encode("io.spawnd.Call", name="o", method=method, timeout=timeout))
            clients.append(client)
        wait_until(lambda: daemon.log().count(f"call of {method} of o") == count, "the calls")
        yield clients


def test_a_hundred_slow_calls_slow_down_nobody(odd: Daemon) -> None:
    with callers(odd, 100, "a.b.Silent", timeout=600) as clients:
        assert odd.ctl("list").returncode == 0
        assert odd.ctl("restart", "plain").returncode == 0
        assert not select.select(clients, [], [], 0)[0]


def test_a_hundred_slow_calls_run_out_of_time(odd: Daemon) -> None:
    with callers(odd, 100, "a.b.Silent", timeout=0.5) as clients:
        assert all(b"io.spawnd.TimedOut" in client.recv(65536) for client in clients)


def test_many_calls_to_one_that_accepts_nobody_wait(odd: Daemon) -> None:
    pid = odd.wait_running("o")
    os.kill(pid, signal.SIGSTOP)
    with callers(odd, 300, "a.b.Answer", timeout=600) as clients:
        begun = time.monotonic()
        assert odd.ctl("list").returncode == 0
        assert time.monotonic() - begun < HELD_UP
        os.kill(pid, signal.SIGCONT)
        assert all(b'{"reply":{}}' in client.recv(65536) for client in clients)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user")
def test_not_for_who_may_not_control(counter: Daemon) -> None:
    for socket_path in (str(counter.socket), str(counter.runtime / "control.d" / "c")):
        as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        command = [*as_nobody, str(BIN / "spawnctl"), "--socket", socket_path, "call", "c", "Add"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == ExitCode.NOT_PERMITTED, result.stderr
