"""Getting and keeping a scope, with a stand-in for systemd: a program that makes the cgroup, and who removes it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from supervisor.process.cgroup import Leaf, Subtree
from supervisor.process.children import Children
from supervisor.systemd import scope as module
from supervisor.systemd.scope import HOLDER_LEAF, Scope, holder_of, move_holder
from tests.unit.process import cgroups
from tests.unit.process.forked import open_numbers
from tests.unit.process.requirements import needs_root
from tests.unit.waiting import child_process, run_until

pytestmark = needs_root
NAME = f"spawnd-test-{os.getpid()}.scope"  # all slices of the machine are searched for it
MAKE = """
import os, sys
path = sys.argv[1]
os.makedirs(path, exist_ok=True)
os.setxattr(path, "user.delegate", b"1")
open(path + "/cgroup.procs", "w").write("0")
os.execv("/bin/sh", ["sh", "-c", "exec /bin/sleep infinity 2>/dev/null"])
"""


class Fake:
    """The part of systemd: `command` makes the scope, `tidy` removes it once it is empty."""

    def __init__(self, loop: Loop, parent: Subtree) -> None:
        self.path = f"{parent.path}/{NAME}"
        self.command: tuple[str, ...] = (sys.executable, "-I", "-c", MAKE, self.path)
        self.asked = 0
        self._loop = loop
        self._used = False  # one that was never used is just being made

    def make_command(self, name: str, _folder: str) -> tuple[str, ...]:
        assert name == NAME
        self.asked += 1
        return self.command

    def tidy(self) -> None:
        leaf = Leaf(Subtree(self.path), self.path)
        if leaf.is_populated():
            self._used = True
        elif self._used:
            self._used = False
            leaf.remove()

    def until(self, condition: Callable[[], object]) -> None:
        def look() -> object:
            self.tidy()
            return condition()

        run_until(self._loop, look)


@pytest.fixture
def fake(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    children = Children(lambda _pid, _exit: None)
    loop.on_signal(signal.SIGCHLD, children.reap)
    with cgroups.subtree(".slice") as parent:
        made = Fake(loop, parent)
        monkeypatch.setattr(module, "make_scope_command", made.make_command)
        monkeypatch.setattr(module, "AGAIN_AFTER", 0.01)
        yield made
    run_until(loop, lambda: not Children.any_left())


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(log, "error", lambda text, *args: lines.append(text % args))
    return lines


def opened(fake: Fake, scope: Scope) -> Subtree | None:
    """The subtree that `scope.open` came to."""
    found: list[Subtree | None] = []
    scope.open(found.append)
    fake.until(lambda: found)
    return found[0]


def closed(fake: Fake, scope: Scope) -> None:
    done: list[bool] = []
    scope.close(lambda: done.append(True))
    fake.until(lambda: done)


def has_other_holder(path: str, holder: int) -> bool:
    return holder_of(path) not in (None, holder)


def enter(path: str) -> None:
    Path(path, "cgroup.procs").write_text("0")
    signal.pause()


def test_a_scope_is_made_kept_and_ended(loop: Loop, fake: Fake) -> None:
    before = open_numbers()
    scope = Scope(loop, NAME, "/run/x")
    subtree = opened(fake, scope)
    assert subtree is not None
    assert (subtree.path, fake.asked) == (fake.path, 1)
    assert holder_of(fake.path) is not None
    assert Path(fake.path, "cgroup.procs").read_text() == ""
    scope.release()
    closed(fake, scope)
    assert not os.path.exists(fake.path)
    assert open_numbers() == before


def test_one_that_is_there_is_used_with_its_keeper(loop: Loop, fake: Fake) -> None:
    """Of a spawnd that was lost."""
    first = Scope(loop, NAME, "/run/x")
    opened(fake, first)
    holder = holder_of(fake.path)
    second = Scope(loop, NAME, "/run/x")
    subtree = opened(fake, second)
    assert subtree is not None
    assert (subtree.path, fake.asked, holder_of(fake.path)) == (fake.path, 1, holder)
    first.release()
    closed(fake, second)
    first.abandon()


def test_one_that_only_services_hold_gets_a_keeper(loop: Loop, fake: Fake) -> None:
    Path(fake.path).mkdir()
    os.setxattr(fake.path, "user.delegate", b"1")
    leaf = Path(fake.path, "a")
    leaf.mkdir()
    with child_process(lambda: enter(str(leaf))):
        run_until(loop, lambda: Leaf(Subtree(fake.path), fake.path).is_populated())
        scope = Scope(loop, NAME, "/run/x")
        assert opened(fake, scope) is not None
        fake.until(lambda: holder_of(fake.path))
        assert fake.asked == 0
        closed(fake, scope)


def test_a_keeper_that_is_killed_is_replaced(loop: Loop, fake: Fake) -> None:
    scope = Scope(loop, NAME, "/run/x")
    opened(fake, scope)
    leaf = Path(fake.path, "a")
    leaf.mkdir()
    with child_process(lambda: enter(str(leaf))):
        run_until(loop, lambda: (leaf / "cgroup.procs").read_text())
        for _ in range(3):
            holder = holder_of(fake.path)
            assert holder is not None
            os.kill(holder, signal.SIGKILL)
            replaced = partial(has_other_holder, fake.path, holder)
            fake.until(replaced)
        assert fake.asked == 1
        closed(fake, scope)


def test_a_scope_that_is_gone_is_made_again(loop: Loop, fake: Fake) -> None:
    scope = Scope(loop, NAME, "/run/x")
    subtree = opened(fake, scope)
    assert subtree is not None
    holder = holder_of(fake.path)
    assert holder is not None
    os.kill(holder, signal.SIGKILL)
    fake.until(lambda: subtree.lost)
    fake.until(lambda: not subtree.lost)
    assert (subtree.path, fake.asked) == (fake.path, 2)
    assert holder_of(fake.path) is not None
    assert Path(fake.path, "cgroup.procs").read_text() == ""
    closed(fake, scope)


def test_one_that_moved_to_another_slice_is_found_there(loop: Loop, fake: Fake) -> None:
    """Whoever holds the subtree goes on with its new place."""
    scope = Scope(loop, NAME, "/run/x")
    subtree = opened(fake, scope)
    assert subtree is not None
    inner = f"{os.path.dirname(fake.path)}/inner.slice"
    os.mkdir(inner)
    elsewhere = f"{inner}/{NAME}"
    fake.command = (*fake.command[:-1], elsewhere)
    holder = holder_of(fake.path)
    assert holder is not None
    os.kill(holder, signal.SIGKILL)
    fake.until(lambda: subtree.path == elsewhere)
    fake.path = elsewhere
    closed(fake, scope)


def test_nothing_is_replaced_once_everything_stops(loop: Loop, fake: Fake) -> None:
    scope = Scope(loop, NAME, "/run/x")
    opened(fake, scope)
    scope.release()
    holder = holder_of(fake.path)
    assert holder is not None
    os.kill(holder, signal.SIGKILL)
    fake.until(lambda: not os.path.exists(fake.path))
    closed(fake, scope)
    assert fake.asked == 1


def test_a_keeper_that_ends_just_before_the_stop_is_not_replaced(loop: Loop, fake: Fake) -> None:
    scope = Scope(loop, NAME, "/run/x")
    opened(fake, scope)
    holder = holder_of(fake.path)
    assert holder is not None
    os.kill(holder, signal.SIGKILL)
    run_until(loop, lambda: scope._pidfd < 0)
    scope.release()
    fake.until(lambda: scope._timer is None)
    assert fake.asked == 1
    closed(fake, scope)


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (("/bin/sh", "-c", "echo not this time >&2; echo really >&2; exit 1"), "not this time; really"),
        (("/bin/true",), "it ended without a word"),
        (("/nowhere/systemd-run",), "cannot execute '/nowhere/systemd-run': No such file or directory"),
        (("/bin/sh", "-c", "exec sleep 0.01 2>/dev/null"), "it ended without a word"),
    ],
)
def test_what_is_wrong_is_said_after_the_last_try(
    loop: Loop, fake: Fake, logged: list[str], monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], complaint: str
) -> None:
    before = open_numbers()
    monkeypatch.setattr(module, "TIME_LIMIT", 600.0)  # however long a try takes here, it is not the time that ends them

    def make_command(name: str, folder: str) -> tuple[str, ...]:
        if fake.asked == 1:
            monkeypatch.setattr(module, "AGAIN_AFTER", module.TIME_LIMIT)  # this try is the last one
        return fake.make_command(name, folder)

    monkeypatch.setattr(module, "make_scope_command", make_command)
    fake.command = command
    scope = Scope(loop, NAME, "/run/x")
    assert opened(fake, scope) is None
    assert logged == [f"cannot get {NAME}: {complaint}"]
    assert fake.asked == 2
    closed(fake, scope)
    assert open_numbers() == before


def test_the_next_try_may_succeed(loop: Loop, fake: Fake) -> None:
    """One of that name was about to go."""
    good, fake.command = fake.command, ("/bin/false",)
    scope = Scope(loop, NAME, "/run/x")
    found: list[Subtree | None] = []
    scope.open(found.append)
    fake.until(lambda: fake.asked == 3)
    fake.command = good
    fake.until(lambda: found)
    assert found[0] is not None
    closed(fake, scope)


def test_who_never_answers_is_given_up(
    loop: Loop, fake: Fake, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIME_LIMIT", 0.2)
    fake.command = ("/bin/sleep", "100000")
    scope = Scope(loop, NAME, "/run/x")
    assert opened(fake, scope) is None
    assert logged == [f"cannot get {NAME}: systemd did not make it within 0.2 s"]
    assert fake.asked == 1
    fake.until(lambda: not Children.any_left())


def test_an_end_while_it_is_asked_for(loop: Loop, fake: Fake) -> None:
    before = open_numbers()
    fake.command = ("/bin/sleep", "100000")
    scope = Scope(loop, NAME, "/run/x")
    scope.open(lambda _subtree: pytest.fail("nobody wants it any more"))
    scope.abandon()
    fake.until(lambda: not Children.any_left())
    assert open_numbers() == before


def test_one_that_was_made_for_nothing_is_ended_and_one_that_was_there_is_not(loop: Loop, fake: Fake) -> None:
    first = Scope(loop, NAME, "/run/x")
    opened(fake, first)
    second = Scope(loop, NAME, "/run/x")
    opened(fake, second)
    second.abandon()
    assert holder_of(fake.path) is not None
    first.abandon()
    fake.until(lambda: not os.path.exists(fake.path))


def test_a_scope_that_will_not_go_holds_nobody_up(loop: Loop, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GONE_WITHIN", 0.1)
    scope = Scope(loop, NAME, "/run/x")
    opened(fake, scope)
    done: list[bool] = []
    scope.close(lambda: done.append(True))
    run_until(loop, lambda: done)  # nobody tidies up
    assert os.path.exists(fake.path)
    assert holder_of(fake.path) is None


def test_a_keeper_that_cannot_be_moved_is_none(
    loop: Loop, fake: Fake, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its leaf cannot be made: no process of ours stays behind."""
    monkeypatch.setattr(module, "TIME_LIMIT", 3.0)
    monkeypatch.setattr(module, "AGAIN_AFTER", 0.5)  # by then the one that was killed is gone, also on a busy machine
    full = MAKE.replace("\nopen", '\nopen(path + "/cgroup.max.descendants", "w").write("0")\nopen')
    fake.command = (*fake.command[:3], full, fake.path)
    scope = Scope(loop, NAME, "/run/x")
    assert opened(fake, scope) is None
    assert "cannot make cgroup" in logged[0]
    assert HOLDER_LEAF in logged[0]
    fake._used = True  # though it may never have been seen so
    fake.until(lambda: not os.path.exists(fake.path))


def test_the_keeper_of_another_is_not_settled_twice(loop: Loop, fake: Fake) -> None:
    scope = Scope(loop, NAME, "/run/x")
    opened(fake, scope)
    holder = holder_of(fake.path)
    assert holder is not None
    move_holder(fake.path, holder)
    closed(fake, scope)
