"""A plan that is torn is refused as a whole; the checker reads no byte beyond it."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, fcntl
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.launch import PATH
from supervisor.launch.operations import HAS_ARGV0, VERSION, Kind, operation, plan
from supervisor.launch.program import carry_out_forked
from supervisor.linux.namespaces import CLONE_NEWIPC, CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWUTS
from supervisor.process.failure import read_failure
from supervisor.process.fork import EXIT_CHILD_FAILED
from tests.unit.launch.plans import plans
from tests.unit.process.forked import read_all

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
CORPUS = sorted((HERE / "corpus").iterdir())
SANITIZED = "-g -fsanitize=address,undefined -fno-sanitize-recover=all"
SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE

MISSING = "No such file or directory (ENOENT)"
NO_PLAN = "cannot start: the plan is none that this version carries out (EINVAL)"

Check = Callable[[Iterable[bytes]], str]
PROGRAM, FORKED, SESSION, NONE = "yfsn"


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """The sorts of some plans; the process that the checker runs in ends with the first byte beyond one."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    program = tmp_path_factory.mktemp("checker") / "checker"
    command = ["cc", "-std=gnu11", "-w", "-O1", "-Isupervisor/linux", "-Isupervisor/launch"]
    source = ["-o", str(program), str(HERE / "checker.c")]
    subprocess.run([*command, *SANITIZED.split(), *source], cwd=ROOT, check=True)

    def run(plans: Iterable[bytes]) -> str:
        data = b"".join(struct.pack("=I", len(plan)) + plan for plan in plans)
        return subprocess.run([program], input=data, stdout=-1, check=True).stdout.decode()

    return run


def test_what_spawnd_writes_is_taken(check: Check) -> None:
    found = dict(zip(plans(), check(plans().values()), strict=True))
    sorts = {"forked": FORKED, "full forked": FORKED, "session": SESSION}
    assert found == {name: sorts.get(name, PROGRAM) for name in plans()}


@pytest.mark.parametrize("name", sorted(plans()))
def test_no_beginning_of_a_plan_is_one(check: Check, name: str) -> None:
    whole = plans()[name]
    assert set(check(whole[:size] for size in range(len(whole)))) == {NONE}
    assert set(check(whole + bytes(size) for size in range(1, 20))) == {NONE}


@pytest.mark.parametrize("name", sorted(plans()))
def test_a_changed_byte_makes_no_crash(check: Check, name: str) -> None:
    """It may make another plan: another word or number."""
    whole = plans()[name]
    for value in (0, 1, 0x7F, 0xFF):
        changed = [whole[:at] + bytes([value]) + whole[at + 1 :] for at in range(len(whole))]
        assert len(check(changed)) == len(whole)


ODD = (0, 1, 8, 2**16, 2**31, 2**32 - 1)


def torn(whole: bytes, changes: bytes) -> bytes:
    """Return a plan with one to four numbers changed, at a place and to a value that seven bytes of `changes` name."""
    copy = bytearray(whole)
    for at in range(0, len(changes) - 6, 7):
        place, odd, value = struct.unpack_from("=HBI", changes, at)
        struct.pack_into("=I", copy, place % (len(copy) // 4) * 4, ODD[odd % 6] if odd & 128 else value)
    return bytes(copy)


@settings(max_examples=40, deadline=None, database=None)
@given(
    st.sampled_from(sorted(plans())), st.lists(st.binary(min_size=7, max_size=4 * 7), min_size=50, max_size=50)
)  # bytes take less time to draw than one number after the other
def test_torn_plans(check: Check, name: str, changes: list[bytes]) -> None:
    whole = plans()[name]
    assert len(check(torn(whole, each) for each in changes)) == 50


def test_what_a_fuzzer_has_found_makes_no_crash(check: Check) -> None:
    plans = [path.read_bytes() for path in CORPUS]
    assert len(plans) > 50
    assert sum(plan[4:8] == struct.pack("=I", VERSION) for plan in plans) > 50, "an older version is refused at once"
    assert {*check(plans)} == {PROGRAM, FORKED, NONE}


GO = operation(Kind.GO)
END = operation(Kind.EXECUTE, numbers=[0], strings=["/bin/true"])
BOUND = operation(Kind.NO_NEW_PRIVS)
RULESET, RESTRICT = operation(Kind.RULESET, numbers=[1, 0, 0]), operation(Kind.RESTRICT)
RULE = operation(Kind.PATH_RULE, path="/", numbers=[1])
ALLOW = 0x7FFF000000000006  # struct sock_filter: return SECCOMP_RET_ALLOW


SIZE, NUMBERS, STRINGS = 12, 4, 8  # places in an operation


def _filter(*numbers: int) -> bytes:
    return operation(Kind.FILTER, numbers=numbers)


def _changed(operation: bytes, place: int, value: int) -> bytes:
    data = bytearray(operation)
    struct.pack_into("=I", data, place, value)
    return bytes(data)


NOT_PLANS = {
    "nothing": [],
    "no program": [GO],
    "nobody is waited for": [END],
    "waits twice": [GO, GO, END],
    "two programs": [GO, END, END],
    "goes on after the program": [GO, END, operation(Kind.NO_NEW_PRIVS)],
    "not in order": [operation(Kind.UID, numbers=[1]), operation(Kind.SESSION), GO, END],
    "confined before spawnd knows of it": [operation(Kind.NO_NEW_PRIVS), GO, END],
    "no user": [operation(Kind.UID, numbers=[2**32 - 1]), GO, END],
    "a user of 64 bits": [operation(Kind.UID, numbers=[2**32]), GO, END],
    "no group": [operation(Kind.GROUPS, numbers=[1, 2, 3, 4, -1]), GO, END],
    "a descriptor below 0": [operation(Kind.MOVE, numbers=[1, 2, 3, -1]), GO, END],
    "half a move": [operation(Kind.MOVE, numbers=[1]), GO, END],
    "no such limit": [operation(Kind.LIMIT, numbers=[16, 0, 0]), GO, END],
    "a number too many": [operation(Kind.NICE, numbers=[1, 2]), GO, END],
    "a number too few": [operation(Kind.NICE), GO, END],
    "a string too few": [operation(Kind.WRITE), GO, END],
    "no assignment": [operation(Kind.ENVIRONMENT, strings=["A"]), GO, END],
    "the program left out": [operation(Kind.IF_EXISTS, numbers=[2]), GO, END],
    "the wait left out": [operation(Kind.IF_EXISTS, numbers=[1]), GO, END],
    "more left out than there is": [operation(Kind.IF_EXISTS, numbers=[3]), GO, END],
    "a mount without a type": [operation(Kind.MOUNT, numbers=[0], strings=["tmpfs", "/tmp"]), GO, END],
    "no type of namespace": [operation(Kind.JOIN_NAMESPACE, numbers=[3, 0]), GO, END],
    "two types of namespace": [operation(Kind.JOIN_NAMESPACE, numbers=[3, CLONE_NEWIPC | CLONE_NEWUTS]), GO, END],
    "any namespace at a path": [operation(Kind.ENTER_NAMESPACE, path="/run/netns/n", numbers=[0]), GO, END],
    "a namespace without a descriptor": [operation(Kind.JOIN_NAMESPACE, numbers=[-1, CLONE_NEWIPC]), GO, END],
    "no namespace made": [operation(Kind.MAKE_NAMESPACES, numbers=[0]), GO, END],
    "users made": [operation(Kind.MAKE_NAMESPACES, numbers=[CLONE_NEWUSER | CLONE_NEWIPC]), GO, END],
    "mounts made with the namespaces": [operation(Kind.MAKE_NAMESPACES, numbers=[CLONE_NEWNS]), GO, END],
    "namespaces made after mounts": [
        operation(Kind.MOUNT_NAMESPACE),
        operation(Kind.MAKE_NAMESPACES, numbers=[CLONE_NEWIPC]),
        GO,
        END,
    ],
    "a rule without a set": [GO, BOUND, RULE, END],
    "a rule before its set": [GO, BOUND, RULE, RULESET, RESTRICT, END],
    "a rule after the restriction": [GO, BOUND, RULESET, RESTRICT, RULE, END],
    "a set that is not in force": [GO, BOUND, RULESET, RULE, END],
    "a restriction without a set": [GO, BOUND, RESTRICT, END],
    "two sets": [GO, BOUND, RULESET, RULESET, RESTRICT, RESTRICT, END],
    "a set with new privileges": [GO, RULESET, RULE, RESTRICT, END],
    "a set before spawnd knows of it": [BOUND, RULESET, RULE, RESTRICT, GO, END],
    "a set before privileges are gone": [GO, RULESET, BOUND, RESTRICT, END],
    "no scopes": [GO, BOUND, operation(Kind.RULESET, numbers=[1, 0]), RESTRICT, END],
    "a rule for no descriptor": [GO, BOUND, RULESET, operation(Kind.DESCRIPTOR_RULE, numbers=[-1, 1]), RESTRICT, END],
    "a filter without instructions": [GO, BOUND, _filter(0), END],
    "a filter without flags": [GO, BOUND, operation(Kind.FILTER), END],
    "a filter that is too long": [GO, BOUND, _filter(0, *[ALLOW] * 4097), END],
    "a filter for all threads": [GO, BOUND, _filter(1, ALLOW), END],
    "a filter with a listener": [GO, BOUND, _filter(8, ALLOW), END],
    "a filter with new privileges": [GO, _filter(0, ALLOW), END],
    "a filter before the rules": [GO, BOUND, _filter(0, ALLOW), RULESET, RESTRICT, END],
    "a filter after the program": [GO, BOUND, END, _filter(0, ALLOW)],
    "a filter before spawnd knows of it": [BOUND, _filter(0, ALLOW), GO, END],
    "a filter without its last instructions": [GO, BOUND, _changed(_filter(0, ALLOW), NUMBERS, 3), END],
    "a filter that goes on behind the plan": [GO, BOUND, _changed(_filter(0, ALLOW), NUMBERS, 4097), END],
    "a filter that is not aligned": [GO, BOUND, _changed(_filter(0, ALLOW), SIZE, 36), bytes(4), END],
    "a filter of no size": [GO, BOUND, _changed(_filter(0, ALLOW), SIZE, 0), END],
    "a filter of any size": [GO, BOUND, _changed(_filter(0, ALLOW), SIZE, 2**32 - 8), END],
    "a filter without labels": [GO, BOUND, _changed(_filter(0, ALLOW), STRINGS, 0), END],
    "a path that does not end": [GO, BOUND, RULESET, RULE[:-8] + b"x" * 8, RESTRICT, END],
}


def test_what_makes_no_sense_is_no_plan(check: Check) -> None:
    longest = [GO, BOUND, RULESET, RULE, RESTRICT, _filter(6, *[ALLOW] * 4096), _filter(0, ALLOW), END]
    assert check([plan([GO, END]), plan(longest)]) == PROGRAM * 2
    restricted = [GO, BOUND, RULESET, RULE, RESTRICT]
    forked = [plan([GO]), plan(restricted), plan([*restricted, _filter(0, ALLOW)])]
    assert check(forked) == FORKED * 2 + NONE
    found = dict(zip(NOT_PLANS, check(map(plan, NOT_PLANS.values())), strict=True))
    assert {name: sort for name, sort in found.items() if sort != NONE} == {"no program": FORKED}


BY_DESCRIPTOR = operation(Kind.EXECUTE_DESCRIPTOR, numbers=[5], strings=["acceptor", "4"])
OWN, OWN_SESSION = Kind.SESSION, operation(Kind.SESSION)
OF_SESSIONS = {
    *(Kind.SESSION, Kind.SIGNALS, Kind.CLOSE, Kind.MOVE, Kind.LIMIT, Kind.ENVIRONMENT, Kind.OWN_PID),
    *(Kind.BINDING_LIMIT, Kind.NO_NEW_PRIVS),
}


def _ordered(kind: int, new: bytes, go: bytes) -> list[bytes]:
    return [go, new] if kind == Kind.NO_NEW_PRIVS else [new, go]


def test_a_session_inherits_the_rest(check: Check) -> None:
    kinds = [kind for name, kind in vars(Kind).items() if name.isupper() and kind < Kind.RULESET and kind != Kind.GO]
    tried = [
        (kind, operation(kind, numbers=numbers, strings=strings))
        for kind in kinds
        for numbers in ([], [0], [0, 0], [0, 0, 0], [0, 0, 0, 0], [0] * 5, [0x4000000], [0, 0x4000000])
        for strings in ([], ["A=1"], ["", "", "", ""])
    ]
    of_services = check(plan([*_ordered(kind, new, GO), END]) for kind, new in tried)
    of_sessions = check(plan([new, END] if kind == OWN else [OWN_SESSION, new, END]) for kind, new in tried)
    assert {kind for (kind, _), sort in zip(tried, of_services, strict=True) if sort == PROGRAM} == set(kinds)
    allowed = {kind for (kind, _), sort in zip(tried, of_sessions, strict=True) if sort == SESSION}
    assert allowed == OF_SESSIONS


def test_a_program_on_a_descriptor(check: Check) -> None:
    named = operation(Kind.EXECUTE, numbers=[HAS_ARGV0], strings=["/bin/true", "name"])
    unnamed = operation(Kind.EXECUTE, numbers=[HAS_ARGV0], strings=["/bin/true"])
    taken = [[GO, BY_DESCRIPTOR], [GO, named], [OWN_SESSION, named]]
    refused = [
        *([OWN_SESSION, OWN_SESSION, END], [OWN_SESSION, GO, END, END], [OWN_SESSION, BY_DESCRIPTOR]),
        *([GO, BY_DESCRIPTOR, END], [GO, END, BY_DESCRIPTOR], [GO, unnamed]),
        [GO, BOUND, _filter(0, ALLOW), BY_DESCRIPTOR],
    ]
    assert check(map(plan, taken)) == PROGRAM * 2 + SESSION
    assert set(check(map(plan, refused))) == {NONE}


def test_a_forked_child_executes_nothing() -> None:
    ours, theirs = socket.socketpair()
    ours.send(b"\n")
    pid = os.fork()
    if pid == 0:
        carry_out_forked(plan([GO, END]), theirs.fileno())
        os._exit(0)
    theirs.close()
    failure = read_failure(read_all(ours.detach()))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == EXIT_CHILD_FAILED
    assert str(failure) == NO_PLAN


def carried_out(data: bytes, seals: int = SEALS) -> tuple[int, str]:
    """Exit status and cause of `launch` with that plan."""
    ours, theirs = socket.socketpair()
    fd = os.memfd_create("plan", os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    fcntl(fd, F_ADD_SEALS, seals)
    with theirs:
        numbers = [str(fd), str(theirs.fileno())]
        child = subprocess.Popen([PATH, *numbers], pass_fds=[fd, theirs.fileno()])
    os.close(fd)
    with suppress(BrokenPipeError):
        ours.send(b"\n")
    failure = read_failure(read_all(ours.detach()))
    return child.wait(), "" if failure is None else str(failure)


@pytest.mark.parametrize("name", sorted(NOT_PLANS))
def test_no_part_of_it_is_carried_out(tmp_path: Path, name: str) -> None:
    fails = operation(Kind.OPEN, "open", str(tmp_path / "missing"), [50])
    assert carried_out(plan([fails, GO, END])) == (EXIT_CHILD_FAILED, f"cannot open '{tmp_path}/missing': {MISSING}")
    assert carried_out(plan([fails, *NOT_PLANS[name]])) == (EXIT_CHILD_FAILED, NO_PLAN)


def test_another_version_is_refused() -> None:
    data = bytearray(plan([GO, END]))
    assert carried_out(bytes(data)) == (0, "")
    struct.pack_into("=I", data, 4, VERSION + 1)
    assert carried_out(bytes(data)) == (EXIT_CHILD_FAILED, NO_PLAN)


@pytest.mark.parametrize("left_out", [F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE])
def test_a_plan_that_can_change_is_refused(left_out: int) -> None:
    status, cause = carried_out(plan([GO, END]), SEALS & ~left_out)
    assert (status, cause) == (EXIT_CHILD_FAILED, f"cannot start: {os.strerror(errno.EPERM)} (EPERM)")
