"""The server does what the interface definition says."""

from __future__ import annotations

from itertools import product

import pytest

from supervisor import __version__
from supervisor.control import errors
from supervisor.control.errors import ControlError
from supervisor.control.verbs import METHODS, introspection
from supervisor.definitions.service import Definitions, Service
from supervisor.lifecycle import machine
from supervisor.lifecycle.cause import Kind
from supervisor.lifecycle.life import Cause, Ended, Life, State, Then
from supervisor.lifecycle.transaction import Outcome
from tests.unit.control.bench import Bench, encode
from tests.unit.control.fake_core import with_process
from tests.unit.control.interface import Interface, Reader

INTERFACES = {name: Reader(introspection.description(name)).read() for name in introspection.INTERFACES}
SPAWND = INTERFACES["io.spawnd"]


def test_info(bench: Bench) -> None:
    reply = bench.call("org.varlink.service.GetInfo")["parameters"]
    assert reply["version"] == __version__
    assert reply["interfaces"] == ["io.spawnd", "org.varlink.service"]
    INTERFACES["org.varlink.service"].check(reply, INTERFACES["org.varlink.service"].methods["GetInfo"][1])


@pytest.mark.parametrize("name", introspection.INTERFACES)
def test_description(bench: Bench, name: str) -> None:
    reply = bench.call("org.varlink.service.GetInterfaceDescription", interface=name)
    assert Reader(reply["parameters"]["description"]).read().name == name


def test_no_such_description(bench: Bench) -> None:
    reply = bench.call("org.varlink.service.GetInterfaceDescription", interface="../x")
    assert reply == {"error": "org.varlink.service.InterfaceNotFound", "parameters": {"interface": "../x"}}


def test_methods_are_those_described() -> None:
    described = {f"{name}.{method}" for name, interface in INTERFACES.items() for method in interface.methods}
    assert described == set(METHODS), "METHODS and the *.varlink files have to name the same methods"


def test_states_are_those_described() -> None:
    assert SPAWND.types["State"] == ("enum", *(state.value for state in State))


def test_kinds_are_those_described() -> None:
    kind, *members = SPAWND.types["Kind"]
    assert kind == "enum"
    assert sorted(members) == sorted(kind.value for kind in Kind)


def test_details_begin_with_a_service() -> None:
    service = SPAWND.types["Service"]
    assert list(SPAWND.types["Details"].items())[: len(service)] == list(service.items())


@pytest.mark.parametrize(
    "error",
    [
        errors.MethodNotFound("x"),
        errors.InterfaceNotFound("x"),
        errors.InvalidParameter("x"),
        errors.ExpectedMore(),
        errors.PermissionDenied(),
        errors.Malformed("x"),
        errors.TooManyClients(),
        errors.NoSuchService("x"),
        errors.NoSuchService("x", "y"),
        errors.NoLog("x"),
        errors.OtherDefinitions("x"),
        errors.Failed("x"),
        errors.ServiceError("x", "a.b.C", {"d": [1]}),
        errors.NoControl("x"),
        errors.NotRunning("x", "stopped"),
        errors.TimedOut("x", 0.5),
        errors.ConnectionLost("x"),
        errors.BadReply("x", "y"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_are_as_described(error: ControlError) -> None:
    interface, _, name = error.name.rpartition(".")
    described: Interface = INTERFACES[interface]
    described.check(error.parameters, described.errors[name])


def test_every_error_is_described() -> None:
    defined = {cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, ControlError)}
    assert len(defined) - 1 == sum(len(interface.errors) for interface in INTERFACES.values())


CALLS: list[tuple[str, dict[str, object]]] = [
    ("GetVersion", {}),
    ("List", {}),
    ("Status", {"names": ["all"]}),
    ("Start", {"names": ["web"]}),
    ("Start", {"names": ["web"], "no_wait": None}),
    ("Stop", {"names": ["web"]}),
    ("Restart", {"names": ["web"], "no_wait": True}),
    ("Sleep", {"names": ["web"], "no_wait": True}),
    ("Reload", {"names": ["web"]}),
    ("Reopen", {"names": ["web"]}),
    ("Signal", {"names": ["web"], "signal": 1}),
    ("Reset", {"names": ["web"]}),
    ("Fds", {"name": "web"}),
    ("Sessions", {}),
    ("Denied", {}),
    ("Forgive", {"addresses": ["192.0.2.7"]}),
    ("Kill", {"name": "web", "session": "4711", "signal": None}),
    ("Logs", {"name": "web", "count": None}),
    ("Check", {}),
    ("Plan", {}),
    ("Apply", {"no_wait": True}),
    ("Graph", {}),
    ("Why", {"name": "web"}),
    ("Show", {"name": "web"}),
    ("Shutdown", {}),
]
# methods whose replies other tests hold against the description: `test_each_of_many_replies_is_as_described`,
# test_call.py, test_resume.py
ELSEWHERE = {"Monitor", "Call", "Reexec"}


def test_every_method_is_called() -> None:
    assert {method for method, _ in CALLS} | ELSEWHERE == SPAWND.methods.keys(), "add a call of the method to CALLS"


@pytest.mark.parametrize(("method", "parameters"), CALLS)
def test_replies_are_as_described(bench: Bench, method: str, parameters: dict[str, object]) -> None:
    core = bench.core
    core.start(["tftp"])
    core.plans["qotd"] = "fails"
    core.start(["qotd"])
    bench.run_until(lambda: core.units["qotd"].life.state is State.BACKOFF)
    bench.run_until(lambda: core.units["tftp"].life.state is State.RUNNING)
    core.units["tftp"].memory, core.units["tftp"].cpu = 1 << 40, 0.5
    core.reopened["web"] = Outcome(True)
    core.files = Definitions({name: with_process(Service(name, nice=1)) for name in ("web", "new")}, digest="d")
    taken, given = SPAWND.methods[method]
    SPAWND.check({name: None for name in taken} | parameters, taken, f"parameters of {method}")
    reply = bench.call(f"io.spawnd.{method}", **parameters)
    assert "error" not in reply, f"{method}: {reply}"
    SPAWND.check(reply["parameters"], given, f"reply of {method}")


def test_details_of_one_that_reloads(bench: Bench) -> None:
    bench.core.start(["web"])
    bench.run_until(lambda: bench.core.units["web"].life.state is State.RUNNING)
    bench.core.event("web", machine.reloading)
    reply = bench.call("io.spawnd.Status", names=["web"])["parameters"]
    SPAWND.check(reply, SPAWND.methods["Status"][1])
    assert reply["services"][0]["uptime_s"] is not None


@pytest.mark.parametrize("method", ["Logs", "Monitor"])
def test_each_of_many_replies_is_as_described(bench: Bench, method: str) -> None:
    client = bench.connect()
    client.stream(f"io.spawnd.{method}", **({"name": "web"} if method == "Logs" else {}))
    given = SPAWND.methods[method][1]
    SPAWND.check(client.reply()["parameters"], given, f"first reply of {method}")
    bench.core.start(["web"])
    bench.core.write("web", b"hello\n")
    SPAWND.check(client.reply()["parameters"], given, f"second reply of {method}")


ENDS = [None, Ended(), Ended(status=1), Ended(signum=9, signal="KILL"), Ended.of_step("exec", "/x", 2, "No such file")]
METHODS_OF_ONE = {"Why": "name", "Show": "name", "Fds": "name", "Logs": "name", "Status": "names", "List": "names"}


@pytest.mark.parametrize("state", list(State))
def test_a_verb_works_in_every_state(bench: Bench, state: State) -> None:
    core = bench.define(Service("web", depends=("db",), check=("/x",)), Service("db"))
    now = bench.clock()
    unit = core.units["web"]
    unit.next_service = Service("web", exec="/other")
    client = bench.connect()
    checked: dict[str, object] = {}  # the last reply of each method: the same one again is not checked again
    for cause, then, ended in product(Cause, Then, ENDS):
        unit.life = Life(state, now, cause=cause, then=then, deadline=now + 5, failures=2)
        unit.ended = ended
        calls = {method: {key: "web" if key == "name" else ["web"]} for method, key in METHODS_OF_ONE.items()}
        client.send(b"".join(encode(f"io.spawnd.{method}", **given) for method, given in calls.items()))
        for method, reply in zip(calls, client.replies(len(calls)), strict=True):
            reply = reply["parameters"]
            if checked.get(method) != reply:
                SPAWND.check(reply, SPAWND.methods[method][1])
                checked[method] = reply
