"""Signals, and what the loop costs while nothing happens."""

from __future__ import annotations

import os
import re
import select
import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from supervisor.loop.loop import MAX_EVENTS, Loop
from tests.unit.process.forked import in_child
from tests.unit.waiting import DEADLINE, child_process, run_until, turn, wait_readable, wait_until

IDLE_SECONDS = 0.3  # of which not one may be spent awake


def test_a_signal_wakes_the_loop_and_calls_from_it(loop: Loop) -> None:
    heard: list[str] = []

    def hear() -> None:
        heard.append("usr1")
        loop.stop()

    loop.on_signal(signal.SIGUSR1, hear)
    guard = loop.call_later(DEADLINE, loop.stop)
    with child_process(lambda: os.kill(os.getppid(), signal.SIGUSR1)):
        loop.run()
    guard.cancel()
    assert heard == ["usr1"]


def test_a_signal_is_not_kept_waiting_by_busy_descriptors(loop: Loop) -> None:
    """More of them than a round takes, and all were ready before it."""
    heard: list[str] = []
    loop.on_signal(signal.SIGUSR1, lambda: heard.append("usr1"))
    with ExitStack() as stack:
        for _ in range(3 * MAX_EVENTS):
            read_end, write_end = os.pipe()
            stack.callback(os.close, read_end)
            stack.callback(os.close, write_end)
            os.write(write_end, b"x")
            loop.watch(read_end, select.EPOLLIN, lambda events: None)
            stack.callback(loop.unwatch, read_end)
        os.kill(os.getpid(), signal.SIGUSR1)
        turn(loop)
    assert heard == ["usr1"]


@pytest.mark.parametrize("before", [0, 1, 5])
def test_an_urgent_signal_waits_for_no_event(loop: Loop, before: int) -> None:
    """Another one does, and neither is lost or told twice."""
    heard: list[str] = []
    loop.on_signal(signal.SIGUSR1, lambda: heard.append("urgent"), is_urgent=True)
    loop.on_signal(signal.SIGUSR2, lambda: heard.append("other"))

    def ready(_events: int) -> None:
        heard.append("ready")
        if len(heard) == before:
            send()

    def send() -> None:
        for signum in (signal.SIGUSR2, signal.SIGUSR1):
            os.kill(os.getpid(), signum)

    with ExitStack() as stack:
        for _ in range(MAX_EVENTS):
            read_end, write_end = os.pipe()
            stack.callback(os.close, read_end)
            stack.callback(os.close, write_end)
            os.write(write_end, b"x")
            loop.watch(read_end, select.EPOLLIN, ready)
            stack.callback(loop.unwatch, read_end)
        if not before:
            send()
        turn(loop)
    assert heard[: before + 1] == ["ready"] * before + ["urgent"]
    assert heard[before + 1 :] == ["ready"] * (len(heard) - before - 2) + ["other"]
    assert len(heard) > MAX_EVENTS


def test_what_an_urgent_callback_closes_is_not_called_back_by_a_later_owner_of_its_number(loop: Loop) -> None:
    heard: list[str] = []
    old, old_end = os.pipe()
    new, new_end = os.pipe()
    os.write(old_end, b"x")

    def replace() -> None:
        loop.unwatch(old)
        os.dup2(new, old)
        loop.watch(old, select.EPOLLIN, lambda events: heard.append("new"))

    loop.watch(old, select.EPOLLIN, lambda events: heard.append("old"))
    loop.on_signal(signal.SIGUSR1, replace, is_urgent=True)
    os.kill(os.getpid(), signal.SIGUSR1)
    turn(loop)
    assert heard == []
    loop.unwatch(old)
    for fd in (old, old_end, new, new_end):
        os.close(fd)


def test_the_callback_runs_in_the_loop_not_in_the_handler(loop: Loop) -> None:
    heard: list[str] = []
    loop.on_signal(signal.SIGUSR1, lambda: heard.append("usr1"))
    os.kill(os.getpid(), signal.SIGUSR1)
    assert heard == []
    turn(loop)
    assert heard == ["usr1"]


def test_what_comes_before_run_is_not_lost(loop: Loop) -> None:
    heard: list[str] = []
    loop.on_signal(signal.SIGUSR1, lambda: heard.append("usr1"))
    loop.on_signal(signal.SIGUSR2, lambda: heard.append("usr2"))
    os.kill(os.getpid(), signal.SIGUSR2)
    os.kill(os.getpid(), signal.SIGUSR1)
    turn(loop)
    assert heard == ["usr2", "usr1"]


def test_the_kernel_merges_ordinary_signals_and_queues_real_time_ones(loop: Loop) -> None:
    """Each delivery that the kernel makes counts, also those that wait in one queue."""
    heard: Counter[int] = Counter()
    realtime = [signal.SIGRTMIN, signal.SIGRTMIN + 1, signal.SIGRTMAX]
    for signum in (signal.SIGUSR1, *realtime):
        loop.on_signal(signum, lambda signum=signum: heard.update([signum]))  # type: ignore[misc]
    before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    try:
        for _ in range(50):
            for signum in (signal.SIGUSR1, *realtime):
                # to this thread alone: another one may have begun and not blocked its signals yet
                signal.raise_signal(signum)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    turn(loop, 2)
    assert heard == {signal.SIGUSR1: 1, **dict.fromkeys(realtime, 50)}


def test_many_at_once_are_all_heard(loop: Loop) -> None:
    """More than one read of the wake-up pipe takes."""
    heard: list[None] = []
    loop.on_signal(signal.SIGRTMIN + 5, lambda: heard.append(None))
    for _ in range(10_000):
        os.kill(os.getpid(), signal.SIGRTMIN + 5)
    turn(loop, 2)
    assert len(heard) == 10_000


def test_another_callback_for_a_signal_takes_the_place_of_the_first(loop: Loop) -> None:
    heard: list[str] = []
    loop.on_signal(signal.SIGUSR1, lambda: heard.append("old"))
    loop.on_signal(signal.SIGUSR1, lambda: heard.append("new"))
    os.kill(os.getpid(), signal.SIGUSR1)
    turn(loop)
    assert heard == ["new"]


def test_an_exception_in_a_signal_s_callback_keeps_no_other() -> None:
    def check() -> tuple[list[str], list[str]]:
        errors: list[BaseException] = []
        heard: list[str] = []
        loop = Loop(on_error=errors.append)

        def fails() -> None:
            raise ValueError("mine")

        loop.on_signal(signal.SIGUSR1, fails)
        loop.on_signal(signal.SIGUSR2, lambda: heard.append("usr2"))
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
        turn(loop, 2)
        return heard, [str(error) for error in errors]

    assert in_child(check) == (["usr2"], ["mine"])


def test_a_wait_that_is_interrupted_goes_on(loop: Loop) -> None:
    """EINTR: timers ring at their time and descriptors are heard, however many signals come in between."""
    heard: list[None] = []
    rung: list[float] = []
    start = loop.clock()
    loop.on_signal(signal.SIGUSR1, lambda: heard.append(None))
    loop.call_later(0.1, lambda: rung.append(loop.clock() - start))

    def disturb() -> None:
        while True:
            os.kill(os.getppid(), signal.SIGUSR1)

    with child_process(disturb):
        run_until(loop, lambda: rung and heard)
    assert rung[0] >= 0.1


def test_without_a_signal_the_wake_up_descriptor_stays_whose_it_was(loop: Loop) -> None:
    turn(loop)
    assert signal.set_wakeup_fd(-1) == -1


def test_close_gives_the_wake_up_descriptor_back() -> None:
    handler = signal.getsignal(signal.SIGUSR1)
    loop = Loop(on_error=lambda _error: None)
    try:
        loop.on_signal(signal.SIGUSR1, lambda: None)
    finally:
        loop.close()
        signal.signal(signal.SIGUSR1, handler)
    assert signal.set_wakeup_fd(-1) == -1


# idle


def _switches(pid: int) -> int:
    found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1])


def _sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def _rest(loop: Loop) -> None:
    """Nothing at all to do."""


def _with_a_timer_far_off(loop: Loop) -> None:
    loop.call_later(3600, lambda: None)


def _with_a_timer_beyond_what_epoll_takes(loop: Loop) -> None:
    loop.call_later(1e10, lambda: None)


def _with_cancelled_timers(loop: Loop) -> None:
    for _ in range(1000):
        loop.call_later(0.1, lambda: None).cancel()


def _after_signals(loop: Loop) -> None:
    loop.on_signal(signal.SIGUSR1, lambda: None)
    for _ in range(100):
        os.kill(os.getpid(), signal.SIGUSR1)


def _with_a_silent_descriptor(loop: Loop) -> None:
    read_end, _ = os.pipe()
    loop.watch(read_end, select.EPOLLIN, lambda _events: None)


@pytest.mark.parametrize(
    "prepare",
    [
        _rest,
        _with_a_timer_far_off,
        _with_a_timer_beyond_what_epoll_takes,
        _with_cancelled_timers,
        _after_signals,
        _with_a_silent_descriptor,
    ],
)
def test_an_idle_loop_never_wakes_up(prepare: object) -> None:
    assert callable(prepare)
    read_end, write_end = os.pipe()

    def idle() -> None:
        loop = Loop(on_error=lambda _error: None)
        prepare(loop)
        turn(loop, 3)
        os.write(write_end, b"!")
        loop.run()

    try:
        with child_process(idle) as pid:
            wait_readable(read_end)
            wait_until(lambda: _sleeps(pid))
            before = _switches(pid)
            pidfd = os.pidfd_open(pid)
            try:
                # it must not end, and must not wake either
                assert not select.select([pidfd], [], [], IDLE_SECONDS)[0]
            finally:
                os.close(pidfd)
            assert _sleeps(pid)
            assert _switches(pid) == before
    finally:
        os.close(read_end)
        os.close(write_end)


# over an exec


def test_signals_that_came_and_were_not_handled_can_be_taken_and_given(loop: Loop) -> None:
    heard: list[int] = []
    for signum in (signal.SIGUSR1, signal.SIGHUP, signal.SIGRTMIN + 1):
        loop.on_signal(signum, lambda signum=signum: heard.append(int(signum)))  # type: ignore[misc]
    sent = [signal.SIGRTMIN + 1, signal.SIGUSR1, signal.SIGRTMIN + 1, signal.SIGHUP]
    for signum in sent:
        os.kill(os.getpid(), signum)
    taken = loop.take_signals()
    assert taken == sent
    assert loop.take_signals() == []
    turn(loop, 2)
    assert heard == []
    loop.give_signals(taken)
    turn(loop)
    assert heard == sent


def test_those_that_are_given_wake_the_loop_and_come_before_later_ones(loop: Loop) -> None:
    heard: list[str] = []
    loop.on_signal(signal.SIGUSR1, lambda: heard.append("usr1"))
    loop.on_signal(signal.SIGUSR2, lambda: heard.append("usr2"))
    loop.give_signals([signal.SIGUSR1])
    os.kill(os.getpid(), signal.SIGUSR2)
    run_until(loop, lambda: len(heard) == 2)
    assert heard == ["usr1", "usr2"]


def test_a_callback_that_takes_the_rest_has_them_alone(loop: Loop) -> None:
    """The exec happens in a callback, with others of the same moment behind it."""
    taken: list[int] = []
    heard: list[str] = []
    loop.on_signal(signal.SIGUSR1, lambda: taken.extend(loop.take_signals()))
    loop.on_signal(signal.SIGUSR2, lambda: heard.append("usr2"))
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR2)
    turn(loop, 2)
    assert taken == [signal.SIGUSR2]
    assert heard == []


def test_one_that_nobody_takes_is_dropped_when_it_is_given(loop: Loop) -> None:
    """Of another version: it knew a signal that this one does not."""
    loop.give_signals([signal.SIGUSR2])
    turn(loop, 2)
